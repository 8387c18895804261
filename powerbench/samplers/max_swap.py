"""Max swap: power sampling in the limit alpha -> infinity, after the official code (arXiv 2510.14901).

Algorithm 1's frame; a step accepts exactly when the log-likelihood of the whole response rises. Its
transition matrix is the limit of `power`'s as alpha grows with the proposal temperature held fixed (where no
two responses tie), so it climbs and does not sample: every block ends in one of the likeliest responses of its
horizon, as steps grow. Cost, tokens decoded per response token: about N_MCMC * T / (4 B) at most, less what
early rejection saves.

Differs from the official `max_swap` (commit 720a8e9), the only place where it is published: that draws restarts
from the current response, proposes up to its length only, cuts the current suffix's terms to the proposal's
length, and adds B tokens a block to a response that has become short: `max_swap_official`. Here restarts and
proposals are those of `power`, the whole horizon, and whole suffixes are compared, so that the limit holds.
"""

import math
from dataclasses import dataclass

from powerbench.samplers.blockwise import Blockwise, Moving
from powerbench.samplers.common import Response
from powerbench.types import Context, FinishReason, Step

LARGE_ALPHA = 1e6
"""The alpha of the running weight by which proposals are rejected early."""


@dataclass(frozen=True)
class MaxSwap(Blockwise):
    """Settings as in `power`.

    alpha: enters through the proposal's temperature alone, 1/alpha unless proposal_temperature is set.
    early_rejection: stop decoding a proposal once its likelihood can no longer rise above the current one. The
        sum of log p only falls; and as log q <= 0, a running weight, LARGE_ALPHA * log p - log q, below
        LARGE_ALPHA times the current suffix's log p says that the sum is below it already, whatever the
        temperature and top_k. The chain is the same, token for token.
    """

    early_rejection: bool = True

    def move(self, x: Response, m: int, horizon: int, k: int, n: int, context: Context) -> Moving:
        """A proposal on responses of at most `horizon` tokens, accepted if p(x') > p(x)."""
        y = yield x.extend(
            m,
            horizon,
            ("propose", k, n),
            context,
            tau=self.tau,
            top_k=self.top_k,
            alpha=LARGE_ALPHA,
            floor=LARGE_ALPHA * sum(x.logp[m:]) if self.early_rejection else -math.inf,
            proposal=True,
        )
        if y.finish_reason is FinishReason.FLOOR:
            return x, Step(k, m, x.total, None, len(y.tokens), False)
        proposed = x.then(y, keep=m)
        other = proposed.tokens != x.tokens  # of the same, rounding may find one likelier
        accepted = other and proposed.total > x.total
        step = Step(k, m, x.total, proposed.total, len(y.tokens), accepted)
        return (proposed if accepted else x), step
