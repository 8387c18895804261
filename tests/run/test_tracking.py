"""W&B receives the run offline, without a key; whatever happens to it, the run goes on.

Run: pytest tests/run/test_tracking.py
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from fabricate import grid, verdicts, write_run

from powerbench.errors import UserError
from powerbench.report.summary import Results
from powerbench.run.tracking import WandbTracker
from powerbench.store import Run
from powerbench.store.shard import WHOLE, Shard


@pytest.fixture
def run(tmp_path: Path) -> Run:
    samples = grid(4, 2)
    return write_run(tmp_path / "math500/tiny/power-12345678", samples, verdicts(samples))


def inspect(run: Run) -> str:
    """The summary of the only W&B run in a run folder, read back by W&B itself."""
    (file,) = run.path.rglob("*.wandb")
    wandb = str(Path(sys.executable).with_name("wandb"))
    command = [wandb, "leet", "inspect", "--summary", "--json", str(file)]
    out = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.dumps(json.loads(out.stdout))


def test_an_offline_run_holds_summary_curves_and_responses(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    tracker = WandbTracker()
    tracker.start(run, group="table1/mini", shard=WHOLE)
    tracker.log({"tokens/s": 12.0})
    tracker.finish(Results.read(run))
    read = inspect(run)
    names = ("tokens/s", "pass@k", "pass@k, high", "responses", "confidence", "logp", "cost")
    for expected in (*names, "decoded_per_token"):
        assert f'"{expected}"' in read
    assert '"experiment": "table1/mini"' in read


def test_the_reports_tables_and_the_pass_at_k_curve_are_there(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    tracker, results = WandbTracker(), Results.read(run)
    tracker.start(run, group="table1/mini", shard=WHOLE)
    tracker.finish(results)
    kept = {
        file.name.split("_")[0]: json.loads(file.read_text())
        for file in run.path.rglob("*.table.json")
    }
    row = dict(zip(kept["results"]["columns"], kept["results"]["data"][0], strict=True))
    value = results.summary.value
    assert value is not None
    assert (row["value"], row["value, high"]) == (value.mean, value.interval.high)
    assert (row["problems"], row["replicates"]) == (4, 2)
    assert kept["cost"]["data"] and len(kept["responses"]["data"]) == 8
    (curve,) = (table for name, table in kept.items() if "pass@k" in name)
    means = [point.mean for point in results.summary.pass_at_k]
    assert [each[-1] for each in curve["data"]] == pytest.approx(means)


def test_a_shard_is_a_run_of_its_own_responses(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    tracker, results = WandbTracker(), Results.read(run)
    tracker.start(run, group="mini", shard=Shard(1, 3))
    tracker.finish(results)
    (folder,) = run.path.glob("wandb/*-run-*")
    assert folder.name.endswith(f"{run.manifest['digest'][:16]}-1-of-3")
    assert results.part(Shard(1, 3)).samples.keys() == {("p0", 0), ("p2", 1), ("p3", 0)}
    read = inspect(run)
    assert '"shard": "1/3"' in read and '"problems": 3' in read


def test_a_broken_tracker_is_named_once_and_fails_nothing(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import wandb

    def broken(**settings: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(wandb, "init", broken)
    tracker = WandbTracker()
    tracker.start(run, group="mini", shard=WHOLE)
    tracker.log({"tokens/s": 12.0})
    tracker.finish(Results.read(run))
    assert capsys.readouterr().err == "W&B: OSError: no space left; the run goes on without it\n"


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(UserError, match=r"tracker\.mode must be one of auto, online, offline"):
        WandbTracker(mode="maybe")
