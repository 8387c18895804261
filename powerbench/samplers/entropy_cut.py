"""Entropy-Cut Metropolis-Hastings: `power` with restarts at decision points (Zhou, Mehrotra & Liu, "Reasoning
with Sampling: Cutting at Decision Points", arXiv 2605.30327; code felix-cfzhou/Reasoning-with-Sampling).

Restarts are drawn where the base model's next-token entropy H rises along the current response: at position m
with probability lambda(m), proportional to max(0, H_m - H_{m-1})^4. As lambda depends on the response, the
ratio has the correction lambda'(m) / lambda(m), lambda' that of the proposal. Each is normalised over its own
response's positions, so that lengths may differ: a step leaves p(x)^alpha on responses of at most `horizon`
tokens exactly invariant. Cost, tokens decoded per response token: N_MCMC * T / (4 B) where rises are spread
evenly, up to twice that where they come early; less what early rejection saves.

Same as the official code: the exponent; H_{-1} = 0, so that the first position's whole entropy is a rise;
uniform restarts where nothing rises; restarts within the response alone. (Every response reaches every other:
all share the first undecided position, restart there, and may continue in any way.)

Differs: the code's proposals are no longer than what is left of the response, and the current suffix's terms
are cut to a proposal's length, which is not exact: `within_response`. It truncates proposals to 50 tokens,
`top_k`, and takes entropies over these, `top_entropies`; both are exact. Its log p, too, is normalised over the
50: here p is the model's own. Settings of its runs: alpha 5 on HumanEval, T 6144 and B 384 on GPQA.
"""

import math
from dataclasses import dataclass

from powerbench.errors import require_integer
from powerbench.samplers.blockwise import Blockwise, Moving, SuffixMove
from powerbench.samplers.common import Response, weight
from powerbench.samplers.restarts import require_restarts, restart_law
from powerbench.types import Choose, Context, Extend, FinishReason, Key, LogUniform, Step


@dataclass(frozen=True)
class EntropyCut(Blockwise):
    """Settings as in `power`, and those of the restarts.

    exponent: the power of an entropy rise that a restart there is proportional to.
    uniform: the share of restarts drawn uniformly from the response instead; exact for any from 0 to 1.
    top_entropies: take entropies over so many of the likeliest tokens (code: 50); None: over all.
    within_response: as the official code proposes and accepts, see above: not exact, never rejected early.
    early_rejection: as in `power`, and as exact: log lambda' <= 0, so without it the threshold is a bound.
    """

    exponent: float = 4.0
    uniform: float = 0.0
    top_entropies: int | None = None
    within_response: bool = False
    early_rejection: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        require_restarts(self.exponent, self.uniform)
        if self.top_entropies is not None:
            require_integer("sampler.top_entropies", self.top_entropies, 1)

    @property
    def suffix_move(self) -> SuffixMove:
        """Metropolis-Hastings for p(x)^alpha, but for the law of restarts."""
        move = SuffixMove(self.alpha, self.tau, self.top_k, self.early_rejection)
        return move._replace(top_logprobs=self.top_entropies or 0)

    def restarts(self, x: Response) -> tuple[float, ...]:
        """lambda: the probability of a restart at each of the response's positions."""
        entropy = x.top_entropy if self.top_entropies else x.entropy
        return restart_law(entropy, self.exponent, self.uniform)

    def restart(self, x: Response, horizon: int, key: Key) -> Choose:
        """Asks for the position to restart from: by lambda, within the response."""
        return Choose(key, self.restarts(x))

    def draft(self, x: Response, m: int, until: int, key: Key, context: Context) -> Extend:
        return self.suffix_move.draft(x, m, until, key, context)

    def move(self, x: Response, m: int, horizon: int, k: int, n: int, context: Context) -> Moving:
        """Accepts x' with probability min(1, [p(x')^alpha q(x | x') lambda'(m)] / [p(x)^alpha q(x' | x)
        lambda(m)])."""
        if self.within_response:
            return (yield from self.official(x, m, k, n, context))
        move, here = self.suffix_move, math.log(self.restarts(x)[m])
        proposal = yield from move.propose(x, m, horizon, (k, n), context, offset=here)
        y = yield proposal.request
        whole = y.finish_reason is not FinishReason.FLOOR
        gain = self.log_restart(x.then(y, keep=m), m) if whole else 0.0
        return move.judge(x, proposal, y, k, gain=gain)

    def official(self, x: Response, m: int, k: int, n: int, context: Context) -> Moving:
        """The same with proposals within the response, to whose length the current suffix's terms are cut."""
        y = yield self.draft(x, m, len(x), ("propose", k, n), context)
        gain = weight(y, self.alpha) + self.log_restart(x.then(y, keep=m), m)
        offset = weight(x, self.alpha, m, m + len(y.tokens)) + self.log_restart(x, m)
        accepted = (yield LogUniform(("accept", k, n))) + offset <= gain
        step = Step(k, m, x.total, sum(x.logp[:m]) + sum(y.logp), len(y.tokens), accepted)
        return (x.then(y, keep=m) if accepted else x), step

    def log_restart(self, x: Response, m: int) -> float:
        """Log of the probability of a restart at m, nats."""
        chance = self.restarts(x)[m]
        return math.log(chance) if chance else -math.inf
