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

from dataclasses import dataclass

from powerbench.errors import require_integer
from powerbench.samplers.blockwise import Blockwise, Moving
from powerbench.samplers.common import Response, weight
from powerbench.samplers.population import log_mean, normalised
from powerbench.types import Choose, Context, LogUniform, Step, Together


@dataclass(frozen=True)
class MultipleTry(Blockwise):
    """Settings as in `power`.

    tries: candidate suffixes at each restart.
    """

    tries: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        require_integer("sampler.tries", self.tries, 1)

    def move(self, x: Response, m: int, horizon: int, k: int, n: int, context: Context) -> Moving:
        """Multiple-try Metropolis for p(x)^alpha on responses of at most `horizon` tokens."""
        keys = (("propose", k, n, i) for i in range(self.tries))
        candidates = yield Together(tuple(self.draft(x, m, horizon, key, context) for key in keys))
        weights = [weight(y, self.alpha) for y in candidates]
        picked = yield Choose(("pick", k, n), normalised(weights))
        reference = [*weights[:picked], weight(x, self.alpha, start=m), *weights[picked + 1 :]]
        threshold = (yield LogUniform(("accept", k, n))) + log_mean(reference)
        accepted = threshold <= log_mean(weights)
        y = candidates[picked]
        decoded = sum(len(each.tokens) for each in candidates)
        step = Step(k, m, x.total, sum(x.logp[:m]) + sum(y.logp), decoded, accepted)
        return (x.then(y, keep=m) if accepted else x), step
