"""APPS, auxiliary particle power sampling: Power-SMC whose survivors are chosen by their futures.

Nguyen et al. 2026, arXiv 2605.02427. Particles advance by blocks of B tokens at temperature 1/alpha, weighted
by w = p^alpha / q. After a block each has M rollouts of H tokens from the base model, whose mean p^(alpha - 1)
estimates zeta, what its future is worth (as in `scalable_power`). Where w zeta is too unequal, ancestors
are drawn by w zeta, and survivors then have weight 1 / zeta: the guide is divided out again (an auxiliary
particle filter, Pitt & Shephard 1999), so that it decides who survives, and not what is estimated.

Law: for any N, M and H the estimate of Z = sum_x p(x)^alpha is unbiased; the response's law tends to p^alpha as
N grows; N = 1 is low temperature; without rollouts it is `power_smc` with interval = B, ramp = 0. If H reaches
to the end, the mean of w zeta after the first block is already unbiased for Z.
Cost, tokens decoded per response token: N (1 + M H / B); 72 with the defaults.

Same as published: particles in blocks, proposal-corrected power weights, survival by short rollouts. We know
the method's description, not its settings: N, B, H, M and the threshold are ours, and so is dividing the guide
out, without which (`divide=false`) the target is not p^alpha. Its learned guide, which is trained, is left out.
"""

import math
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

from powerbench.errors import require_integer
from powerbench.samplers.particles import Particles
from powerbench.samplers.population import Population, log_mean
from powerbench.samplers.rollouts import futures
from powerbench.types import Context, Request


@dataclass(frozen=True)
class APPS(Particles):
    """interval: B. rollouts: M; 0 for no guide. lookahead: H. divide: divide the guide out after resampling.

    The others as in `Particles`.
    """

    particles: int = 8
    interval: int = 192
    ramp: int = 0
    rollouts: int = 8
    lookahead: int = 192
    divide: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        require_integer("sampler.rollouts", self.rollouts, 0)
        require_integer("sampler.lookahead", self.lookahead, 1)

    def guide(
        self, now: Population, until: int, context: Context
    ) -> Generator[Request, Any, tuple[float, ...]]:
        """log zeta of each particle, 0 for one without a future."""
        going = [i for i, done in enumerate(now.done) if not done and self.rollouts]
        after = yield from futures(
            [now.particles[i] for i in going],
            ("rollout", now.steps),
            min(until + self.lookahead, self.max_tokens),
            context,
            count=self.rollouts,
            alpha=self.alpha,
            tau=1.0,
        )
        zetas = dict(zip(going, map(log_mean, after), strict=True))
        return tuple(zetas.get(i, 0.0) for i in range(self.particles))

    def after_resampling(self, weight: float, guide: float) -> float:
        return math.log(weight) - (guide if self.divide else 0.0)
