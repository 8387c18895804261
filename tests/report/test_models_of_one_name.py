"""Two models of one name: told apart in a report, and not mixed in a file of likelihoods.

Run: pytest tests/report/test_models_of_one_name.py
"""

from pathlib import Path

import pytest
from local_model import save

from powerbench.cli import main
from powerbench.report.models import read_all
from powerbench.store import find_runs

SMALL = ["task=math_mini", "max_tokens=4", "blocks=2", "steps=1", "limit=2", "tracker=none"]
TOY = ["model=toy", "engine=toy", *SMALL, "sampler=base"]


def local(folder: Path) -> list[str]:
    return ["model=hf", f"model.id={folder}", "model.dtype=float32", "task.stop_tokens=[]", *SMALL]


def names(folder: Path) -> list[str]:
    return sorted({r.summary.model for r in read_all(find_runs([folder]))})


def test_checkpoints_of_two_trainings_have_names_of_their_own(tmp_path: Path) -> None:
    for seed, training in enumerate(("sft", "grpo")):
        save(tmp_path / training / "step-1.5", seed)
        command = [*local(tmp_path / training / "step-1.5"), "sampler=base"]
        main(["run", *command, f"runs={tmp_path / 'runs'}"])
    assert len(list((tmp_path / "runs/math_mini").iterdir())) == 1
    expected = ["step-1.5 (grpo/step-1.5)", "step-1.5 (sft/step-1.5)"]
    assert names(tmp_path / "runs") == expected
    main(["report", str(tmp_path / "runs")])
    text = (tmp_path / "runs/report/report.md").read_text(encoding="utf-8")
    assert all(name in text for name in expected)


def test_weights_that_were_replaced_are_another_model_and_a_copy_is_not(tmp_path: Path) -> None:
    runs = f"runs={tmp_path / 'runs'}"
    save(tmp_path / "a/m", seed=0)
    main(["run", *local(tmp_path / "a/m"), "sampler=base", runs])
    (tmp_path / "b").mkdir()
    (tmp_path / "a/m").rename(tmp_path / "b/m")
    main(["run", *local(tmp_path / "b/m"), "sampler=low_temp", runs])
    assert names(tmp_path / "runs") == ["m"]
    save(tmp_path / "b/m", seed=1)
    main(["run", *local(tmp_path / "b/m"), "sampler=base", runs, "limit=1"])
    found = find_runs([tmp_path / "runs"])
    assert sorted(len(run.samples()) for run in found) == [1, 2, 2]
    assert len(names(tmp_path / "runs")) == 2


def test_tables_of_other_seeds_are_told_apart(tmp_path: Path) -> None:
    for seed in (0, 1):
        main(["run", *TOY, f"model.seed={seed}", f"runs={tmp_path}"])
    assert names(tmp_path) == ["toy (seed=0)", "toy (seed=1)"]


def test_likelihoods_of_two_models_are_not_mixed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["run", *TOY, f"runs={tmp_path}"])
    main(["rescore-likelihood", str(tmp_path), "model=toy", "model.seed=1"])
    with pytest.raises(SystemExit):
        main(["rescore-likelihood", str(tmp_path), "model=toy", "model.seed=2"])
    assert (
        "is of another model of that name (seed: 1 there, 2 asked for)" in capsys.readouterr().err
    )
    main(["rescore-likelihood", str(tmp_path), "model=toy", "model.seed=2", "model.name=other"])
    (run,) = find_runs([tmp_path])
    assert run.scored_by() == ["other", "toy"]
