"""The only loop: chains make requests, the engine answers them, outcomes are yielded as chains finish."""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import count
from typing import NamedTuple

from powerbench.chains.chain import ChainFactory, RunningChain
from powerbench.engines.base import Engine, Finished
from powerbench.errors import require
from powerbench.rng import Stream
from powerbench.types import Checkpoint, Cost, Draw, Outcome, Progress, SampleKey, Span, Tokens


class ChainSpec(NamedTuple):
    """A chain to run: its identity, its prompt, and how it is made."""

    key: SampleKey
    prompt: Tokens
    factory: ChainFactory
    stream: Stream
    checkpoint: Checkpoint | None = None
    """Where it goes on from; None: from the beginning."""


class AtBlockEnd(NamedTuple):
    """A chain has come to the end of a block, and can be started again from there."""

    key: SampleKey
    checkpoint: Checkpoint


class Completed(NamedTuple):
    """A chain that has returned."""

    key: SampleKey
    outcome: Outcome
    cost: Cost


@dataclass
class _Clock:
    """Seconds since 1970 that never run backwards: the wall clock is read once."""

    offset: float = field(default_factory=lambda: time.time() - time.monotonic())

    def now(self) -> float:
        return round(self.offset + time.monotonic(), 3)


class _Running(NamedTuple):
    key: SampleKey
    began: float
    chain: RunningChain

    def until(self, now: float) -> tuple[Span, ...]:
        """When it was worked on, up to now."""
        return (*self.chain.spans, Span(self.began, now))


class Failed(NamedTuple):
    """A chain that has raised: nothing of it stays in the engine, and the others go on."""

    key: SampleKey
    error: Exception


Event = Completed | AtBlockEnd | Failed
"""What becomes of a chain."""


class Runner:
    """Chains at work on one engine: they are started, stepped together and withdrawn at any time.

    progress, speculate: as in `run_chains`.
    """

    def __init__(self, engine: Engine, progress: Progress, speculate: int = 0) -> None:
        self.engine, self.progress, self.speculate = engine, progress, speculate
        self._clock = _Clock()
        self._live: dict[int, _Running] = {}
        self._numbers = count()
        self._events: list[Event] = []

    @property
    def live(self) -> int:
        """The number of chains at work."""
        return len(self._live)

    @property
    def has_room(self) -> bool:
        """Whether fewer than `engine.max_num_seqs` requests are busy, so that another chain may start."""
        return sum(each.chain.busy for each in self._live.values()) < self.engine.max_num_seqs

    def start(self, spec: ChainSpec) -> int:
        """Start a chain; its number, by which it is withdrawn. What becomes of it is told by `step`."""
        number = next(self._numbers)
        chain = RunningChain(
            number, spec.factory, spec.prompt, spec.stream, self.engine, spec.checkpoint
        )
        self._live[number] = _Running(spec.key, self._clock.now(), chain)
        self._advance(number, chain.start)
        return number

    def step(self) -> list[Event]:
        """Go on with the chains at work; what became of chains since the last call.

        Raises what the engine raises: chains are to be withdrawn then, for nothing is known of its state.
        """
        self.progress.running = len(self._live)
        _speculate([each.chain for each in self._live.values()], self.engine, self.speculate)
        finished = self.engine.step() if self._live else []
        for each in sorted(finished, key=self._waited_for):
            if each.chain in self._live:  # else it failed at an earlier draw of this step
                self._receive(each)
        events, self._events = self._events, []
        return events

    def withdraw(self, number: int) -> None:
        """Drop a chain, if it is at work still: nothing of it stays in the engine."""
        if (running := self._live.pop(number, None)) is not None:
            running.chain.withdraw()

    def close(self) -> None:
        """Drop all chains."""
        for number in [*self._live]:
            self.withdraw(number)

    def decoded(self, number: int) -> int:
        """The tokens that a chain has decoded so far; 0 if it is not at work."""
        return self._live[number].chain.decoded if number in self._live else 0

    def _waited_for(self, finished: Finished) -> bool:
        return self._live[finished.chain].chain.waits_for(finished.key)

    def _receive(self, finished: Finished) -> None:
        running, draw = self._live[finished.chain], finished.draw

        def receive() -> Outcome | None:
            _require_numbers(running.key, draw)
            return running.chain.receive(finished.key, draw)

        self.progress.decoded += len(draw.tokens)
        self._advance(finished.chain, receive)

    def _advance(self, number: int, move: Callable[[], Outcome | None]) -> None:
        """Let a chain move on to its next request, and note what becomes of it."""
        running = self._live[number]
        try:
            outcome = move()
        except Exception as error:
            self.withdraw(number)
            self._events.append(Failed(running.key, error))
            return
        now = self._clock.now()
        if outcome is not None:
            self.withdraw(number)
            self._events.append(_complete(running, outcome, self.progress, now))
        elif (saved := running.chain.saved()) is not None:
            spans = running.until(now)
            self._events.append(AtBlockEnd(running.key, replace(saved, spans=spans)))


def run_chains(
    starts: Iterable[ChainSpec], engine: Engine, progress: Progress, speculate: int = 0
) -> Iterator[Completed | AtBlockEnd | None]:
    """Run chains in the order given, as many as have `engine.max_num_seqs` requests at once; yield each as it
    completes, and where it stands whenever it comes to the end of a block.

    progress: where decoded tokens, proposals and running chains are counted.
    speculate: how many requests of a chain may be started ahead of their turn, while fewer than
        `engine.efficient_num_seqs` rows are busy. No chain's outcome depends on it.

    Yields None after a step that did neither, so that a caller can show progress. Raises what a chain or the
    engine raises. Closing the iterator withdraws what is unfinished.
    """
    queue, runner = iter(starts), Runner(engine, progress, speculate)
    try:
        while True:
            while runner.has_room and (start := next(queue, None)) is not None:
                runner.start(start)
            events = runner.step()
            for event in events:
                if isinstance(event, Failed):
                    raise event.error
                yield event
            if not events:
                yield None
                if not runner.live:
                    return
    finally:
        runner.close()


def _require_numbers(key: SampleKey, draw: Draw) -> None:
    """Raise UserError where the model's logits were no numbers."""
    require(
        not math.isnan(sum(draw.logp) + sum(draw.entropy)),
        f"the model's logits are not numbers (NaN or infinite) for problem {key.problem!r}: set "
        f"model.dtype=float32, or see that its weights are whole",
    )


def run_one(factory: ChainFactory, prompt: Tokens, stream: Stream, engine: Engine) -> Outcome:
    """Run a single chain to its end."""
    start = ChainSpec(SampleKey(stream.problem, stream.replicate), prompt, factory, stream)
    events = run_chains([start], engine, Progress())
    return next(event.outcome for event in events if isinstance(event, Completed))


def _speculate(chains: list[RunningChain], engine: Engine, max_depth: int) -> None:
    """Fill the rows that cost little, the chains with the fewest speculative requests first."""
    room = min(engine.efficient_num_seqs, engine.max_num_seqs)
    room -= sum(chain.busy for chain in chains)
    for depth in range(max_depth):
        for chain in chains:
            if room <= 0:
                return
            if len(chain.speculative) == depth and chain.speculate():
                room -= 1


def _complete(running: _Running, outcome: Outcome, progress: Progress, now: float) -> Completed:
    proposals = [step for step in outcome.steps if step.decoded]
    progress.proposals += len(proposals)
    progress.accepted += sum(step.accepted for step in proposals)
    cost = Cost(
        decoded=running.chain.decoded,
        prefilled=running.chain.prefilled,
        seconds=round(now - running.began, 3),
        finished=now,
        speculated=running.chain.speculated,
        earlier=running.chain.spans,
        attended=running.chain.attended,
        passes=running.chain.passes,
        rows=running.chain.rows,
    )
    return Completed(running.key, outcome, cost)
