"""The only loop: chains make requests, the engine answers them, outcomes are yielded as chains finish."""

import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from powerbench.chains.chain import ChainFactory, RunningChain
from powerbench.engines.base import Engine
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


def run_chains(
    starts: Iterable[ChainSpec], engine: Engine, progress: Progress, speculate: int = 0
) -> Iterator[Completed | AtBlockEnd | None]:
    """Run chains in the order given, as many as have `engine.max_num_seqs` requests at once; yield each as it
    completes, and where it stands whenever it comes to the end of a block.

    progress: where decoded tokens, proposals and running chains are counted.
    speculate: how many requests of a chain may be started ahead of their turn, while fewer than
        `engine.efficient_num_seqs` rows are busy. No chain's outcome depends on it.

    Yields None after a step that did neither, so that a caller can show progress. Closing the
    iterator withdraws what is unfinished.
    """
    queue, clock = iter(starts), _Clock()
    live: dict[int, _Running] = {}
    number = 0
    events: list[Completed | AtBlockEnd] = []

    def settle(number: int, outcome: Outcome | None) -> None:
        running = live[number]
        if outcome is not None:
            running.chain.withdraw()
            events.append(_complete(live.pop(number), outcome, progress, clock.now()))
        elif (saved := running.chain.saved()) is not None:
            spans = running.until(clock.now())
            events.append(AtBlockEnd(running.key, replace(saved, spans=spans)))

    try:
        while True:
            events.clear()
            while (
                sum(each.chain.busy for each in live.values()) < engine.max_num_seqs
                and (start := next(queue, None)) is not None
            ):
                chain = RunningChain(
                    number, start.factory, start.prompt, start.stream, engine, start.checkpoint
                )
                live[number] = _Running(start.key, clock.now(), chain)
                settle(number, chain.start())
                number += 1
            progress.running = len(live)
            _speculate([each.chain for each in live.values()], engine, speculate)
            finished = engine.step() if live else []
            for each, key, draw in sorted(
                finished, key=lambda f: live[f.chain].chain.waits_for(f.key)
            ):
                _require_numbers(live[each].key, draw)
                progress.decoded += len(draw.tokens)
                settle(each, live[each].chain.receive(key, draw))
            yield from tuple(events) or (None,)
            if not live and not events:
                return
    finally:
        for running in live.values():
            running.chain.withdraw()


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
