"""Paces requests, enforces the budget, and stops all of them after a permanent failure."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from powerbench.models.endpoint.failures import CannotAsk
from powerbench.models.endpoint.settings import Names


@dataclass(frozen=True)
class Usage:
    """Requests, tokens and dollars so far."""

    paid: int = 0
    """Answers of the endpoint."""
    cached: int = 0
    """Answers that had been paid for before."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    dollars: float | None = 0.0
    """None where the prices are not known."""

    def shown(self, done: str) -> str:
        """In a few words. done: what has been done with what was asked, such as `judged`."""
        kept = f", {self.cached} from the cache" if self.cached else ""
        spent = "" if self.dollars is None else f", ${self.dollars:.2f}"
        return f"{self.paid + self.cached} {done}{kept}{spent}"


class RateLimit:
    """Shared by the threads that ask one endpoint; counts their usage.

    interval: seconds from the start of one request to that of the next, at least.
    budget: US dollars; None for no limit.

    All that waits here raises CannotAsk as soon as one thread has called `fail`.
    """

    def __init__(self, interval: float, budget: float | None, names: Names) -> None:
        self.usage = Usage()
        self._names = names
        self._interval = interval
        self._budget = budget
        self._changed = threading.Condition()  # guards what this holds, and notifies of its changes
        self._reserved: list[float] = []
        self._failure: str | None = None
        self._next = 0.0

    def fail(self, message: str) -> CannotAsk:
        """End all waiting; the error to raise. Every waiting thread raises the first failure."""
        with self._changed:
            self._failure = self._failure or message
            self._changed.notify_all()
            return CannotAsk(self._failure)

    def reopen(self) -> None:
        with self._changed:
            self._failure = None

    def wait(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._failure is not None, seconds)
            self._check()

    def take_turn(self) -> None:
        """Wait until the next request may start."""
        with self._changed:
            now = time.monotonic()
            turn = max(now, self._next)
            self._next = turn + self._interval
        self.wait(turn - now)

    def pause(self, seconds: float) -> None:
        """Let no request start for this time."""
        with self._changed:
            self._next = max(self._next, time.monotonic() + seconds)

    @contextmanager
    def reserved(self, dollars: float) -> Iterator[None]:
        """Hold back what a request is expected to cost, while it is under way.

        If that exceeds the budget together with what other requests hold back, waits for what those
        really cost. Raises CannotAsk if it exceeds the budget then.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: self._failure or not self._reserved or self._fits(dollars)
            )
            self._check()
            if not self._fits(dollars):
                names, usage = self._names, self.usage
                raise self.fail(
                    f"{names.section}.budget={self._budget:g} would be exceeded: {usage.paid} {names.units} "
                    f"took ${usage.dollars or 0:.4f}, and the next one takes about ${dollars:.4f}; raise it "
                    f"and {names.kept}"
                )
            self._reserved.append(dollars)
        try:
            yield
        finally:
            with self._changed:
                self._reserved.remove(dollars)
                self._changed.notify_all()

    def charge(self, prompt_tokens: int, completion_tokens: int, dollars: float | None) -> None:
        """Note an answer that the endpoint gave."""
        with self._changed:
            usage = self.usage
            self.usage = replace(
                usage,
                paid=usage.paid + 1,
                prompt_tokens=usage.prompt_tokens + prompt_tokens,
                completion_tokens=usage.completion_tokens + completion_tokens,
                dollars=None
                if dollars is None or usage.dollars is None
                else usage.dollars + dollars,
            )

    def note_cached(self) -> None:
        """Note an answer that had been paid for before."""
        with self._changed:
            self.usage = replace(self.usage, cached=self.usage.cached + 1)

    def _fits(self, dollars: float) -> bool:
        expected = (self.usage.dollars or 0.0) + sum(self._reserved) + dollars
        return self._budget is None or expected <= self._budget

    def _check(self) -> None:
        if self._failure is not None:
            raise CannotAsk(self._failure)
