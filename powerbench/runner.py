"""The only loop: chains ask, the engine answers, outcomes leave as they are finished.

All randomness is derived here, from the chain's stream and the key of each request.
"""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from powerbench.engines.base import Engine
from powerbench.rng import Stream
from powerbench.store import SampleKey
from powerbench.types import Answer, Chain, Choose, Cost, Extend, LogUniform, Outcome, Tokens


class Start(NamedTuple):
    """A chain about to run."""

    key: SampleKey
    prompt: Tokens
    chain: Chain
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


@dataclass
class _Live:
    start: Start
    began: float
    decoded: int = 0
    prefilled: int = 0


def run_chains(starts: Iterable[Start], engine: Engine, meter: Meter) -> Iterator[Completed | None]:
    """Run chains, at most `engine.width` at once, in the order given; yield each as it completes.

    Yields None after a step that completed no chain, so that a caller can show progress. Closing the
    iterator withdraws what is unfinished.
    """
    queue = iter(starts)
    live: dict[int, _Live] = {}
    number = 0
    try:
        while True:
            completed: list[Completed] = []
            while len(live) < engine.width and (start := next(queue, None)) is not None:
                live[number] = _Live(start, time.monotonic())
                if (done := _advance(number, live[number], None, engine)) is not None:
                    completed.append(_complete(live.pop(number), done, meter))
                number += 1
            for chain, draw in engine.step() if live else ():
                live[chain].decoded += len(draw.tokens)
                live[chain].prefilled += draw.prefilled
                meter.decoded += len(draw.tokens)
                if (done := _advance(chain, live[chain], draw, engine)) is not None:
                    engine.withdraw(chain)
                    completed.append(_complete(live.pop(chain), done, meter))
            yield from completed or (None,)
            if not live and not completed:
                return
    finally:
        for chain in live:
            engine.withdraw(chain)


def run_one(chain: Chain, prompt: Tokens, stream: Stream, engine: Engine) -> Outcome:
    """Run a single chain to its end."""
    start = Start(SampleKey(stream.problem, stream.replicate), prompt, chain, stream)
    return next(done.outcome for done in run_chains([start], engine, Meter()) if done is not None)


def _advance(number: int, live: _Live, answer: Answer | None, engine: Engine) -> Outcome | None:
    """Send an answer, and answer what needs no engine; None once the chain waits for the engine."""
    _, prompt, chain, stream = live.start
    while True:
        try:
            request = chain.send(answer)
        except StopIteration as end:
            return end.value
        match request:
            case LogUniform():
                answer = float(np.log1p(-stream.uniforms(request.key, 1)[0]))
            case Choose():
                source = stream.shared() if request.shared else stream
                answer = _choose(request, float(source.uniforms(request.key, 1)[0]))
            case Extend():
                uniforms = stream.uniforms(request.key, request.until)
                engine.submit(number, prompt, request, uniforms)
                return None


def _choose(request: Choose, uniform: float) -> int:
    cdf = np.cumsum(request.probabilities)
    index = int(np.searchsorted(cdf, uniform * cdf[-1], side="right"))
    return min(index, len(cdf) - 1)


def _complete(live: _Live, outcome: Outcome, meter: Meter) -> Completed:
    proposals = [step for step in outcome.steps if step.decoded]
    meter.proposals += len(proposals)
    meter.accepted += sum(step.accepted for step in proposals)
    seconds = time.monotonic() - live.began
    cost = Cost(live.decoded, live.prefilled, round(seconds, 3), round(time.time(), 3))
    return Completed(live.start.key, outcome, cost)
