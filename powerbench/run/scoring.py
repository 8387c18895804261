"""Scores finished samples concurrently with generation, and stores each score when it is made."""

import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import NamedTuple, Self

from powerbench.store import Run
from powerbench.store.owner import LEASE_TIMEOUT
from powerbench.store.records import retry_while_full
from powerbench.store.shard import WHOLE, Shard
from powerbench.store.writing import score_writer
from powerbench.types import Members, Problem, Sample, SampleKey, Score
from powerbench.verifiers.common import TIMED_OUT, Answering, CannotScore, Verifier


class ToScore(NamedTuple):
    """A response to be scored."""

    key: SampleKey
    text: str
    members: Members | None = None

    @classmethod
    def of(cls, sample: Sample) -> "ToScore":
        return cls(sample.key, sample.text, sample.members)


class Scored(NamedTuple):
    """What became of one response."""

    key: SampleKey
    score: Score | None
    """None: scoring had stopped before this response was scored."""


class Scoring:
    """A verifier scoring one run's responses; a context manager, whose exit closes the verifier.

    `submit` never blocks and never raises. Until `results` is called, other work is taken to run at the
    same time, which may starve a verifier: a response that exceeds its time limit until then is scored
    once more afterwards.
    """

    def __init__(
        self,
        run: Run,
        verifier: Verifier,
        shard: Shard = WHOLE,
        lease_timeout: float = LEASE_TIMEOUT,
    ) -> None:
        """lease_timeout: as for `sample_writer`."""
        self.run = run
        self.verifier = verifier
        self._file = partial(
            score_writer, run, verifier.name, shard, lease_timeout, self._require_going
        )
        self.submitted = 0
        self.undecided = 0
        self._problems = run.problems()
        self._pool = ThreadPoolExecutor(verifier.workers, "scoring")
        self._returned = 0
        self._done: queue.SimpleQueue[Scored] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._writing = threading.Lock()  # may be held for long, while the disk is full
        self._write: Callable[[SampleKey, Score], None] | None = None
        self._quiet = False
        self._late: list[ToScore] = []
        self._stopped: BaseException | None = None
        self._resources = ExitStack()

    def submit(self, *responses: ToScore) -> None:
        """Have responses scored."""
        for response in responses:
            self.submitted += 1
            self._pool.submit(self._score, response)

    def results(self) -> Iterator[Scored]:
        """One result for each response submitted, in the order in which they are made.

        Raises, after the last, what stopped the scoring: UserError where the user can fix it.
        """
        with self._lock:
            self._quiet, late = True, self._late
        for response in late:
            self._pool.submit(self._score, response)
        while self._returned < self.submitted:
            scored = self._done.get()
            self._returned += 1
            self.undecided += scored.score is not None and scored.score.value is None
            yield scored
        if self._stopped is not None:
            raise self._stopped

    def progress(self) -> str:
        """The responses waiting, and what the verifier itself reports: for a display."""
        waiting = self.submitted - self._returned - self._done.qsize()
        words = (f"{waiting} to score" if waiting else "", self.verifier.progress())
        return ", ".join(word for word in words if word)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._lock:  # a score from a verifier that is being closed means nothing
            self._stopped = self._stopped or error or RuntimeError("scoring has ended")
        self._pool.shutdown(wait=False, cancel_futures=True)
        self.verifier.close()
        self._pool.shutdown()
        self.verifier.close()  # a thread may have been on its way when it was closed
        self._resources.close()

    def _score(self, response: ToScore) -> None:
        key, score, quiet = response.key, None, self._quiet
        try:
            if self._stopped is None:
                problem = self._problems[key.problem]
                score = self.verifier.score(problem, response.text)
                grades = self._grades(problem, response.members)
                if TIMED_OUT in {each.reason for each in (score, *grades)} and not quiet:
                    self._put_off(response)
                    return
                score = replace(score, members=tuple(each.correct for each in grades))
                self._store(key, score)
        except BaseException as error:  # `results` raises it
            with self._lock:
                self._stopped = self._stopped or error
        self._done.put(Scored(key, score))

    def _grades(self, problem: Problem, members: Members | None) -> list[Score]:
        """Of each member, if this verifier has read their answers; equal ones are graded once."""
        verifier = self.verifier
        if members is None or members.verifier != verifier.name:
            return []
        assert isinstance(verifier, Answering)
        wrong = Score(correct=False)  # as a response without an answer is
        said = {answer for answer in members.answers if answer is not None}
        grades = {answer: verifier.grade(problem, answer) for answer in sorted(said)}
        return [wrong if answer is None else grades[answer] for answer in members.answers]

    def _put_off(self, response: ToScore) -> None:
        with self._lock:
            if not self._quiet:
                self._late.append(response)
                return
        self._pool.submit(self._score, response)

    def _store(self, key: SampleKey, score: Score) -> None:
        with self._writing:
            self._require_going()
            if self._write is None:  # a verifier of another task has refused, and leaves no file
                self._write = retry_while_full(self._open, self.run.path / "scores")
            self._write(key, score)

    def _open(self) -> Callable[[SampleKey, Score], None]:
        self._require_going()
        return self._resources.enter_context(self._file())

    def _require_going(self) -> None:
        if self._stopped is not None:
            raise CannotScore("scoring has ended")
