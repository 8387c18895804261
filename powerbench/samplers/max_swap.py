"""Max swap: power sampling in the limit alpha -> infinity, after the official code (arXiv 2510.14901).

Algorithm 1's frame; a step accepts exactly when the log-likelihood of the whole response rises. Its
transition matrix is the limit of `power`'s as alpha grows with the proposal temperature held fixed (where no
two responses tie), so it climbs and does not sample: every block ends in one of the likeliest responses of its
horizon, as steps grow. Cost, tokens decoded per response token: about N_MCMC * T / (4 B) at most, less what
early rejection saves.

The official `max_swap` (commit 720a8e9) draws restarts from the current response, proposes up to its length
only, and cuts the current suffix's terms to the proposal's length, as its power sampler does. Here restarts
and proposals are those of `power`: the whole horizon, and whole suffixes compared.
"""

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any

from powerbench.samplers.blockwise import algorithm1, require_blockwise
from powerbench.samplers.common import Response, suffix
from powerbench.types import Chain, Choose, Context, FinishReason, Request, Step

LARGE = 1e6
"""The alpha of the running weight that early rejection stands on."""


@dataclass(frozen=True)
class MaxSwap:
    """Settings as in `power`.

    alpha: enters through the proposal's temperature alone, 1/alpha unless proposal_temperature is set.
    early_rejection: stop decoding a proposal once its likelihood can no longer rise above the current one. The
        sum of log p only falls; and as log q <= 0, a running weight, LARGE * log p - log q, below LARGE times
        the current suffix's log p says that the sum is below it already, whatever the temperature and top_k.
        The chain is the same, token for token.
    """

    max_tokens: int
    alpha: float = 4.0
    blocks: int = 16
    steps: int = 10
    proposal_temperature: float | None = None
    top_k: int | None = None
    early_rejection: bool = True
    stop_at_eos: bool = True

    def __post_init__(self) -> None:
        require_blockwise(self)

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
        """Step n of block k: a proposal on responses of at most `horizon`, accepted if p(x') > p(x)."""
        m = yield Choose(("restart", k, n), (1 / horizon,) * horizon)
        if m >= len(x):  # past EOS there is one continuation only: the proposal is x itself
            return x, Step(k, m, x.total, None, 0, False)
        y = yield suffix(
            x,
            m,
            horizon,
            ("propose", k, n),
            context,
            tau=self.tau,
            top_k=self.top_k,
            alpha=LARGE,
            floor=LARGE * sum(x.logp[m:]) if self.early_rejection else float("-inf"),
            proposal=True,
        )
        if y.finish_reason is FinishReason.FLOOR:
            return x, Step(k, m, x.total, None, len(y.tokens), False)
        proposed = x.then(y, keep=m)
        other = proposed.tokens != x.tokens  # of the same, rounding may find one likelier
        accepted = other and proposed.total > x.total
        step = Step(k, m, x.total, proposed.total, len(y.tokens), accepted)
        return (proposed if accepted else x), step
