"""What samplers with several responses at once share: weights, a population, the record of a round."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from powerbench.samplers.common import Response
from powerbench.types import Outcome, Round, Save


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


def record(
    block: int,
    start: int,
    candidates: Sequence[Response | Outcome],
    weights: Sequence[float],
    kept: Sequence[int],
) -> Round:
    """A round of candidates, as the page draws it. weights: those that chose; kept: what they chose."""
    logp = tuple(_rounded_logp(x) for x in candidates)
    return Round(block, start, logp, tuple(round(w, 4) for w in weights), tuple(kept))


def _rounded_logp(x: Response | Outcome) -> float | None:
    if x.reply is not None:
        return None
    logp = x.total if isinstance(x, Response) else x.logp
    return None if logp is None else round(logp, 3)


def recorded(saved: Sequence[Sequence[Any]]) -> list[Round]:
    """The rounds that a saved state holds, whose tuples have become lists."""
    return [
        Round(block, start, tuple(logp), tuple(weights), tuple(kept))
        for block, start, logp, weights, kept in saved
    ]


class Population(NamedTuple):
    """The particles after some steps."""

    steps: int
    particles: tuple[Response, ...]
    done: tuple[bool, ...]
    """Which of them are not to be extended: finished, or stopped by the sampler."""
    log_weights: tuple[float, ...]
    """Of each particle, nats, relative to `log_z`."""
    log_z: float = 0.0
    """Sum over resamplings of the log of the mean weight."""
    resampled: int = 0
    """Position, in tokens, of the last resampling."""
    rounds: tuple[Round, ...] = ()

    @classmethod
    def start(cls, count: int) -> "Population":
        """So many empty responses of weight one."""
        return cls(0, (Response(),) * count, (False,) * count, (0.0,) * count)

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
        done, log_weights = tuple(state["done"]), tuple(state["log_weights"])
        rounds = tuple(recorded(state["rounds"]))
        now = cls(**{**state, "particles": particles})
        return now._replace(done=done, log_weights=log_weights, rounds=rounds)
