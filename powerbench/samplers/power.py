"""Power sampling: Algorithm 1 of "Reasoning with Sampling" (arXiv 2510.14901), with an exact kernel.

A chain over responses x of at most T tokens, built block by block. At each block's horizon, N_MCMC
Metropolis-Hastings steps leave p(x)^alpha exactly invariant: the positions restarted from are drawn
from the whole horizon, proposals run to the horizon with EOS absorbing, and both full suffixes
enter the ratio. Same as published; what the paper leaves open is read so that this holds: a position
drawn past EOS is a self-transition, and T is a multiple of B.

Cost, tokens decoded per response token: about N_MCMC * T / (4 B) at most, less what early rejection
saves.
"""

from dataclasses import dataclass

from powerbench.samplers.blockwise import Blockwise, Moving, SuffixMove
from powerbench.samplers.common import Response
from powerbench.types import Context


@dataclass(frozen=True)
class Power(Blockwise):
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

    early_rejection: bool = True

    def move(self, x: Response, m: int, horizon: int, k: int, n: int, context: Context) -> Moving:
        """Metropolis-Hastings for p(x)^alpha on responses of at most `horizon` tokens."""
        move = SuffixMove(self.alpha, self.tau, self.top_k, self.early_rejection)
        return (yield from move.step(x, m, horizon, k, n, context))
