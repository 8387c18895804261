"""Runs beside busy neighbours: every way to wait is measured, and nothing stays behind.

Run: pytest tests/bench/test_load.py
"""

import json
import sys
from pathlib import Path

import psutil
import pytest

from powerbench.bench import load
from powerbench.bench.load import HERE, RUNTIME, SETTINGS, name, ratios
from powerbench.bench.rounds import Rate
from powerbench.machine.threads import WAITING


def test_ratios_are_to_the_runtimes_own_on_a_quiet_machine() -> None:
    rates = {
        name(RUNTIME, 0): Rate("", [100.0, 50.0, 80.0]),
        name(RUNTIME, 2): Rate("", [10.0, 10.0, 8.0]),
        name(HERE, 2): Rate("", [40.0, 25.0, 48.0]),
    }
    assert ratios(rates) == {
        name(RUNTIME, 0): 1.0,
        name(RUNTIME, 2): 0.1,
        name(HERE, 2): 0.5,
    }


def test_the_settings_are_what_a_user_would_set() -> None:
    assert SETTINGS[HERE] == {}  # what powerbench chooses where nobody has
    assert HERE.startswith(f"{int(WAITING['GOMP_SPINCOUNT']):,}")
    assert {env.get("OMP_WAIT_POLICY") for env in SETTINGS.values()} == {None, "PASSIVE"}


@pytest.mark.faults
def test_a_tiny_model_runs_beside_each_number_of_neighbours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setattr(load, "SETTLE", 0.0)
    monkeypatch.setattr(load, "SETTINGS", {RUNTIME: SETTINGS[RUNTIME], HERE: SETTINGS[HERE]})
    before, out = psutil.Process().children(), tmp_path / "load.json"
    sizes = ["--chains", "2", "--tokens", "4", "--repeats", "1", "--neighbours", "1"]
    monkeypatch.setattr(sys, "argv", ["load", "--model", "tiny", *sizes, "--out", str(out)])
    load.main()
    record = json.loads(out.read_text())
    cases = {name(setting, count) for setting in (RUNTIME, HERE) for count in (0, 1)}
    assert set(record["tokens_per_second"]) == set(record["of_libgomps_quiet_run"]) == cases
    assert all(rate > 0 for rates in record["tokens_per_second"].values() for rate in rates)
    assert (record["threads"], len(record["tokens_per_second"][name(HERE, 1)])) == (2, 1)
    assert "1 neighbours: " in capsys.readouterr().out
    assert psutil.Process().children() == before


def test_one_thread_waits_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(sys, "argv", ["load", "--model", "tiny", "--chains", "1", "--tokens", "2"])
    with pytest.raises(SystemExit, match="unset OMP_NUM_THREADS"):
        load.main()
