"""A run is its settings, not the place of the code: folders outlive renamed modules.

Run: pytest tests/run/test_identity.py
"""

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import powerbench.samplers
from powerbench import commands, config
from powerbench.cli import main
from powerbench.cluster import sweep
from powerbench.cluster.status import as_json
from powerbench.report import variants
from powerbench.report.summary import Results
from powerbench.store import Run, find_runs

ROOT = Path(__file__).parents[2]
TOY = ["model=toy", "engine=toy", "task=math_mini", "max_tokens=8", "blocks=2", "tracker=none"]


def only(runs: Path) -> Run:
    (run,) = find_runs([runs])
    return run


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Holds a copy of conf/, and a folder for moved samplers."""
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    (tmp_path / "samplers").mkdir()
    yield tmp_path
    sys.modules.pop("powerbench.samplers.moved", None)
    variants._yaml.cache_clear()


def rename(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on `power` lies in the module `moved`, as its yaml says, and nothing in the old one."""
    source = ROOT / "powerbench/samplers/power.py"
    shutil.copy(source, folder / "samplers/moved.py")
    monkeypatch.setattr(
        powerbench.samplers,
        "__path__",
        [*powerbench.samplers.__path__, str(folder / "samplers")],
    )
    monkeypatch.setitem(sys.modules, "powerbench.samplers.power", None)
    yaml = folder / "conf/sampler/power.yaml"
    yaml.write_text(yaml.read_text().replace("samplers.power.Power", "samplers.moved.Power"))
    for each in (config, sweep, commands, variants):
        monkeypatch.setattr(each, "conf_dir", lambda: folder / "conf")
    variants._yaml.cache_clear()


def test_a_run_folder_outlives_its_samplers_module(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = folder / "runs"
    command = ["run", *TOY, "sampler=power", f"runs={runs}"]
    main([*command, "limit=2"])
    before, samples = only(runs).manifest, only(runs).samples()
    rename(folder, monkeypatch)
    assert only(runs).config["sampler"]["_target_"] == "powerbench.samplers.power.Power"
    for each in (["verify"], ["score"], ["compare"], ["report"], ["status"]):
        main([*each, str(runs)])
    main(["export", str(runs), "--out", str(folder / "data")])
    summary = Results.read(only(runs)).summary
    assert (summary.changes, summary.responses) == ({}, 2)
    main([*command, "limit=3"])
    after = only(runs)  # one folder still
    assert after.manifest["digest"] == before["digest"]
    assert "_target_" not in after.manifest["identity"]["sampler"]
    assert after.config["sampler"]["_target_"] == "powerbench.samplers.moved.Power"
    assert len(after.samples()) == 3 and samples.items() <= after.samples().items()


@pytest.mark.parametrize("sampler", ["greedy", "beam"])
def test_a_sampler_that_draws_nothing_makes_one_response_per_problem(
    tmp_path: Path, sampler: str, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["run", *TOY, f"sampler={sampler}", f"runs={tmp_path}", "limit=3", "replicates=4"])
    assert "3 × 1 (draws nothing)" in " ".join(capsys.readouterr().out.split())
    run = only(tmp_path)
    assert sorted(key.replicate for key in run.samples()) == [0, 0, 0]
    assert run.config["replicates"] == 4
    (shown,) = json.loads(as_json([tmp_path]))
    assert (shown["done"], shown["total"]) == (3, 3)
    assert "complete" in shown["state"]["words"]
    main(["run", *TOY, f"sampler={sampler}", f"runs={tmp_path}", "limit=3", "replicates=9"])
    assert len(run.samples()) == 3


def test_shards_share_the_problems_of_a_sampler_that_draws_nothing(tmp_path: Path) -> None:
    command = ["run", *TOY, "sampler=greedy", f"runs={tmp_path}", "limit=5", "replicates=4"]
    for shard in ("1/2", "2/2"):
        main([*command, f"shard={shard}"])
    assert len(only(tmp_path).samples()) == 5
    rows = {row["shard"]: row for row in json.loads(as_json([tmp_path]))}
    assert (rows["all"]["done"], rows["all"]["total"]) == (5, 5)
