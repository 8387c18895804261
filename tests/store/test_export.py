"""Run folders as a dataset: what is exported is what was stored, and `datasets` loads it.

Run: pytest tests/store/test_export.py
"""

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import datasets
import pyarrow.parquet as pq
import pytest

from powerbench.cli import main
from powerbench.errors import UserError
from powerbench.store import Run, export, find_runs
from powerbench.store.writing import score_writer
from powerbench.types import SampleKey, Score

TOY = ("model=toy", "engine=toy", "task=math_mini", "max_tokens=8", "blocks=2", "tracker=none")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs, one of them in shards, judged by two verifiers but for one sample."""
    folder = tmp_path_factory.mktemp("runs")
    common = [*TOY, "limit=3", "replicates=2", f"runs={folder}"]
    main(["run", *common, "sampler=base"])
    main(["run", "-m", *common, "sampler=power", "shard=all/2"])
    for run in find_runs([folder]):
        keys = sorted(run.keys())
        with score_writer(run, "strict") as write:
            for key in keys[1:]:
                write(key, Score(correct=False, reason="units"))
            write(keys[1], Score(correct=True, answer="7", reason="same", by="us"))
    return folder


def test_datasets_loads_what_was_stored(runs: Path, tmp_path: Path) -> None:
    main(["export", str(runs), "--out", str(tmp_path / "out")])
    loaded = datasets.load_dataset(
        str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert len(loaded) == 12
    stored = {run.path.name: run for run in find_runs([runs])}
    for row in loaded:
        run = stored[row["run"]]
        key = SampleKey(row["problem"], row["replicate"])
        sample, problem = run.samples()[key], run.problems()[key.problem]
        assert (row["task"], row["model"]) == ("math_mini", "toy")
        assert row["run"].startswith(f"{row['sampler']}-")
        assert (row["prompt"], row["gold"]) == (problem.prompt.text, problem.gold)
        assert (row["response"], tuple(row["tokens"])) == (sample.text, sample.tokens)
        assert (row["logp"], row["entropy"], row["finish_reason"]) == (
            sample.logp,
            sample.entropy,
            sample.finish_reason,
        )
        assert (row["decoded"], row["seconds"]) == (sample.cost.decoded, sample.cost.seconds)
        assert (row["passes"], row["rows"]) == (sample.cost.passes, sample.cost.rows)
        assert row["finished"].timestamp() == pytest.approx(sample.cost.finished, abs=2e-3)
        assert row["steps"] == [step._asdict() for step in sample.steps]
        assert row["value"] == run.scores("math")[key].value
        scores = {v.pop("verifier"): v for v in row["scores"]}
        for verifier in ("math", "strict"):
            score = run.scores(verifier).get(key)
            plain = score and asdict(score) | {"value": score.value, "members": []}
            assert scores.get(verifier) == plain


def test_a_file_tells_what_made_it(runs: Path, tmp_path: Path) -> None:
    main(["export", str(runs), "--out", str(tmp_path)])
    for run in find_runs([runs]):
        (file,) = tmp_path.glob(f"data/*--{run.path.name}.parquet")
        about = json.loads(pq.read_schema(file).metadata[b"powerbench"])
        assert about == {"config": run.config, "manifest": run.manifest}


def test_runs_larger_than_a_row_group_are_whole(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "ROWS", 4)
    (run,) = (run for run in find_runs([runs]) if run.path.name.startswith("power"))
    export.export([run], tmp_path)
    (file,) = tmp_path.glob("data/*.parquet")
    assert pq.ParquetFile(file).num_row_groups == 2
    assert pq.read_table(file)["problem"].to_pylist() == [s.problem for s in run.stream()]


def test_a_damaged_run_leaves_no_file(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = find_runs([runs])[0]
    run = Run(tmp_path / "math_mini/toy" / source.path.name)
    run.path.mkdir(parents=True)
    for name in ("config.yaml", "manifest.json", "problems.jsonl"):
        (run.path / name).write_bytes((source.path / name).read_bytes())
    stored = (source.path / "samples.jsonl").read_bytes()
    (run.path / "samples.jsonl").write_bytes(stored.replace(b'"tokens"', b'"tokenz"', 1))
    with pytest.raises(SystemExit) as stopped:
        main(["export", str(run.path), "--out", str(tmp_path / "out")])
    assert stopped.value.code == 2
    assert "line 1 is damaged" in capsys.readouterr().err
    assert list((tmp_path / "out/data").iterdir()) == []


def test_gpqa_is_to_be_kept_private(runs: Path, tmp_path: Path) -> None:
    source = find_runs([runs])[0]
    shutil.copytree(source.path, tmp_path / "gpqa_diamond/toy/base-1")
    copy = Run(tmp_path / "gpqa_diamond/toy/base-1")
    config = (copy.path / "config.yaml").read_text()
    (copy.path / "config.yaml").write_text(config.replace("name: math_mini", "name: gpqa_diamond"))
    private = "keep it private"
    assert private not in export.export([source], tmp_path / "a").read_text()
    assert private in export.export([source, copy], tmp_path / "b").read_text()


def test_two_runs_of_one_name_are_refused(runs: Path, tmp_path: Path) -> None:
    source = find_runs([runs])[0]
    twin = Run(tmp_path / source.path.relative_to(runs))
    shutil.copytree(source.path, twin.path)
    with pytest.raises(
        UserError, match="have the same name, and would be one file: export them apart"
    ):
        export.export([source, twin], tmp_path / "out")
    assert not (tmp_path / "out").exists()
