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
from dataclasses import dataclass
from itertools import pairwise

from powerbench.errors import require
from powerbench.samplers.blockwise import Blockwise, Moving, SuffixMove
from powerbench.samplers.common import Response
from powerbench.types import Choose, Context, FinishReason, Key


@dataclass(frozen=True)
class EntropyCut(Blockwise):
    """Settings as in `power`, and those of the restarts.

    exponent: the power of an entropy rise that a restart there is proportional to.
    uniform: the share of restarts drawn uniformly from the response instead; exact for any from 0 to 1.
    early_rejection: as in `power`, and as exact: log lambda' <= 0, so without it the threshold is a bound.
    """

    exponent: float = 4.0
    uniform: float = 0.0
    early_rejection: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            0 < self.exponent < math.inf,
            f"sampler.exponent must be > 0 and finite (the paper: 4), got {self.exponent}",
        )
        require(
            0 <= self.uniform <= 1,
            f"sampler.uniform, a share, must be from 0 to 1, got {self.uniform}",
        )

    def restarts(self, x: Response) -> tuple[float, ...]:
        """lambda: the probability of a restart at each of the response's positions."""
        rises = [max(0.0, after - before) for before, after in pairwise((0.0, *x.entropy))]
        if (largest := max(rises)) == 0:
            return (1 / len(x),) * len(x)
        raw = [(rise / largest) ** self.exponent for rise in rises]
        total = math.fsum(raw)
        return tuple((1 - self.uniform) * r / total + self.uniform / len(x) for r in raw)

    def restart(self, x: Response, horizon: int, key: Key) -> Choose:
        """Asks for the position to restart from: by lambda, within the response."""
        return Choose(key, self.restarts(x))

    def move(self, x: Response, m: int, horizon: int, k: int, n: int, context: Context) -> Moving:
        """Metropolis-Hastings for p(x)^alpha on responses of at most `horizon` tokens.

        Accepts x' with probability min(1, [p(x')^alpha q(x | x') lambda'(m)] / [p(x)^alpha q(x' | x)
        lambda(m)]).
        """
        move = SuffixMove(self.alpha, self.tau, self.top_k, self.early_rejection)
        here = math.log(self.restarts(x)[m])
        proposal = yield from move.propose(x, m, horizon, (k, n), context, correction=here)
        y = yield proposal.request
        whole = y.finish_reason is not FinishReason.FLOOR
        back = self.restarts(x.then(y, keep=m))[m] if whole else 0.0
        return move.judge(x, proposal, y, k, correction=math.log(back) if back else -math.inf)
