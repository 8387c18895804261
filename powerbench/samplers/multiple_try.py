"""Multiple-try Metropolis for the power distribution (Liu, Liang & Wong 2000, J. Am. Stat. Assoc. 95:121).

Algorithm 1's frame. At a restart several candidate suffixes are drawn together, one is picked by its importance
weight w = exp(sum of alpha * log p - log q), and accepted with probability min(1, W / (W - w + w_x)): W the sum
over the candidates, w_x the current suffix's weight. Given the kept prefix, the candidates' law does not depend
on the current suffix (the method's independence variant), so those not picked serve, with the current suffix,
as its reference set: nothing more is drawn. A step leaves p(x)^alpha on responses of at most `horizon` tokens
exactly invariant; with one try it is that of `power`. Cost, tokens decoded per response token: tries * N_MCMC *
T / (4 B), at the wall-clock of one try where a batch has room. No try can be rejected early by itself, as its
chance depends on the others.
"""

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any

from powerbench.errors import require_integer
from powerbench.samplers.blockwise import algorithm1, require_blockwise
from powerbench.samplers.common import Response, suffix, weight
from powerbench.samplers.population import log_mean, normalised
from powerbench.types import Chain, Choose, Context, LogUniform, Request, Step, Together


@dataclass(frozen=True)
class MultipleTry:
    """Settings as in `power`.

    tries: candidate suffixes at each restart.
    """

    max_tokens: int
    alpha: float = 4.0
    blocks: int = 16
    steps: int = 10
    tries: int = 5
    proposal_temperature: float | None = None
    top_k: int | None = None
    stop_at_eos: bool = True

    def __post_init__(self) -> None:
        require_blockwise(self)
        require_integer("sampler.tries", self.tries, 1)

    @property
    def tau(self) -> float:
        """The proposal's temperature."""
        return self.proposal_temperature or 1 / self.alpha

    def chain(self, context: Context, state: Mapping[str, Any] | None = None) -> Chain:
        """Algorithm 1, from its start or from a saved state."""
        return algorithm1(self, self.step, context, state)

    def step(
        self, x: Response, horizon: int, k: int, n: int, context: Context
    ) -> Generator[Request, Any, tuple[Response, Step]]:
        """Step n of block k: multiple-try Metropolis for p(x)^alpha on responses of at most `horizon`."""
        m = yield Choose(("restart", k, n), (1 / horizon,) * horizon)
        current = x.total
        if m >= len(x):  # past EOS there is one continuation only: every candidate is x itself
            return x, Step(k, m, current, None, 0, False)
        candidates = yield Together(
            tuple(
                suffix(x, m, horizon, ("propose", k, n, i), context, tau=self.tau, top_k=self.top_k)
                for i in range(self.tries)
            )
        )
        weights = [weight(y, self.alpha) for y in candidates]
        picked = yield Choose(("pick", k, n), normalised(weights))
        reference = [*weights[:picked], weight(x, self.alpha, start=m), *weights[picked + 1 :]]
        threshold = (yield LogUniform(("accept", k, n))) + log_mean(reference)
        accepted = threshold <= log_mean(weights)
        y = candidates[picked]
        decoded = sum(len(each.tokens) for each in candidates)
        step = Step(k, m, current, sum(x.logp[:m]) + sum(y.logp), decoded, accepted)
        return (x.then(y, keep=m) if accepted else x), step
