"""Multiple-try Metropolis for p(x)^alpha in Algorithm 1's frame: what `multiple_try` and its variants share."""

import math
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

from powerbench.errors import require_integer
from powerbench.samplers.blockwise import Blockwise, Moving
from powerbench.samplers.common import Response, weight
from powerbench.samplers.population import log_mean, normalised
from powerbench.types import Choose, Context, Draw, LogUniform, Request, Step, Together


@dataclass(frozen=True)
class Tries(Blockwise):
    """Settings as in `power`.

    tries: candidate suffixes at each restart.
    """

    tries: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        require_integer("sampler.tries", self.tries, 1)

    def move(self, x: Response, m: int, horizon: int, k: int, n: int, context: Context) -> Moving:
        """Multiple-try Metropolis for p(x)^alpha on responses of at most `horizon` tokens."""
        draws = yield from self.candidates(x, m, horizon, (k, n), context)
        ys, decoded = [x.then(y, keep=m) for y in draws], sum(len(y.tokens) for y in draws)
        weights = [self.log_weight(y, m) for y in ys]
        if max(weights) == -math.inf:
            return x, Step(k, m, x.total, ys[0].total, decoded, False)
        picked = yield Choose(("pick", k, n), normalised(weights))
        reference = [*weights[:picked], self.log_weight(x, m), *weights[picked + 1 :]]
        threshold = (yield LogUniform(("accept", k, n))) + log_mean(reference)
        accepted = threshold <= log_mean(weights)
        y = ys[picked]
        step = Step(k, m, x.total, y.total, decoded, accepted)
        return (y if accepted else x), step

    def candidates(
        self, x: Response, m: int, horizon: int, step: tuple[int, int], context: Context
    ) -> Generator[Request, Any, tuple[Draw, ...]]:
        """Draws the suffixes from position m, by a law that depends on what is before it alone."""
        keys = (("propose", *step, i) for i in range(self.tries))
        asked = (self.draft(x, m, horizon, key, context) for key in keys)
        draws: tuple[Draw, ...] = yield Together(tuple(asked))
        return draws

    def log_weight(self, x: Response, m: int) -> float:
        """Log of the suffix's p^alpha over its probability as a candidate, nats; times that of a restart at m
        where that depends on x."""
        return weight(x, self.alpha, start=m)
