"""Parallel tempering for p(x)^alpha (PPT, arXiv 2609.38104): replicas at rising powers that exchange states.

Block by block as Algorithm 1: K replicas, at alpha_1 < ... < alpha_K = alpha, are extended to the block's
horizon; a step is a suffix move of each (`power`'s, at its own alpha and temperature), then exchanges between
neighbours. The top rung is returned. Law: each step leaves the product of the rungs' p^alpha_k invariant, so
the top rung tends to what `power` tends to; for K = 1 it is `power`. Cost, tokens decoded per response token:
at most K * N_MCMC * T / (4 B), and what scoring costs.

A move needs log q of the current suffix at its rung's temperature; after an exchange `replicas.scored` finds
it, at the cost of one token per position. The paper's ladder and number of steps are not known to us.
"""

import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from powerbench.errors import require, require_integer
from powerbench.samplers.blockwise import Blocks, SuffixMove
from powerbench.samplers.common import Response, together
from powerbench.samplers.population import record, recorded
from powerbench.samplers.replicas import Replica, extended, scored
from powerbench.types import Chain, Choose, Context, LogUniform, Request, Round, Save, Step


@dataclass(frozen=True)
class ParallelTempering(Blocks):
    """Settings as in `power`, with `steps` of all replicas in each block, and:

    alphas: the ladder, rising to alpha; None: `replicas` rungs from 1 to alpha, each the same multiple of
        the one below.
    proposal_temperature: the top rung's, None for 1/alpha; the others have 1/alpha_k.
    """

    replicas: int = 4
    alphas: Sequence[float] | None = None
    early_rejection: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        require_integer("sampler.replicas", self.replicas, 1)
        require(
            all(a < b for a, b in pairwise((0.0, *self.ladder)))
            and self.ladder[-1:] == (self.alpha,),
            f"sampler.alphas must rise from above 0 to sampler.alpha={self.alpha}, got {list(self.ladder)}",
        )

    @property
    def ladder(self) -> tuple[float, ...]:
        """alpha_1 ... alpha_K."""
        if self.alphas is not None:
            return tuple(self.alphas)
        below = range(self.replicas - 1)
        return *(self.alpha ** (k / (self.replicas - 1)) for k in below), self.alpha

    @property
    def moves(self) -> tuple[SuffixMove, ...]:
        """The suffix move of each rung."""
        *below, top = (SuffixMove(a, 1 / a, self.top_k, self.early_rejection) for a in self.ladder)
        return *below, top._replace(tau=self.proposal_temperature or top.tau)

    def chain(self, context: Context, state: Mapping[str, Any] | None = None) -> Chain:
        """All rungs block by block, from their start or from a saved state."""
        first, replicas = 0, [Replica(r) for r in range(len(self.ladder))]
        steps, rounds = list[Step](), list[Round]()
        if state is not None:
            first, steps = state["block"], [Step(*each) for each in state["steps"]]
            replicas = [Replica(r, Response.of_state(x), at) for r, x, at in state["replicas"]]
            rounds = recorded(state["exchanges"])
        for k in range(first, self.blocks):
            horizon = self.horizon(k)
            replicas = yield from extended(replicas, self.moves, horizon, k, context)
            for n in range(self.steps):
                replicas, step = yield from self.move(replicas, horizon, k, n, context)
                replicas, exchanges = yield from self.exchange(replicas, k, n)
                steps.append(step)
                rounds += exchanges
            if replicas[-1].x.finished and self.stop_at_eos:
                break
            rungs = [(sequence, x.state(), since) for sequence, x, since in replicas]
            saved = {"replicas": rungs, "steps": [*steps], "exchanges": [*rounds]}
            yield Save({"block": k + 1, **saved})
        return replicas[-1].x.outcome(steps, rounds)

    def move(
        self, replicas: list[Replica], horizon: int, k: int, n: int, context: Context
    ) -> Generator[Request, Any, tuple[list[Replica], Step]]:
        """In step n of block k, a suffix move of each replica. Returns them, and the top one's record."""
        restarts = []
        for r in range(len(replicas)):
            restarts.append((yield Choose(("restart", k, n, r), (1 / horizon,) * horizon)))
        replicas = yield from scored(replicas, self.moves, restarts, (k, n), context)
        steps, proposals = [], {}
        for r, (m, (sequence, x, _)) in enumerate(zip(restarts, replicas, strict=True)):
            steps.append(Step(k, m, x.total, None, 0, False))
            if m < len(x):
                key = k, n, r
                proposals[r] = yield from self.moves[r].propose(
                    x, m, horizon, key, context, sequence
                )
        draws = yield from together({r: each.request for r, each in proposals.items()})
        for r, y in draws.items():
            x, steps[r] = self.moves[r].judge(replicas[r].x, proposals[r], y, k)
            replicas[r] = replicas[r]._replace(x=x)
        return replicas, steps[-1]

    def exchange(
        self, replicas: list[Replica], k: int, n: int
    ) -> Generator[Request, Any, tuple[list[Replica], list[Round]]]:
        """In step n of block k, exchanges of neighbours: the even pairs and the odd ones in turn.

        The chance is min(1, exp((alpha_r+1 - alpha_r) (log p(x_r) - log p(x_r+1)))). Returns
        the replicas, and a round for the top pair: two candidates for the top rung, weighted by their chances.
        """
        replicas, rounds = list(replicas), []
        for r in range(n % 2, len(replicas) - 1, 2):
            below, above = replicas[r : r + 2]
            gap = self.ladder[r + 1] - self.ladder[r]
            log_u = yield LogUniform(("exchange", k, n, r))
            accepted = log_u + gap * above.x.total <= gap * below.x.total
            if accepted and below.x.tokens != above.x.tokens:
                replicas[r : r + 2] = (
                    above._replace(scored=len(above.x)),
                    below._replace(scored=len(below.x)),
                )
            if r + 2 == len(replicas):
                chance = math.exp(min(0.0, gap * (below.x.total - above.x.total)))
                pair, kept = (below.x, above.x), (0 if accepted else 1,)
                rounds.append(record(k, 0, pair, (chance, 1 - chance), kept))
        return replicas, rounds
