"""The only loop: chains ask, the engine answers, outcomes leave as they are finished."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from powerbench.engines.base import Engine
from powerbench.live import Begin, Live
from powerbench.rng import Stream
from powerbench.store import SampleKey
from powerbench.types import Cost, Outcome, Tokens


class Start(NamedTuple):
    """A chain about to run."""

    key: SampleKey
    prompt: Tokens
    begin: Begin
    stream: Stream


class Completed(NamedTuple):
    """A chain that has returned."""

    key: SampleKey
    outcome: Outcome
    cost: Cost


@dataclass
class Meter:
    """What a run has done so far, for the progress display: counts since the loop began."""

    decoded: int = 0
    proposals: int = 0
    accepted: int = 0


class _Running(NamedTuple):
    key: SampleKey
    began: float
    chain: Live


def run_chains(
    starts: Iterable[Start], engine: Engine, meter: Meter, speculate: int = 0
) -> Iterator[Completed | None]:
    """Run chains, at most `engine.width` at once, in the order given; yield each as it completes.

    speculate: start up to so many requests of a chain ahead of their turn while fewer than
        `engine.efficient_width` rows are busy. No chain's outcome depends on it.

    Yields None after a step that completed no chain, so that a caller can show progress. Closing the
    iterator withdraws what is unfinished.
    """
    queue = iter(starts)
    live: dict[int, _Running] = {}
    number = 0
    completed: list[Completed] = []

    def settle(number: int, outcome: Outcome | None) -> None:
        if outcome is not None:
            live[number].chain.withdraw()
            completed.append(_complete(live.pop(number), outcome, meter))

    try:
        while True:
            completed.clear()
            while len(live) < engine.width and (start := next(queue, None)) is not None:
                chain = Live(number, start.begin, start.prompt, start.stream, engine)
                live[number] = _Running(start.key, time.monotonic(), chain)
                settle(number, chain.start())
                number += 1
            _speculate([each.chain for each in live.values()], engine, speculate)
            finished = engine.step() if live else []
            for each, key, draw in sorted(
                finished, key=lambda f: live[f.chain].chain.waits_for(f.key)
            ):
                meter.decoded += len(draw.tokens)
                settle(each, live[each].chain.receive(key, draw))
            yield from tuple(completed) or (None,)
            if not live and not completed:
                return
    finally:
        for running in live.values():
            running.chain.withdraw()


def run_one(begin: Begin, prompt: Tokens, stream: Stream, engine: Engine) -> Outcome:
    """Run a single chain to its end."""
    start = Start(SampleKey(stream.problem, stream.replicate), prompt, begin, stream)
    return next(done.outcome for done in run_chains([start], engine, Meter()) if done is not None)


def _speculate(chains: list[Live], engine: Engine, most: int) -> None:
    """Fill the rows that cost next to nothing, the chains that look least far ahead first."""
    room = min(engine.efficient_width, engine.width)
    room -= sum(1 + len(chain.ahead) for chain in chains)
    for depth in range(most):
        for chain in chains:
            if room <= 0:
                return
            if len(chain.ahead) == depth and chain.look_ahead():
                room -= 1


def _complete(running: _Running, outcome: Outcome, meter: Meter) -> Completed:
    proposals = [step for step in outcome.steps if step.decoded]
    meter.proposals += len(proposals)
    meter.accepted += sum(step.accepted for step in proposals)
    cost = Cost(
        decoded=running.chain.decoded,
        prefilled=running.chain.prefilled,
        seconds=round(time.monotonic() - running.began, 3),
        finished=round(time.time(), 3),
        speculated=running.chain.speculated,
    )
    return Completed(running.key, outcome, cost)
