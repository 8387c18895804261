"""What samplers with several responses at once share: weights, resampling, and the record of a round."""

import math
from collections.abc import Generator, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from powerbench.samplers.common import Response
from powerbench.types import Choose, Key, Request, Round, Save

ROUNDING = 1e-12
"""Places of u that are closer than this count as one place."""


def normalised(log_weights: Sequence[float]) -> tuple[float, ...]:
    """Weights that sum to one. Raises ValueError if none is finite."""
    largest = max(log_weights)
    if not math.isfinite(largest):
        raise ValueError(f"no weight is finite: {list(log_weights)}")
    raw = [math.exp(w - largest) for w in log_weights]
    total = math.fsum(raw)
    return tuple(w / total for w in raw)


def log_mean(log_weights: Sequence[float]) -> float:
    """Log of the mean weight, nats."""
    largest = max(log_weights)
    if not math.isfinite(largest):
        return largest
    return largest + math.log(
        math.fsum(math.exp(w - largest) for w in log_weights) / len(log_weights)
    )


def effective(weights: Sequence[float]) -> float:
    """Effective sample size of weights that sum to one: from 1 to their number (Kong 1992)."""
    return 1 / math.fsum(w * w for w in weights)


def resample(key: Key, weights: Sequence[float]) -> Generator[Request, Any, list[int]]:
    """Systematic resampling: the ancestor of each slot (Kitagawa 1996, J. Comp. Graph. Stat. 5:1).

    One uniform u decides: slot i takes the particle in whose part of [0, 1) (u + i) / n lies. It is asked
    for as the interval of u between two places where the outcome changes, so that a law can be enumerated.
    A particle that survives keeps its slot, whatever its copies: its cache need not move.
    """
    n, edges, total = len(weights), [0.0], 0.0
    for w in weights:
        total += w
        edges.append(n * total)
    cuts = [0.0]
    for cut in sorted(edge % 1.0 for edge in edges[1:-1]):
        if cut - cuts[-1] > ROUNDING and cut < 1 - ROUNDING:
            cuts.append(cut)
    cuts.append(1.0)
    at = yield Choose(key, tuple(b - a for a, b in pairwise(cuts)))
    u = (cuts[at] + cuts[at + 1]) / 2
    copies, particle = [0] * n, 0
    for i in range(n):
        while particle < n - 1 and u + i >= edges[particle + 1]:
            particle += 1
        copies[particle] += 1
    return _in_their_slots(copies)


def _in_their_slots(copies: Sequence[int]) -> list[int]:
    spare = [i for i, count in enumerate(copies) for _ in range(count - 1)]
    return [i if count else spare.pop(0) for i, count in enumerate(copies)]


def record(
    block: int,
    start: int,
    candidates: Sequence[Response],
    weights: Sequence[float],
    kept: Sequence[int],
) -> Round:
    """A round of candidates, as the page draws it. weights: those that chose; kept: what they chose."""
    logp = tuple(round(x.total, 3) for x in candidates)
    return Round(block, start, logp, tuple(round(w, 4) for w in weights), tuple(kept))


def recorded(saved: Sequence[Sequence[Any]]) -> list[Round]:
    """The rounds that a saved state holds, whose tuples have become lists."""
    return [
        Round(block, start, tuple(logp), tuple(weights), tuple(kept))
        for block, start, logp, weights, kept in saved
    ]


class Population(NamedTuple):
    """The particles after some checks of their weights."""

    checks: int
    particles: tuple[Response, ...]
    log_weights: tuple[float, ...]
    """Of each particle, nats, since the last resampling."""
    log_z: float = 0.0
    """Sum over resamplings of the log of the mean weight."""
    resampled: int = 0
    """Position, in tokens, of the last resampling."""
    rounds: tuple[Round, ...] = ()

    @property
    def log_estimate(self) -> float:
        """Log of the estimate of the mass sum_x p(x)^alpha, nats."""
        return self.log_z + log_mean(self.log_weights)

    def saved(self) -> Save:
        return Save({**self._asdict(), "particles": [x.state() for x in self.particles]})

    @classmethod
    def of_state(cls, state: Mapping[str, Any]) -> "Population":
        """The inverse of `saved`."""
        particles = tuple(Response.of_state(x) for x in state["particles"])
        log_weights = tuple(state["log_weights"])
        rounds = tuple(recorded(state["rounds"]))
        now = cls(**{**state, "particles": particles})
        return now._replace(log_weights=log_weights, rounds=rounds)
