"""Max swap as the official code runs it, every departure a setting (commit 720a8e9).

The limit alpha -> infinity of `power_official`: a proposal is accepted exactly if the sum of its log p exceeds
that of the current suffix, cut to the proposal's length. The likelihood so never falls, but a proposal that
ends early may be refused though it is likelier. The paper does not mention this sampler, and no result of it is
published. With all departures off the chain is that of `max_swap`. Cost: as that, without early rejection.
"""

from dataclasses import dataclass

from powerbench.samplers.blockwise import Moving
from powerbench.samplers.common import Response
from powerbench.samplers.official import Official
from powerbench.types import Context


@dataclass(frozen=True)
class MaxSwapOfficial(Official):
    """alpha: enters through the proposal's temperature alone, 1/alpha unless proposal_temperature is set."""

    def move(self, x: Response, m: int, horizon: int, k: int, n: int, context: Context) -> Moving:
        """With the official comparison."""
        y = yield self.draft(x, m, self.until(x, horizon), ("propose", k, n), context)
        rises = sum(y.logp) > sum(x.logp[m : self.compared(m, y)])
        other = y.tokens != x.tokens[m:]  # of the same, rounding may find one likelier
        return self.after(x, m, y, k, accepted=other and rises)
