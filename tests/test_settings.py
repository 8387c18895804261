r"""Settings as people type them: paths that Hydra's grammar refuses, numbers that are none, wrong verifiers.

Run: pytest tests/test_settings.py
"""

import math
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from powerbench.cli import main
from powerbench.config import compose, expand, options, quoted
from powerbench.errors import UserError
from powerbench.run.prepare import prepare
from powerbench.samplers.common import MAX_LOGIT_SCALE
from powerbench.store import find_runs

TOY = ["model=toy", "engine=toy", "task=math_mini", "max_tokens=8", "blocks=2", "tracker=none"]
SMALL = [*TOY, "sampler=base", "limit=1"]


def refused(capsys: pytest.CaptureFixture[str], *overrides: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main(["run", *overrides])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


# -- values that are text -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "ckpt/epoch=1-step=5",
        "o/ünïcödé",
        "模型/七",
        "~/m",
        "o/a(1)",
        "run (copy)/x",
        "a b/c",
        "cost$5",
        "what?!#",
        "50%|x",
        "it's",
        "back\\slash\\",
        "a&b;c",
        "<new>",
        "(x",
        "plain",
    ],
)
def test_a_path_is_itself_whatever_characters_it_has(path: str) -> None:
    assert compose([f"runs={path}"]).values.runs == path
    (job,) = expand([f"runs={path}"], multirun=False).runs
    assert compose(job).values.runs == path
    (again,) = expand(job, multirun=True).runs
    assert compose(again).values.runs == path
    assert compose([f"runs={quoted(path)}"]).values.runs == path


@pytest.mark.parametrize(
    "override", ["sampler= low_temp", "sampler=low_temp ", " sampler =low_temp"]
)
def test_spaces_around_a_setting_mean_nothing(override: str) -> None:
    assert compose([override]).choices["sampler"] == "low_temp"


def test_what_the_grammar_reads_is_left_to_it() -> None:
    job = compose(["seed=7", "sampler.top_k=null", "task.stop_tokens=['a b']", "runs='x=1'"])
    assert (job.values.seed, job.values.sampler.top_k, job.values.runs) == (7, None, "x=1")
    assert list(job.values.task.stop_tokens) == ["a b"]
    assert len(expand(["runs=a,b"], multirun=True).runs) == 2


def test_a_run_goes_to_such_a_folder_alone_and_in_a_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    main(["run", *SMALL, "runs=~/ünï (1)/lr=2$"])
    (run,) = find_runs([tmp_path / "ünï (1)/lr=2$"])
    assert len(run.samples()) == 1
    main(["run", "-m", *SMALL, "runs=~/b(2)", "seed=1,2"])
    assert len(find_runs([tmp_path / "b(2)"])) == 2
    assert not (tmp_path / "~").exists()


@pytest.mark.parametrize(
    ("override", "quoted"),
    [
        ("task.path=a(1),b", "\"task.path='a(1),b'\""),
        ("task.path=[draft", "\"task.path='[draft'\""),
        ("model.id={x", "\"model.id='{x'\""),
        ("runs='open", "\"runs='\\'open'\""),
        ("runs=${nothing", "'runs='\"'\"'${nothing'\"'\"''"),
    ],
)
def test_what_may_be_more_than_text_is_refused_with_the_way_to_quote_it(
    capsys: pytest.CaptureFixture[str], override: str, quoted: str
) -> None:
    said = refused(capsys, *SMALL, override)
    assert override.partition("=")[0] in said
    assert "quote it: " in said
    assert "'" in said.partition("quote it: ")[2]


def test_a_comma_without_m_says_how_to_quote_it(capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, *SMALL, "task.path=a,b.jsonl")
    assert "is a sweep: add -m" in said
    assert "\"task.path='a,b.jsonl'\"" in said


@pytest.mark.parametrize("override", ["limit", "ü=3", "=3", "a b=3"])
def test_what_is_no_setting_is_told_so(capsys: pytest.CaptureFixture[str], override: str) -> None:
    assert "write name=value" in refused(capsys, *SMALL, override)


@pytest.mark.parametrize("runs", ["2024", "''", "true"])
def test_a_folder_for_runs_is_text(capsys: pytest.CaptureFixture[str], runs: str) -> None:
    assert "runs must be a folder's path" in refused(capsys, *SMALL, f"runs={runs}")


# -- numbers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["inf", "-inf", "nan"])
@pytest.mark.parametrize(
    "setting",
    [
        "alpha",
        "sampler.alpha",
        "sampler.proposal_temperature",
        "task.proposal_temperature",
        "lease_timeout",
        "verifier.timeout",
        "+sampler.threshold",
    ],
)
def test_a_number_that_is_not_finite_is_refused(
    capsys: pytest.CaptureFixture[str], setting: str, value: str
) -> None:
    said = refused(capsys, *TOY, "sampler=power", f"{setting}={value}")
    assert "must be a finite number" in said
    assert setting.strip("+").rpartition(".")[2] in said


@pytest.mark.parametrize("value", [math.inf, math.nan, 1e308])
@pytest.mark.parametrize("name", options("sampler"))
def test_no_sampler_takes_a_number_that_is_none(name: str, value: float) -> None:
    sampler = compose([f"sampler={name}", "max_tokens=12", "blocks=3"]).build("sampler")
    settings = {f.name: getattr(sampler, f.name) for f in fields(sampler) if f.init}
    for field, now in settings.items():
        if isinstance(now, float) or field == "proposal_temperature" or field == "temperature":
            if value == 1e308 and field == "exponent":  # a power of what is at most 1
                continue
            with pytest.raises(UserError, match=field):
                type(sampler)(**{**settings, field: value})


@pytest.mark.parametrize("value", [2 * MAX_LOGIT_SCALE, 0.5 / MAX_LOGIT_SCALE])
def test_a_temperature_beyond_float32_is_refused(value: float) -> None:
    with pytest.raises(UserError, match=r"sampler\.proposal_temperature must be from 1e-06 to 1e"):
        compose([f"sampler.proposal_temperature={value}"]).build("sampler")


# -- verifiers ------------------------------------------------------------------------------------

OWN = {
    "math_mini": {"math", "math_official"},
    "humaneval": {"code", "code_official"},
    "instructions_mini": {"judge", "judge_standin"},
    "gpqa_diamond": {"choice", "choice_official"},
}


@pytest.mark.parametrize("task", OWN)
@pytest.mark.parametrize("verifier", options("verifier"))
def test_only_a_tasks_own_verifiers_get_to_a_model(
    task: str,
    verifier: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "x")
    settings: list[Any] = ["model=toy", "engine=toy", "max_tokens=8", "blocks=2", "limit=1"]
    settings += [f"task={task}", "task.stop_tokens=[]", f"verifier={verifier}", f"runs={tmp_path}"]
    if task == "gpqa_diamond":
        columns = "Question,Correct Answer,Incorrect Answer 1,Incorrect Answer 2,Incorrect Answer 3"
        (tmp_path / "q.csv").write_text(f"{columns}\nWhy?,a,b,c,d\n", encoding="utf-8")
        settings.append(f"task.path={tmp_path / 'q.csv'}")
    if verifier in OWN[task]:
        prepare(compose(settings))
    else:
        said = refused(capsys, *settings)
        assert "which problem" in said
        assert "choose the verifier of its task" in said
        assert not find_all(tmp_path)


def find_all(folder: Path) -> list[Path]:
    return list(folder.rglob("manifest.json"))


def test_scoring_again_with_another_tasks_verifier_is_refused_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["run", *SMALL, f"runs={tmp_path}"])
    with pytest.raises(SystemExit) as ended:
        main(["score", str(tmp_path), "--verifier", "choice"])
    assert ended.value.code == 2
    assert "needs 'options'" in capsys.readouterr().err
    (run,) = find_runs([tmp_path])
    assert run.verifiers() == ["math"]
