"""Parallel tempering for p(x)^alpha (PPT, arXiv 2609.38104): replicas at rising powers that exchange states.

Block by block as Algorithm 1: K replicas, at alpha_1 < ... < alpha_K = alpha, are extended to the block's
horizon; a step is a suffix move of each (`power`'s, at its own alpha and temperature), then a sweep of
exchanges between neighbours. The top rung is returned. Law: each step leaves the product of the rungs'
p^alpha_k invariant, so the top rung tends to p^alpha; for K = 1 it is `power`. Cost, tokens decoded per
response token: at most K * N_MCMC * T / (4 B), and no early stop. An exchange decodes nothing: a draw brings
the log-normalisers of all rungs (its appendix B.1), from which log q at a new rung's temperature follows.

Same as published: fixed horizons, all blocks of which are run (a response that has ended may be opened again);
exchanges (1, 2), (2, 3) ... in order, each committed before the next; one move and one sweep a step; the chance
of an exchange (Eq. 11). Differs: the ladder, by default K = 4 rungs by equal ratios from 1 to alpha, as the
paper prints none for the models here; those that it prints are `ladder=<model>_<task>`. The paper tunes the
inner rungs to equal acceptance (Remark 3.2): the report of a run, which serves as the pilot, names the ladder
that would equalise its acceptances, to be set as `sampler.alphas` of the runs that count.
"""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from powerbench.errors import require, require_integer
from powerbench.samplers.blockwise import Blocks, SuffixMove
from powerbench.samplers.common import Response, together
from powerbench.samplers.population import recorded
from powerbench.samplers.replicas import Replica, exchanged, extended, with_normalisers
from powerbench.types import Chain, Choose, Context, Request, Round, Save, Step

SCHEDULES = ("ordered", "even_odd")


@dataclass(frozen=True)
class ParallelTempering(Blocks):
    """Settings as in `power`, with `steps` of all replicas in each block, and:

    alphas: the ladder, rising to alpha; None: `replicas` rungs from 1 to alpha, each the same multiple of
        the one below.
    schedule: ordered: all neighbouring pairs from below, one after the other; even_odd: the even pairs and the
        odd ones in turn (the paper's ablation "DEO").
    proposal_temperature: the top rung's, None for 1/alpha; the others have 1/alpha_k.
    """

    replicas: int = 4
    alphas: Sequence[float] | None = None
    schedule: str = "ordered"
    early_rejection: bool = True
    stop_at_eos: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require_integer("sampler.replicas", self.replicas, 1)
        require(
            all(a < b for a, b in pairwise((0.0, *self.ladder)))
            and self.ladder[-1:] == (self.alpha,),
            f"sampler.alphas must rise from above 0 to sampler.alpha={self.alpha}, got {list(self.ladder)}",
        )
        require(
            self.schedule in SCHEDULES,
            f"sampler.schedule must be one of {', '.join(SCHEDULES)}, got {self.schedule!r}",
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
        top = top._replace(tau=self.proposal_temperature or top.tau)
        return with_normalisers((*below, top))

    def chain(self, context: Context, state: Mapping[str, Any] | None = None) -> Chain:
        """All rungs block by block, from their start or from a saved state."""
        first, replicas = 0, [Replica(r) for r in range(len(self.ladder))]
        steps, rounds = list[Step](), list[Round]()
        if state is not None:
            first, steps = state["block"], [Step(*each) for each in state["steps"]]
            replicas = [Replica(r, Response.of_state(x)) for r, x in state["replicas"]]
            rounds = recorded(state["exchanges"])
        for k in range(first, self.blocks):
            horizon = self.horizon(k)
            replicas = yield from extended(replicas, self.moves, horizon, k, context)
            for n in range(self.steps):
                replicas, step = yield from self.move(replicas, horizon, k, n, context)
                replicas, sweep = yield from self.exchange(replicas, k, n)
                steps.append(step)
                rounds += sweep
            if replicas[-1].x.finished and self.stop_at_eos:
                break
            rungs = [(sequence, x.state()) for sequence, x in replicas]
            saved = {"replicas": rungs, "steps": [*steps], "exchanges": [*rounds]}
            yield Save({"block": k + 1, **saved})
        return replicas[-1].x.outcome(steps, rounds, (each.x for each in replicas))

    def move(
        self, replicas: list[Replica], horizon: int, k: int, n: int, context: Context
    ) -> Generator[Request, Any, tuple[list[Replica], Step]]:
        """In step n of block k, a suffix move of each replica. Returns them, and the top one's record."""
        replicas, steps, proposals = list(replicas), [], {}
        for r, (sequence, x) in enumerate(replicas):
            m = yield Choose(("restart", k, n, r), (1 / horizon,) * horizon)
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
        """In step n of block k, a sweep of exchanges between neighbours; none where there is one rung."""
        last = len(replicas) - 1
        pairs = range(last) if self.schedule == "ordered" else range(n % 2, last, 2)
        return (yield from exchanged(replicas, self.ladder, self.moves, pairs, k, n))
