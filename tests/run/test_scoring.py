"""Scoring beside generation: verdicts are stored as they come, and nothing holds up who submits.

Run: pytest tests/run/test_scoring.py
"""

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from powerbench.run.scoring import Scoring, ToScore
from powerbench.store import Run, records
from powerbench.store.writing import create
from powerbench.types import Members, Problem, Prompt, SampleKey, Score
from powerbench.verifiers.common import TIMED_OUT, CannotScore

DEADLINE = 30.0


def make_run(path: Path, problems: int) -> Run:
    run = Run(path)
    create(
        run,
        "verifier: {name: fake}\n",
        {},
        [Problem(str(i), Prompt("?"), "") for i in range(problems)],
    )
    return run


def responses(ids: Iterable[int]) -> list[ToScore]:
    return [ToScore(SampleKey(str(i), 0), f"text {i}") for i in ids]


@dataclass
class Fake:
    """A verifier whose verdict on a problem is what `decide` says of it."""

    decide: Callable[[str], Score] = lambda id: Score(correct=True, answer=id)
    workers: int = 2
    name: str = "fake"
    closed: threading.Event = field(default_factory=threading.Event)

    def score(self, problem: Problem, text: str) -> Score:
        assert text == f"text {problem.id}"
        return self.decide(problem.id)

    def progress(self) -> str:
        return ""

    def close(self) -> None:
        self.closed.set()


@dataclass
class Reading(Fake):
    """One that reads answers, of which "7" is right; it counts how often it grades."""

    grades: Callable[[str], Score] = lambda answer: Score(correct=answer == "7", answer=answer)
    graded: list[str] = field(default_factory=list)

    def read(self, text: str) -> str | None:
        return text

    def grade(self, problem: Problem, answer: str) -> Score:
        self.graded.append(answer)
        return self.grades(answer)

    def answer(self, problem: Problem, text: str) -> str | None:
        return text


def members(run: Run, verifier: Fake, found: Members) -> tuple[bool | None, ...]:
    """Which of them are right, as stored with the score of a response that is wrong."""
    with Scoring(run, verifier) as scoring:
        scoring.submit(responses([0])[0]._replace(members=found))
        (scored,) = scoring.results()
    assert scored.score is not None and scored.score.correct is False
    assert run.scores(verifier.name)[scored.key] == scored.score
    return scored.score.members


def wrong(id: str) -> Score:
    return Score(correct=False)


def test_members_are_graded_by_their_answers_equal_ones_once(tmp_path: Path) -> None:
    verifier = Reading(wrong)
    found = Members("fake", ("1", None, "7", "1"))
    assert members(make_run(tmp_path, 1), verifier, found) == (False, False, True, False)
    assert sorted(verifier.graded) == ["1", "7"]


def test_members_are_not_graded_by_a_verifier_that_has_not_read_their_answers(
    tmp_path: Path,
) -> None:
    run, found = make_run(tmp_path, 1), Members("other", ("7",))
    assert members(run, Reading(wrong), found) == ()
    assert members(run, Fake(wrong), found) == ()


def test_a_member_that_missed_the_time_limit_is_graded_again_when_other_work_is_done(
    tmp_path: Path,
) -> None:
    asked = threading.Event()

    def grades(answer: str) -> Score:
        if answer == "7" or not asked.is_set():
            asked.set()
            return Score(reason=TIMED_OUT)
        return Score(correct=True)

    verifier, run = Reading(wrong, workers=1, grades=grades), make_run(tmp_path, 1)
    with Scoring(run, verifier) as scoring:
        scoring.submit(responses([0])[0]._replace(members=Members("fake", ("2", "7"))))
        assert asked.wait(DEADLINE)
        assert not run.scores("fake")
        (scored,) = scoring.results()
    assert scored.score is not None and scored.score.members == (True, None)
    assert verifier.graded == ["2", "7", "2", "7"]


def test_every_sample_has_its_verdict_stored(tmp_path: Path) -> None:
    run, verifier = make_run(tmp_path, 20), Fake()
    with Scoring(run, verifier) as scoring:
        scoring.submit(*responses(range(20)))
        seen = {scored.key: scored.score for scored in scoring.results()}
    assert seen == run.scores("fake")
    assert {key.problem: score.answer for key, score in seen.items() if score} == {
        str(i): str(i) for i in range(20)
    }
    assert verifier.closed.is_set()


def test_a_verdict_is_stored_before_anybody_asks(tmp_path: Path) -> None:
    """So that a kill during generation loses none."""
    run, held = make_run(tmp_path, 2), threading.Event()

    def decide(id: str) -> Score:
        assert id == "0" or held.wait(DEADLINE)
        return Score(correct=True)

    with Scoring(run, Fake(decide)) as scoring:
        scoring.submit(*responses([0, 1]))
        waited = threading.Event()
        for _ in range(int(DEADLINE / 0.01)):
            if run.scores("fake"):
                break
            waited.wait(0.01)
        assert [key.problem for key in run.scores("fake")] == ["0"]
        held.set()
        assert len(list(scoring.results())) == 2


def test_as_many_at_once_as_the_verifier_has_workers(tmp_path: Path) -> None:
    meeting = threading.Barrier(3, timeout=DEADLINE)

    def decide(id: str) -> Score:
        meeting.wait()
        return Score(correct=True)

    run = make_run(tmp_path, 6)
    with Scoring(run, Fake(decide, workers=3)) as scoring:
        scoring.submit(*responses(range(6)))
        assert all(scored.score for scored in scoring.results())


def test_submitting_never_waits_nor_raises_and_what_stopped_it_is_told_at_the_end(
    tmp_path: Path,
) -> None:
    def decide(id: str) -> Score:
        if id == "2":
            raise CannotScore("the judge is gone")
        return Score(correct=True)

    run = make_run(tmp_path, 10)
    with Scoring(run, Fake(decide, workers=1)) as scoring:
        scoring.submit(*responses(range(5)))
        scoring.submit(*responses(range(5, 10)))
        with pytest.raises(CannotScore, match="the judge is gone"):
            seen = []
            for scored in scoring.results():
                seen.append(scored)
    assert len(seen) == 10
    assert [scored.key.problem for scored in seen if scored.score] == ["0", "1"]
    assert [key.problem for key in run.scores("fake")] == ["0", "1"]


def test_an_interrupt_stores_nothing_that_closing_the_verifier_made_of_a_response(
    tmp_path: Path,
) -> None:
    """A worker that is killed by `close` yields 'undecided', which says nothing of the response."""
    run, verifier, started = make_run(tmp_path, 3), Fake(workers=1), threading.Event()

    def decide(id: str) -> Score:
        started.set()
        assert verifier.closed.wait(DEADLINE)
        return Score(reason="the helper process ended")

    verifier.decide = decide
    with pytest.raises(KeyboardInterrupt), Scoring(run, verifier) as scoring:
        scoring.submit(*responses(range(3)))
        assert started.wait(DEADLINE)
        raise KeyboardInterrupt
    assert not (run.path / "scores/fake.jsonl").exists()


def test_a_time_limit_that_was_missed_beside_other_work_is_tried_again_when_that_is_done(
    tmp_path: Path,
) -> None:
    asked, run = [], make_run(tmp_path, 3)
    beside = threading.Event()

    def decide(id: str) -> Score:
        asked.append(id)
        if (id == "0" and asked.count("0") == 1) or id == "1":
            return Score(correct=False, reason=TIMED_OUT)
        beside.set()
        return Score(correct=True)

    with Scoring(run, Fake(decide, workers=1)) as scoring:
        scoring.submit(*responses(range(3)))
        assert beside.wait(DEADLINE)
        assert not {"0", "1"} & {key.problem for key in run.scores("fake")}
        assert len(list(scoring.results())) == 3
    assert asked == ["0", "1", "2", "0", "1"]
    verdicts = {key.problem: score.correct for key, score in run.scores("fake").items()}
    assert verdicts == {"0": True, "1": False, "2": True}


def test_undecided_verdicts_are_counted(tmp_path: Path) -> None:
    with Scoring(make_run(tmp_path, 4), Fake(lambda id: Score(reason="?"))) as scoring:
        scoring.submit(*responses(range(4)))
        list(scoring.results())
        assert scoring.undecided == 4


KILLED = """
import sys, threading, time
sys.path.insert(0, {tests!r})
from pathlib import Path
from test_scoring import Fake, make_run, responses
from powerbench.run.scoring import Scoring, ToScore
from powerbench.types import Score

def decide(id):
    if int(id) >= 5:
        time.sleep(1000)
    return Score(correct=True)

with Scoring(make_run(Path({run!r}), 9), Fake(decide, workers=1)) as scoring:
    scoring.submit(*responses(range(9)))
    for scored in scoring.results():
        print(scored.key.problem, flush=True)
"""


def test_a_kill_loses_no_verdict_already_made(tmp_path: Path) -> None:
    script = KILLED.format(tests=str(Path(__file__).parent), run=str(tmp_path / "run"))
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=env
    )
    assert process.stdout is not None
    told = [process.stdout.readline().strip() for _ in range(5)]
    process.send_signal(signal.SIGKILL)
    process.wait()
    run = Run(tmp_path / "run")
    assert [key.problem for key in run.scores("fake")] == told == ["0", "1", "2", "3", "4"]
    with Scoring(run, Fake()) as scoring:
        scoring.submit(*responses(range(5, 9)))
        list(scoring.results())
    assert len(run.scores("fake")) == 9


def test_a_full_disk_is_waited_for_and_keeps_no_one_from_leaving(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    full, real = threading.Event(), os.fsync
    full.set()

    def fsync(descriptor: int) -> None:
        if full.is_set() and Path(f"/proc/self/fd/{descriptor}").readlink().suffix == ".jsonl":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    run = make_run(tmp_path, 3)
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(records, "RETRY", 0.01)
    with Scoring(run, Fake()) as scoring:  # left while the disk is still full
        scoring.submit(*responses([0]))
        deadline = time.monotonic() + DEADLINE
        while not caplog.messages:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert "paused: " in caplog.messages[0] and "fake.jsonl" in caplog.messages[0]
    with Scoring(run, Fake()) as scoring:
        scoring.submit(*responses(range(3)))
        full.clear()
        assert len(list(scoring.results())) == 3
    assert len(run.scores("fake")) == 3
