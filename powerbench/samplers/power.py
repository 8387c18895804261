"""Power sampling: Algorithm 1 of "Reasoning with Sampling" (arXiv 2510.14901), with an exact kernel.

A chain over responses x of at most T tokens, built block by block. At each block's horizon, N_MCMC
Metropolis-Hastings steps leave p(x)^alpha exactly invariant: the positions restarted from are drawn
from the whole horizon, proposals run to the horizon with EOS absorbing, and both full suffixes
enter the ratio. Cost, tokens decoded per response token: about N_MCMC * T / (4 B) at most, less
what early rejection saves.
"""

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any

from powerbench.samplers.blockwise import SuffixMove, algorithm1, require_blockwise
from powerbench.samplers.common import Response
from powerbench.types import Chain, Choose, Context, Request, Step


@dataclass(frozen=True)
class Power:
    """Settings under the paper's names.

    early_rejection: stop decoding a proposal once it can no longer be accepted. With alpha >= 1/tau
        and tau <= 1 every token's weight alpha * log p - log q is at most zero, so a running weight
        below the acceptance threshold stays below it: the chain is the same, token for token (but
        for the last bit of float32, where a weight of zero may come out as 1e-7).
        Where the condition fails, proposals are decoded to their end.
    stop_at_eos: end the chain after the block in which it holds EOS, as Algorithm 1 does; the law of
        the whole chain then mixes the targets of several horizons. False runs all blocks, and tends
        to p(x)^alpha on responses of up to T tokens as steps grow.
    top_k: truncates the proposal, not the target. The truncated kernel still leaves p^alpha invariant
        on the sequences that it can reach.
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
        """Step n of block k: Metropolis-Hastings for p(x)^alpha on responses of at most `horizon`."""
        m = yield Choose(("restart", k, n), (1 / horizon,) * horizon)
        if m >= len(x):  # past EOS there is one continuation only: the proposal is x itself
            return x, Step(k, m, x.total, None, 0, False)
        move = SuffixMove(self.alpha, self.tau, self.top_k, self.early_rejection)
        proposal = yield from move.propose(x, m, horizon, (k, n), context)
        y = yield proposal.request
        return move.judge(x, proposal, y, k)
