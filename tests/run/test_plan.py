"""Whole runs from the command line, on the toy engine: resumed, killed, re-scored, reported.

Run: pytest tests/run/test_plan.py
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fake_endpoint import FakeEndpoint, served

from powerbench.cli import main
from powerbench.config import compose
from powerbench.run.prepare import prepare
from powerbench.store import Run, find_runs
from powerbench.store.writing import score_writer
from powerbench.types import Problem, Sample
from powerbench.verifiers.math import MathVerifier

TOY = ["model=toy", "engine=toy", "task=math_mini", "max_tokens=8", "blocks=2", "tracker=none"]


def toy_run(runs: Path, *overrides: str) -> Run:
    main(["run", *TOY, f"runs={runs}", *overrides])
    (run,) = find_runs([runs])
    return run


def content(run: Run) -> dict[tuple[str, int], tuple[object, ...]]:
    """What must not depend on how the run went: all but the time and the cache's luck."""

    def of(sample: Sample) -> tuple[object, ...]:
        return (
            sample.tokens,
            sample.logp,
            sample.entropy,
            sample.finish_reason,
            sample.steps,
            sample.cost.decoded,
        )

    return {tuple(key): of(sample) for key, sample in run.samples().items()}


def test_a_run_leaves_samples_scores_metrics_and_provenance(tmp_path: Path) -> None:
    run = toy_run(tmp_path, "limit=5", "replicates=2")
    samples = run.samples()
    assert len(samples) == 10
    assert set(run.scores("math")) == set(samples)
    assert run.metrics["responses"] == 10
    manifest = run.manifest
    assert manifest["packages"]["torch"]
    assert manifest["model"]["stop_tokens"]
    assert manifest["data"]["sha256"]
    assert {"commit", "dirty"} == manifest["git"].keys()
    for sample in samples.values():
        proposed = sum(step.decoded for step in sample.steps)
        assert sample.cost.decoded >= proposed
        assert sample.logp <= 0 <= sample.entropy


def test_repeating_the_command_repeats_no_sample(tmp_path: Path) -> None:
    first = toy_run(tmp_path, "limit=4")
    before = (first.path / "samples.jsonl").read_bytes()
    again = toy_run(tmp_path, "limit=4")
    assert (again.path / "samples.jsonl").read_bytes() == before
    more = toy_run(tmp_path, "limit=6", "replicates=2")  # the same run, extended
    assert more.path == first.path
    assert (more.path / "samples.jsonl").read_bytes().startswith(before)
    assert len(more.samples()) == 12


@pytest.mark.parametrize("width", [1, 3, 20])
def test_samples_do_not_depend_on_the_batch(tmp_path: Path, width: int) -> None:
    usual = toy_run(tmp_path / "usual", "limit=7")
    other = toy_run(tmp_path / "other", "limit=7", f"engine.max_num_seqs={width}")
    assert content(usual) == content(other)


@pytest.mark.parametrize(
    "setting", ["seed=1", "alpha=2.0", "sampler=base", "task.prompt_style=plain"]
)
def test_what_changes_samples_changes_the_folder(tmp_path: Path, setting: str) -> None:
    def folder(*overrides: str) -> Path:
        return prepare(compose([*TOY, f"runs={tmp_path}", *overrides])).run.path

    assert folder() == folder(
        "limit=3", "replicates=4", "engine.max_num_seqs=2", "verifier=math_official"
    )
    assert folder() != folder(setting)


def heed_interrupts() -> None:
    """What a shell starts in the background ignores SIGINT, and so does all that comes of it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


LARGE = ["replicates=12", "steps=15"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of which nothing was killed."""
    return toy_run(tmp_path_factory.mktemp("whole"), *LARGE)


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_run_is_continued_to_the_same_samples(
    tmp_path: Path, whole: Run, blow: signal.Signals
) -> None:
    command = [
        sys.executable,
        "-m",
        "powerbench.cli",
        "run",
        *TOY,
        *LARGE,
        f"runs={tmp_path / 'hit'}",
    ]
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_interrupts,
    )
    while not any(f.stat().st_size > 20_000 for f in tmp_path.rglob("samples.jsonl")):
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        time.sleep(0.05)
    process.send_signal(blow)
    _, error = process.communicate()
    if blow != signal.SIGKILL:
        assert process.returncode == 130
        assert (
            error.strip()
            == "interrupted: samples and scores so far are kept; the same command goes on"
        )
    (hit,) = find_runs([tmp_path / "hit"])
    kept = hit.samples()
    assert 0 < len(kept) < 720
    resumed = toy_run(tmp_path / "hit", *LARGE)
    assert kept.items() <= resumed.samples().items()  # not made again: their times are the same
    assert content(resumed) == content(whole)


def test_scoring_again_generates_nothing(tmp_path: Path) -> None:
    run = toy_run(tmp_path, "task=instructions_mini", "limit=3")
    made = (run.path / "samples.jsonl").read_bytes()
    verdicts = run.scores("judge_standin")
    main(["score", str(tmp_path)])
    assert run.scores("judge_standin") == verdicts
    assert (run.path / "samples.jsonl").read_bytes() == made
    assert all(score.by == "stand-in toy" for score in verdicts.values())


def test_a_verifier_of_another_task_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = toy_run(tmp_path, "limit=3")
    before = run.scores("math")
    with pytest.raises(SystemExit):
        main(["score", str(tmp_path), "--verifier", "code"])
    assert "choose the verifier of its task" in capsys.readouterr().err
    assert run.scores("math") == before
    assert run.verifiers() == ["math"]


def test_scores_that_cannot_be_written_cost_no_sample_and_stop_no_sweep(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = prepare(compose([*TOY, "limit=2", f"runs={tmp_path}"])).run.path
    with score_writer(Run(folder), "math"), pytest.raises(SystemExit) as stopped:
        main(["run", "-m", *TOY, "limit=2", "seed=0,1", f"runs={tmp_path}"])
    assert stopped.value.code == 1
    assert "scores/math.jsonl is being written by process" in capsys.readouterr().err
    first, second = Run(folder), next(run for run in find_runs([tmp_path]) if run.path != folder)
    assert (len(first.samples()), first.metrics["unscored"]) == (2, 2)
    assert (len(second.samples()), second.metrics["unscored"]) == (2, 0)


def test_runs_of_other_tasks_do_not_keep_the_rest_from_being_scored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["run", "-m", *TOY, "task=instructions_mini,math_mini", "limit=2", f"runs={tmp_path}"])
    with pytest.raises(SystemExit) as stopped:
        main(["score", str(tmp_path), "--verifier", "math_official"])
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "instructions_mini" in line and "choose the verifier of its task" in line
    others = [run for run in find_runs([tmp_path]) if "math_mini" in run.path.parts]
    assert [len(run.scores("math_official")) for run in others] == [2]


NOWHERE = ["verifier.base_url=http://127.0.0.1:1/v1", "verifier.key_env=null", "verifier.retries=0"]


def test_a_judge_out_of_reach_costs_no_sample_and_stops_no_sweep(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judged = ["task=instructions_mini", "verifier=judge", *NOWHERE, f"verifier.cache={tmp_path}"]
    with pytest.raises(SystemExit) as stopped:
        main(["run", "-m", *TOY, *judged, "limit=2", "seed=0,1", f"runs={tmp_path / 'runs'}"])
    assert stopped.value.code == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 2
    assert all("the judge at http://127.0.0.1:1/v1 gave no answer" in line for line in lines)
    runs = find_runs([tmp_path / "runs"])
    assert [len(run.samples()) for run in runs] == [2, 2]
    assert [run.metrics["unscored"] for run in runs] == [2, 2]
    main(["score", str(tmp_path / "runs"), "--verifier", "judge_standin"])
    assert [len(run.scores("judge_standin")) for run in runs] == [2, 2]


def test_a_budget_is_for_all_folders_of_a_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = tmp_path / "runs"
    main(["run", "-m", *TOY, "task=instructions_mini", "limit=3", "seed=0,1", f"runs={runs}"])
    with served(FakeEndpoint(usage=(1000, 0))) as judge:  # a cent a pair
        settings = [f"verifier.base_url={judge.url}", "verifier.key_env=null", "verifier.workers=1"]
        settings += [f"verifier.cache={tmp_path}", "verifier.budget=0.045"]
        with pytest.raises(SystemExit) as stopped:
            main(["score", str(runs), "--verifier", "judge", *settings])
        assert stopped.value.code == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert all("verifier.budget=0.045 would be exceeded" in line for line in lines)
        assert 3 <= len(judge.requests) <= 4
    scores = [run.scores("judge_gpt-4-1106-preview") for run in find_runs([runs])]
    assert sum(map(len, scores)) == len(judge.requests)


def test_another_opinion_stands_beside_the_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = toy_run(tmp_path, "limit=3")
    main(["score", str(tmp_path), "--verifier", "math_official"])
    assert "math_official: 0.000" in capsys.readouterr().out
    assert run.verifiers() == ["math", "math_official"]
    assert run.scores("math").keys() == run.scores("math_official").keys()


def test_settings_are_for_a_verifier_that_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    toy_run(tmp_path, "limit=1")
    for arguments, said in (
        (["verifier.timeout=1"], "verifier.timeout=1: name the verifier that it is for"),
        (["--verifier", "math", "verifier.timeout=-1"], "verifier.timeout must be a number > 0"),
        (["--verifier", "math", "verifier.timeot=1"], "did you mean 'verifier.timeout'?"),
        (["--verifier", "maths"], "unknown verifier 'maths' (did you mean 'math'?)"),
    ):
        with pytest.raises(SystemExit):
            main(["score", str(tmp_path), *arguments])
        assert said in capsys.readouterr().err


def test_report_list_and_doctor_speak(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toy_run(tmp_path, "limit=3")
    main(["report", str(tmp_path)])
    assert (tmp_path / "report/page.html").is_file()
    assert "page:" in capsys.readouterr().out
    main(["list"])
    listed = capsys.readouterr().out
    assert all(
        name in listed for name in ("power_official", "alpaca_eval", "qwen2.5-math-7b", "mini")
    )
    main(["doctor"])
    assert "model smollm2-135m" in capsys.readouterr().out


def test_a_run_needs_nothing_that_the_environment_hides(tmp_path: Path) -> None:
    """From another folder, the run folders are made there."""
    command = [sys.executable, "-m", "powerbench.cli", "run", *TOY, "limit=2"]
    root = str(Path(__file__).parents[2])
    env = {**os.environ, "PYTHONPATH": root}
    subprocess.run(command, cwd=tmp_path, env=env, check=True, capture_output=True)
    assert len(find_runs([tmp_path / "runs"])) == 1


def first_letter(self: MathVerifier, problem: Problem, text: str) -> str | None:
    return text[:1] or None


def test_a_vote_counts_the_answers_that_the_tasks_verifier_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MathVerifier, "answer", first_letter)
    overrides = ["sampler=self_consistency", "sampler.n=9", "limit=4"]
    run = toy_run(tmp_path, *overrides)
    for sample in run.samples().values():
        (votes,) = sample.rounds
        assert len(votes.weights) == 9 and sum(votes.weights) == pytest.approx(1, abs=0.01)
    plan = prepare(compose([*TOY, *overrides, f"runs={tmp_path}"]))
    (start, *_) = plan.starts(plan.keys(), lambda key: None)
    answer = start.factory.args[0].answer  # type: ignore[attr-defined]
    assert (answer((1, 2, 0)), answer((2,)), answer((0,))) == ("a", "b", None)


@pytest.mark.parametrize("sampler", ["self_consistency", "deepconf", "deepconf_online", "ccps"])
@pytest.mark.parametrize("task", ["humaneval", "instructions_mini"])
def test_a_vote_without_answers_is_refused(
    tmp_path: Path, sampler: str, task: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["run", *TOY, f"sampler={sampler}", f"runs={tmp_path}", f"task={task}"])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"sampler={sampler} votes on answers, which verifier=" in error
    assert not list(tmp_path.iterdir())


def test_a_vote_with_a_verifier_of_another_task_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ["sampler=self_consistency", "task=math_mini", "verifier=judge_standin"]
    with pytest.raises(SystemExit) as stopped:
        main(["run", *TOY, *settings, f"runs={tmp_path}"])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "verifier 'judge_standin' needs 'instruction'" in error
    assert not list(tmp_path.iterdir())


def test_the_verifier_is_part_of_a_votes_identity_alone(tmp_path: Path) -> None:
    def identity(*overrides: str) -> dict[str, object]:
        return dict(prepare(compose([*TOY, f"runs={tmp_path}", *overrides])).manifest["identity"])

    vote = "sampler=self_consistency"
    assert identity(vote)["verifier"] == "math"
    assert identity(vote) != identity(vote, "verifier=math_official")
    assert "verifier" not in identity()
    assert identity() == identity("verifier=math_official")


@pytest.mark.parametrize(
    "sampler", ["best_of_n", "self_consistency", "deepconf", "deepconf_online", "block_beam"]
)
def test_a_temperature_that_is_needed_is_refused_before_anything_is_loaded(
    tmp_path: Path, sampler: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["run", *TOY, f"sampler={sampler}", "sampler.temperature=null", f"runs={tmp_path}"])
    assert stopped.value.code == 2
    assert "sampler.temperature must be > 0, got None" in capsys.readouterr().err
