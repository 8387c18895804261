"""The run folder under bad luck: torn lines, damage, two writers.

Run: pytest tests/test_store.py
"""

from pathlib import Path

import pytest

from powerbench.errors import UserError
from powerbench.store import Run, SampleKey, append, find_runs
from powerbench.types import Cost, Ended, Problem, Prompt, Sample, Score, Step


def sample(problem: str, replicate: int = 0) -> Sample:
    steps = (Step(0, 1, -2.0, None, 3, False), Step(0, 0, -2.0, -1.5, 4, True))
    cost = Cost(decoded=9, prefilled=4, seconds=0.5, finished=100.0)
    return Sample(problem, replicate, "é\n\u2028", (1, 2), -1.5, 3.0, Ended.STOP, 4, cost, steps)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    run = Run(tmp_path / "task/model/power-00000000")
    problems = [
        Problem("a", Prompt("A?"), "1", {"level": 2}),
        Problem("b", Prompt("B?", True), "2"),
    ]
    run.create("seed: 0\n", {"git": None}, problems)
    return run


def test_what_is_written_is_read(run: Run) -> None:
    with run.writer() as write:
        write(sample("a"))
        write(sample("b", 3))
    assert run.samples() == {("a", 0): sample("a"), ("b", 3): sample("b", 3)}
    assert run.problems()["a"] == Problem("a", Prompt("A?"), "1", {"level": 2})
    assert run.config == {"seed": 0}
    with run.score_writer("math") as verdict:
        verdict(SampleKey("a", 0), Score(correct=True, extracted="1"))
        verdict(SampleKey("a", 0), Score(correct=False, extracted="1"))
    assert run.scores("math") == {
        ("a", 0): Score(correct=False, extracted="1")
    }  # the last verdict counts


def test_a_torn_last_line_is_ignored_and_then_cut_off(run: Run) -> None:
    with run.writer() as write:
        write(sample("a"))
    file = run.path / "samples.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole + whole[: len(whole) // 2])
    assert list(run.samples()) == [("a", 0)]
    with run.writer() as write:
        write(sample("b"))
    assert list(run.samples()) == [("a", 0), ("b", 0)]


def test_damage_elsewhere_is_named_by_file_and_line(run: Run) -> None:
    with run.writer() as write:
        write(sample("a"))
        write(sample("b"))
    file = run.path / "samples.jsonl"
    file.write_bytes(file.read_bytes().replace(b'"tokens"', b'"tokenz"', 1))
    with pytest.raises(UserError, match=r"samples\.jsonl line 1 is damaged"):
        run.samples()


def test_a_second_writer_is_refused(run: Run) -> None:
    second = append(run.path / "samples.jsonl")
    with run.writer(), pytest.raises(UserError, match="being written by another process"), second:
        pass


def test_creating_again_adds_problems_mends_answers_and_notes_sessions(run: Run) -> None:
    run.create(
        "seed: 1\n",
        {"git": "other"},
        [Problem("b", Prompt("B?"), "2"), Problem("c", Prompt("C?"), "3")],
    )
    assert list(run.problems()) == ["a", "b", "c"]
    assert run.manifest["git"] is None
    assert [session["git"] for session in run.manifest["later_sessions"]] == ["other"]
    run.create("seed: 1\n", {"git": "other"}, [Problem("a", Prompt("A?"), "mended")])
    assert run.problems()["a"].gold == "mended"
    assert len(run.manifest["later_sessions"]) == 1


def test_a_folder_without_runs_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no run"):
        find_runs([tmp_path])


def test_an_undecided_verdict_takes_no_decided_ones_place(run: Run) -> None:
    """Such as that of a verifier that missed its time limit when it scored once more."""
    right, undecided, wrong = Score(correct=True), Score(reason="timed out"), Score(correct=False)
    key, other = SampleKey("a", 0), SampleKey("b", 0)
    with run.score_writer("math") as verdict:
        for score in (undecided, right, undecided):
            verdict(key, score)
        verdict(other, undecided)
    assert run.scores("math") == {key: right, other: undecided}
    with run.score_writer("math") as verdict:
        verdict(key, wrong)
    assert run.scores("math")[key] == wrong
