"""Entropy-Cut Metropolis-Hastings: `power` with restarts at decision points (Zhou, Mehrotra & Liu,
"Reasoning with Sampling: Cutting at Decision Points", arXiv 2605.30327).

Restarts are drawn where the base model's next-token entropy H rises along the current response: at position m
with probability lambda(m), proportional to max(0, H_m - H_{m-1})^4. As lambda depends on the response, the
ratio has the correction lambda'(m) / lambda(m), lambda' that of the proposal. Each is normalised over its own
response's positions, so that lengths may differ: a step leaves p(x)^alpha on responses of at most `horizon`
tokens exactly invariant. Cost, tokens decoded per response token: N_MCMC * T / (4 B) where rises are spread
evenly, up to twice that where they come early; less what early rejection saves.

Our choices, where the paper's are not known to us: H_{-1} = 0, so that the first position, where the model is
undecided, is a rise. Every response then reaches every other: all share the first undecided position, restart
there, and may continue in any way. (Without restarts there, the first token would never change.) A response
without any rise restarts uniformly. No restart lies past the end, so no step is spent there.
"""

import math
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from powerbench.errors import require
from powerbench.samplers.blockwise import algorithm1, require_blockwise
from powerbench.samplers.common import Response, suffix, weight, weights_only_fall
from powerbench.types import Chain, Choose, Context, FinishReason, LogUniform, Request, Step


@dataclass(frozen=True)
class EntropyCut:
    """Settings as in `power`, and those of the restarts.

    exponent: the power of an entropy rise that a restart there is proportional to.
    uniform: the share of restarts drawn uniformly from the response instead; exact for any from 0 to 1.
    early_rejection: as in `power`, and as exact: log lambda' <= 0, so without it the threshold is a bound.
    """

    max_tokens: int
    alpha: float = 4.0
    blocks: int = 16
    steps: int = 10
    proposal_temperature: float | None = None
    top_k: int | None = None
    exponent: float = 4.0
    uniform: float = 0.0
    early_rejection: bool = True
    stop_at_eos: bool = True

    def __post_init__(self) -> None:
        require_blockwise(self)
        require(
            self.exponent > 0,
            f"sampler.exponent must be > 0 (the paper: 4), got {self.exponent}",
        )
        require(
            0 <= self.uniform <= 1,
            f"sampler.uniform, a share, must be from 0 to 1, got {self.uniform}",
        )

    @property
    def tau(self) -> float:
        """The proposal's temperature."""
        return self.proposal_temperature or 1 / self.alpha

    def chain(self, context: Context, state: Mapping[str, Any] | None = None) -> Chain:
        """Algorithm 1, from its start or from a saved state."""
        return algorithm1(self, self.step, context, state)

    def restarts(self, x: Response) -> tuple[float, ...]:
        """lambda: the probability of a restart at each of the response's positions."""
        rises = [max(0.0, after - before) for before, after in pairwise((0.0, *x.entropy))]
        if (largest := max(rises)) == 0:
            return (1 / len(x),) * len(x)
        raw = [(rise / largest) ** self.exponent for rise in rises]
        total = math.fsum(raw)
        return tuple((1 - self.uniform) * r / total + self.uniform / len(x) for r in raw)

    def step(
        self, x: Response, horizon: int, k: int, n: int, context: Context
    ) -> Generator[Request, Any, tuple[Response, Step]]:
        """Step n of block k: Metropolis-Hastings for p(x)^alpha on responses of at most `horizon`.

        Accepts x' with probability min(1, [p(x')^alpha q(x | x') lambda'(m)] / [p(x)^alpha q(x' | x)
        lambda(m)]).
        """
        here = self.restarts(x)
        m = yield Choose(("restart", k, n), here)
        current = x.total
        offset = weight(x, self.alpha, start=m) + math.log(here[m])
        threshold = (yield LogUniform(("accept", k, n))) + offset
        only_falls = self.early_rejection and weights_only_fall(self.alpha, self.tau)
        y = yield suffix(
            x,
            m,
            horizon,
            ("propose", k, n),
            context,
            tau=self.tau,
            top_k=self.top_k,
            alpha=self.alpha,
            floor=threshold if only_falls else float("-inf"),
            proposal=True,
        )
        if y.finish_reason is FinishReason.FLOOR:
            return x, Step(k, m, current, None, len(y.tokens), False)
        proposed = x.then(y, keep=m)
        back = self.restarts(proposed)[m]
        accepted = back > 0 and threshold <= weight(y, self.alpha) + math.log(back)
        step = Step(k, m, current, proposed.total, len(y.tokens), accepted)
        return (proposed if accepted else x), step
