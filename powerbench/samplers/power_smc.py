"""Power-SMC: sequential Monte Carlo for p(x)^alpha (Azizi et al. 2026, arXiv 2602.10273).

N particles are drawn at temperature 1/alpha and weighted by alpha * log p - log q of their tokens. Where the
weights have become too unequal, particles are resampled; at the end one is drawn by weight. Law: for any N,
the estimate of Z = sum_x p(x)^alpha is unbiased; the response's law tends to p^alpha as N grows, and for N = 1
is that of low temperature. Cost, tokens decoded per response token: about N; fewer for particles that end
early. It departs from the paper in that the weights are checked every `interval` tokens, not after each.
"""

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any

from powerbench.errors import require, require_integer
from powerbench.samplers.common import (
    Response,
    Sampler,
    require_alpha,
    require_temperature,
    together,
    weight,
)
from powerbench.samplers.population import Population, effective, normalised, record, resample
from powerbench.types import Chain, Choose, Context, Request

MAX_SAVES = 16
"""About how many states a chain of max_tokens saves, at most: each holds all particles."""


@dataclass(frozen=True)
class PowerSMC(Sampler):
    """Settings under the paper's names where it has them.

    threshold: resample where the effective sample size is below this share of the particles.
    interval: tokens between two checks of it.
    """

    alpha: float = 4.0
    particles: int = 64
    proposal_temperature: float | None = None
    threshold: float = 0.5
    interval: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        require_alpha(self.alpha)
        require_integer("sampler.particles", self.particles, 1)
        require_temperature("proposal_temperature", self.proposal_temperature)
        require(
            0 <= self.threshold <= 1,
            f"sampler.threshold must be a share of the particles, in [0, 1], got {self.threshold}",
        )
        require_integer("sampler.interval", self.interval, 1)

    @property
    def tau(self) -> float:
        """The proposal's temperature."""
        return self.proposal_temperature or 1 / self.alpha

    def chain(self, context: Context, state: Mapping[str, Any] | None = None) -> Chain:
        """All particles, from their start or from a saved state, and one of them drawn by weight."""
        end = yield from self.population(context, state)
        weights = normalised(end.log_weights)
        chosen = yield Choose(("return",), weights)
        last = record(end.checks, end.resampled, end.particles, weights, (chosen,))
        return end.particles[chosen].outcome(rounds=(*end.rounds, last))

    def population(
        self, context: Context, state: Mapping[str, Any] | None = None
    ) -> Generator[Request, Any, Population]:
        """The particles when all are finished or have max_tokens, weighted and not resampled again."""
        nothing = Population(0, (Response(),) * self.particles, (0.0,) * self.particles)
        now = nothing if state is None else Population.of_state(state)
        every = max(1, self.max_tokens // (MAX_SAVES * self.interval))
        while True:
            until = min((now.checks + 1) * self.interval, self.max_tokens)
            now = yield from self._extended(now, until, context)
            if until == self.max_tokens or all(x.finished for x in now.particles):
                return now
            weights = normalised(now.log_weights)
            if effective(weights) < self.threshold * self.particles:
                ancestors = yield from resample(("resample", now.checks), weights)
                round_ = record(now.checks, now.resampled, now.particles, weights, ancestors)
                now = now._replace(
                    particles=tuple(now.particles[i] for i in ancestors),
                    log_weights=(0.0,) * self.particles,
                    log_z=now.log_estimate,
                    resampled=until,
                    rounds=(*now.rounds, round_),
                )
            now = now._replace(checks=now.checks + 1)
            if now.checks % every == 0:
                yield now.saved()

    def _extended(
        self, now: Population, until: int, context: Context
    ) -> Generator[Request, Any, Population]:
        """Every particle that is not finished, extended to `until`, and its tokens weighed."""
        asked = {
            i: x.extend(len(x), until, ("particle", now.checks, i), context, tau=self.tau)
            for i, x in enumerate(now.particles)
            if not x.finished
        }
        particles, log_weights = list(now.particles), list(now.log_weights)
        for i, draw in (yield from together(asked)).items():
            particles[i] = particles[i].then(draw)
            log_weights[i] += weight(draw, self.alpha)
        return now._replace(particles=tuple(particles), log_weights=tuple(log_weights))
