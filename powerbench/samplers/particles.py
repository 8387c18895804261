"""The frame of sequential Monte Carlo, which samplers with weighted particles share.

Step by step every particle is extended, its new tokens are weighed, and at every look the weights decide
whether particles are resampled. The exponent rises with the position t: a(t) = 1 + (alpha - 1) min(1, t / R).
After token t a particle's log weight gains a(t) log p_t - log q_t + (a(t) - a(t - 1)) l, where l is the log p
of what came before; finished ones gain the last term alone, so that all have p^a(t) for their target. What is
missing at the end, (alpha - a(t)) log p, is made up for: whatever R is, log weights sum to alpha log p - log q.
"""

import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from powerbench.errors import require, require_integer, unknown
from powerbench.samplers.common import (
    Response,
    Sampler,
    require_alpha,
    require_temperature,
    together,
    weight,
)
from powerbench.samplers.population import (
    Population,
    effective,
    log_mean,
    normalised,
    record,
)
from powerbench.samplers.resampling import SCHEMES
from powerbench.samplers.truncated import truncated
from powerbench.samplers.voting import up_to_answer
from powerbench.types import Chain, Choose, Context, Draw, Request

MAX_SAVES = 16
"""About how many states a chain of max_tokens saves, at most: each holds all particles."""


@dataclass(frozen=True)
class Particles(Sampler):
    """Weighted particles for p(x)^alpha, one of which is returned: by weight, unless `choice` is overridden.

    proposal_temperature: None means 1/a(t).
    threshold: resample where the effective sample size is below this share of the particles.
    particles: N.
    interval: tokens between two looks at it.
    ramp: R, tokens over which the exponent rises; they are asked for one at a time. 0: none.
    resampling: `systematic` or `chopthin`.
    top_p: truncates the proposal to a nucleus; tokens are then asked for one at a time.
    min_tokens: the least tokens before a stop token.
    stop_at_answer: end a particle with the first token that completes an answer, as the verifier reads it.
    """

    alpha: float = 4.0
    particles: int = 64
    proposal_temperature: float | None = None
    threshold: float = 0.5
    interval: int = 1
    ramp: int = 100
    resampling: str = "systematic"
    top_p: float | None = None
    min_tokens: int = 0
    stop_at_answer: bool = False

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
        require_integer("sampler.ramp", self.ramp, 0)
        require_integer("sampler.min_tokens", self.min_tokens, 0)
        if self.resampling not in SCHEMES:
            raise unknown("sampler.resampling", self.resampling, SCHEMES)
        require(
            self.top_p is None or 0 < self.top_p <= 1,
            f"sampler.top_p must be in (0, 1], or null for no truncation, got {self.top_p}",
        )

    @property
    def votes(self) -> bool:
        return self.stop_at_answer

    def chain(self, context: Context, state: Mapping[str, Any] | None = None) -> Chain:
        """All particles, from their start or from a saved state, and one of them chosen."""
        end = yield from self.population(context, state)
        weights = normalised(end.log_weights)
        chosen = yield from self.choice(end, weights, context)
        last = record(end.steps, end.resampled, end.particles, weights, (chosen,))
        rounds = (*end.rounds, last)
        return end.particles[chosen].outcome(rounds=rounds, members=end.particles)

    def choice(
        self, end: Population, weights: Sequence[float], context: Context
    ) -> Generator[Request, Any, int]:
        """Which particle is returned."""
        chosen: int = yield Choose(("return",), tuple(weights))
        return chosen

    def guide(
        self, now: Population, until: int, context: Context
    ) -> Generator[Request, Any, tuple[float, ...]]:
        """What is added to each log weight where it is decided who survives, and taken from it after."""
        yield from ()
        return (0.0,) * self.particles

    def after_resampling(self, weight: float, guide: float) -> float:
        """The log weight of a slot whose ancestor had this guide."""
        return math.log(weight) - guide

    def population(
        self, context: Context, state: Mapping[str, Any] | None = None
    ) -> Generator[Request, Any, Population]:
        """The particles when all are done or have max_tokens, weighted and not resampled again."""
        now = Population.start(self.particles) if state is None else Population.of_state(state)
        saved_every = self.interval * max(1, self.max_tokens // (MAX_SAVES * self.interval))
        while True:
            until = self._position(now.steps + 1)
            now = yield from self._extended(now, until, context)
            if until == self.max_tokens or all(now.done):
                return self._raised(now, self.exponent(until), self.alpha)
            if until % self.interval == 0:
                now = yield from self._looked_at(now, until, context)
            now = now._replace(steps=now.steps + 1)
            if until % saved_every == 0:
                yield now.saved()

    def exponent(self, position: int) -> float:
        """a(t)."""
        if position >= self.ramp:
            return self.alpha
        return 1 + (self.alpha - 1) * position / self.ramp

    def _position(self, steps: int) -> int:
        """Where this many steps lead, in tokens: one at a time while each has a proposal of its own, then from
        look to look."""
        single = self.max_tokens if self.top_p is not None else max(self.ramp, self.min_tokens)
        if steps > single:
            steps = (single // self.interval + steps - single) * self.interval
        return min(steps, self.max_tokens)

    def _raised(self, now: Population, before: float, after: float) -> Population:
        """The same particles, weighted for another exponent."""
        if before == after:
            return now
        gained = [(after - before) * x.total for x in now.particles]
        return now._replace(
            log_weights=tuple(w + g for w, g in zip(now.log_weights, gained, strict=True))
        )

    def _extended(
        self, now: Population, until: int, context: Context
    ) -> Generator[Request, Any, Population]:
        """Every particle that is not done, extended to `until`, and its tokens weighed."""
        exponent = self.exponent(until)
        now = self._raised(now, self.exponent(self._position(now.steps)), exponent)
        going = {i: x for i, x in enumerate(now.particles) if not now.done[i]}
        draws = yield from self._drawn(going, now.steps, until, context)
        particles, done, log_weights = list(now.particles), list(now.done), list(now.log_weights)
        for i, draw in draws.items():
            start, x = len(particles[i]), particles[i].then(draw)
            answered = up_to_answer(x, start, context) if self.stop_at_answer else None
            particles[i] = x if answered is None else answered
            done[i] = x.finished or answered is not None
            log_weights[i] += weight(particles[i], exponent, start)
        return now._replace(
            particles=tuple(particles), done=tuple(done), log_weights=tuple(log_weights)
        )

    def _drawn(
        self, going: Mapping[int, Response], step: int, until: int, context: Context
    ) -> Generator[Request, Any, dict[int, Draw]]:
        tau = self.proposal_temperature or 1 / self.exponent(until)
        key, may_stop = ("particle", step), until > self.min_tokens
        if self.top_p is not None or not may_stop:
            return (yield from truncated(going, key, context, tau, self.top_p, may_stop))
        asked = {i: x.extend(len(x), until, (*key, i), context, tau=tau) for i, x in going.items()}
        return (yield from together(asked))

    def _looked_at(
        self, now: Population, until: int, context: Context
    ) -> Generator[Request, Any, Population]:
        """The particles, resampled if their weights have become too unequal."""
        guide = yield from self.guide(now, until, context)
        scores = [w + v for w, v in zip(now.log_weights, guide, strict=True)]
        weights = normalised(scores)
        if effective(weights) >= self.threshold * self.particles:
            return now
        slots = yield from SCHEMES[self.resampling](("resample", now.steps), weights)
        round_ = record(now.steps, now.resampled, now.particles, weights, slots.ancestors)
        pairs = zip(slots.weights, slots.ancestors, strict=True)
        return now._replace(
            particles=tuple(now.particles[i] for i in slots.ancestors),
            done=tuple(now.done[i] for i in slots.ancestors),
            log_weights=tuple(self.after_resampling(w, guide[i]) for w, i in pairs),
            log_z=now.log_z + log_mean(scores),
            resampled=until,
            rounds=(*now.rounds, round_),
        )
