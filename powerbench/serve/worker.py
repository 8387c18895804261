"""The one thread that runs all chains: an engine is not made for several.

Requests come and go in other threads. A job is given up by cancelling its future; the thread withdraws its
chain at its next step.
"""

import logging
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from threading import Condition, Thread

from powerbench.chains.runner import AtBlockEnd, ChainSpec, Completed, Event, Runner
from powerbench.engines.base import Engine
from powerbench.errors import UserError, first_line
from powerbench.serve.failures import SERVER, ApiError, bad, shutting_down
from powerbench.serve.metrics import Metrics
from powerbench.types import Progress, SampleKey

logger = logging.getLogger(__name__)

FORGET = 0.8
"""The share of the mean of chains' seconds that the next one leaves in place."""


@dataclass(eq=False)
class Job:
    """A chain to be run for a request."""

    spec: ChainSpec
    sampler: str
    """Its name, for the metrics."""
    future: Future[Completed] = field(default_factory=Future)
    """What it comes to; an ApiError where it fails."""
    number: int | None = None
    """The runner's, once it is started."""
    decoded: int = 0
    """Tokens, in the draws that are finished."""
    blocks: int = 0
    """Those whose end it has come to."""


class Worker:
    """Runs jobs in the order in which they come, as many at once as the engine has room for.

    make_engine: called in the thread that then uses it.
    queue: chains that may wait, at most.
    """

    def __init__(
        self, make_engine: Callable[[], Engine], speculate: int, queue: int, metrics: Metrics
    ) -> None:
        self._make_engine, self._speculate = make_engine, speculate
        self.queue, self.metrics = queue, metrics
        self.failure: Exception | None = None
        """What ended the thread, if it was not asked to end."""
        self._waiting: deque[Job] = deque()
        self._running: dict[SampleKey, Job] = {}
        self._changed = Condition()
        self._loaded: Future[None] = Future()
        self._closed = self._ended = False
        self._mean_seconds = 1.0
        self._thread = Thread(target=self._run, name="chains", daemon=True)
        metrics.watch("chains_running", "Chains at work.", lambda: self.running)
        metrics.watch("chains_waiting", "Chains that wait for a place.", lambda: self.waiting)

    @property
    def running(self) -> int:
        """Chains at work."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """Chains that wait for a place."""
        return len(self._waiting)

    @property
    def alive(self) -> bool:
        """Whether it takes requests and answers them."""
        return self._thread.is_alive() and not self._closed

    def start(self) -> None:
        """Load the engine; returns when it is there, and raises what went wrong."""
        self._thread.start()
        self._loaded.result()

    def submit(self, jobs: Sequence[Job]) -> None:
        """Queue the jobs of a request: all, or none. Raises ApiError where that cannot be."""
        if len(jobs) > self.queue:
            raise bad(
                f"the request asks for {len(jobs)} answers at once, this server holds {self.queue}; send fewer",
                "n",
            )
        with self._changed:
            if self._closed or not self._thread.is_alive():
                raise shutting_down()
            self._drop_cancelled()
            if len(self._waiting) + len(jobs) > self.queue:
                ahead = len(self._waiting) / max(1, len(self._running))
                raise ApiError(
                    429,
                    f"{len(self._waiting)} answers are waiting already, of {self.queue} at most; try again",
                    "rate_limit_error",
                    "queue_full",
                    retry_after=min(60.0, self._mean_seconds * (1 + ahead)),
                )
            self._waiting.extend(jobs)
            self._changed.notify()

    def close(self) -> None:
        """Take no further requests; those that are there are answered."""
        self._closed = True

    def give_up(self) -> None:
        """Have the thread end at its next step, with an error for each job that is there."""
        with self._changed:
            self._closed = self._ended = True
            self._changed.notify()

    def stop(self) -> None:
        """Give up, and wait for the thread's end; but not for a model that is being loaded."""
        self.give_up()
        if self._loaded.done():
            self._thread.join()

    # -- in the thread ----------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            runner = Runner(self._make_engine(), Progress(), self._speculate)
        except BaseException as error:
            self._loaded.set_exception(error)
            return
        self._loaded.set_result(None)
        why = shutting_down()
        try:
            while self._wait():
                self._work(runner)
        except Exception as error:  # the engine's: all its chains are lost
            logger.exception("the engine has failed")
            self.failure = error
            why = ApiError(500, f"the engine has failed: {first_line(error)}", SERVER, "engine")
        finally:
            self._end(runner, why)

    def _wait(self) -> bool:
        """Until there is something to do; False at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._running or self._ended)
            return not self._ended

    def _work(self, runner: Runner) -> None:
        self._withdraw_cancelled(runner)
        while runner.has_room and (job := self._next()) is not None:
            self._running[job.spec.key] = job
            job.number = runner.start(job.spec)
        for event in runner.step():
            self._settle(event)
        for job in self._running.values():
            assert job.number is not None
            job.decoded = runner.decoded(job.number)

    def _next(self) -> Job | None:
        with self._changed:
            self._drop_cancelled()
            return self._waiting.popleft() if self._waiting else None

    def _drop_cancelled(self) -> None:
        """To be called with the lock held."""
        for job in self._waiting:
            if job.future.cancelled():
                self.metrics.withdrawn(job.sampler, 0)
        self._waiting = deque(job for job in self._waiting if not job.future.cancelled())

    def _withdraw_cancelled(self, runner: Runner) -> None:
        for key, job in [*self._running.items()]:
            if job.future.cancelled():
                assert job.number is not None
                self.metrics.withdrawn(job.sampler, runner.decoded(job.number))
                runner.withdraw(job.number)
                del self._running[key]

    def _settle(self, event: Event) -> None:
        if isinstance(event, AtBlockEnd):
            self._running[event.key].blocks += 1
            return
        job = self._running.pop(event.key)
        if isinstance(event, Completed):
            prompt, tokens = len(job.spec.prompt), len(event.outcome.tokens)
            self.metrics.completed(job.sampler, prompt, tokens, event.cost)
            self._mean_seconds += (1 - FORGET) * (event.cost.seconds - self._mean_seconds)
            _answer(job, event)
        else:
            self.metrics.failed(job.sampler)
            _answer(job, _told(event.error))

    def _end(self, runner: Runner, why: ApiError) -> None:
        with self._changed:
            self._closed = True
            left = [*self._running.values(), *self._waiting]
            self._running.clear()
            self._waiting.clear()
        runner.close()
        for job in left:
            self.metrics.failed(job.sampler)
            _answer(job, why)


def _answer(job: Job, result: Completed | ApiError) -> None:
    if not job.future.set_running_or_notify_cancel():  # given up just now
        return
    if isinstance(result, Completed):
        job.future.set_result(result)
    else:
        job.future.set_exception(result)


def _told(error: Exception) -> ApiError:
    """What the client is told of a chain that has failed."""
    if isinstance(error, UserError):
        return bad(str(error))
    logger.error("a chain has failed", exc_info=error)
    return ApiError(500, f"the sampler has failed: {first_line(error)}", SERVER, "sampler")
