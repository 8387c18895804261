"""Replica exchange over prefix length for p(x)^alpha (after He et al., "Recipes", arXiv 2608.26120): replicas
hold prefixes of rising length, and neighbours exchange by extending the shorter and cutting the longer.

K replicas, one for the horizon of each block, hold responses of at most k * B tokens. A step is a suffix move
of each (`power`'s, restarting anywhere in its horizon), then exchanges of the even pairs and the odd ones in
turn: of x, at most l tokens long, and the longer y, the longer becomes x and new tokens c, the shorter the
first l tokens of y, with probability min(1, w(c) / w(y beyond l)), w = p^alpha / q. All that precedes l
cancels. The longest is returned. Law: each step leaves the product of p^alpha on the K horizons invariant, so
the longest tends to p^alpha; for K = 1 a step is `power`'s. Cost, tokens decoded per response token: about N (K
+ 1) / 4 + N / 2 for N steps, as `power`, since all horizons are worked on at once; K requests at once.

Same as published, as far as its abstract tells: one alpha, replicas of several lengths, a chunk as what is
exchanged. Ours, as the rest is not known to us: chunks of a block, the order of moves and exchanges, and the
start, where all replicas are prefixes of one draft.
"""

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any

from powerbench.samplers.blockwise import Blocks, Proposal, SuffixMove
from powerbench.samplers.common import Response, together, weight
from powerbench.types import Chain, Choose, Context, Extend, FinishReason, Request, Save, Step

Moved = Generator[Request, Any, tuple[list[Response], list[Step]]]
"""Part of a step: the replicas after it, the shortest first, and the records of what concerns the longest."""


def cut(x: Response, length: int) -> Response:
    """The first tokens of x, as a chain with this horizon holds them."""
    return x if len(x) <= length else x.upto(length)


@dataclass(frozen=True)
class PrefixExchange(Blocks):
    """Settings as in `power`, but that all `steps` are made of all blocks' horizons together."""

    early_rejection: bool = True
    stop_at_eos: bool = field(
        default=False, init=False
    )  # a response that has ended may be opened again

    @property
    def suffix_move(self) -> SuffixMove:
        return SuffixMove(self.alpha, self.tau, self.top_k, self.early_rejection)

    def chain(self, context: Context, state: Mapping[str, Any] | None = None) -> Chain:
        """All steps, from a draft or from a saved state."""
        if state is None:
            x = Response()
            ask = self.suffix_move.draft(x, 0, self.max_tokens, ("draft",), context)
            x = x.then((yield ask))
            first, steps = 0, list[Step]()
            xs = [cut(x, self.horizon(r)) for r in range(self.blocks)]
        else:
            first, steps = state["step"], [Step(*each) for each in state["steps"]]
            xs = [Response.of_state(x) for x in state["replicas"]]
        for n in range(first, self.steps):
            xs, moved = yield from self.move(xs, n, context)
            xs, exchanged = yield from self.exchange(xs, n, context)
            steps += [*moved, *exchanged]
            saved = {"replicas": [x.state() for x in xs], "steps": [*steps]}
            yield Save({"step": n + 1, **saved})
        return xs[-1].outcome(steps, members=xs)

    def move(self, xs: list[Response], n: int, context: Context) -> Moved:
        """In step n, a suffix move of each replica on its own horizon."""
        xs, top, proposals = list(xs), len(xs) - 1, dict[int, Proposal]()
        for r, x in enumerate(xs):
            horizon = self.horizon(r)
            m = yield Choose(("restart", n, r), (1 / horizon,) * horizon)
            if m < len(x):
                key = "move", n, r
                proposals[r] = yield from self.suffix_move.propose(x, m, horizon, key, context, r)
            elif r == top:
                stayed = Step(top, m, x.total, None, 0, False)
        draws = yield from together({r: each.request for r, each in proposals.items()})
        for r, y in draws.items():
            xs[r], step = self.suffix_move.judge(xs[r], proposals[r], y, r)
            if r == top:
                stayed = step
        return xs, [stayed]

    def exchange(self, xs: list[Response], n: int, context: Context) -> Moved:
        """In step n, exchanges of neighbouring lengths: the even pairs or the odd ones."""
        xs, proposals, asked = list(xs), dict[int, Proposal](), dict[int, Extend]()
        for r in range(n % 2, len(xs) - 1, 2):
            x, offset = xs[r], weight(xs[r + 1], self.alpha, start=self.horizon(r))
            key, until = ("exchange", n, r), self.horizon(r + 1)
            proposals[r] = yield from self.suffix_move.propose(
                x, len(x), until, key, context, r, offset=offset
            )
            if not x.finished:
                asked[r] = proposals[r].request
        draws, steps = (yield from together(asked)), list[Step]()
        for r, proposal in proposals.items():
            x, y = xs[r : r + 2]
            c, current = draws.get(r), y.total
            gain = weight(c, self.alpha) if c is not None else 0.0
            fell = c is not None and c.finish_reason is FinishReason.FLOOR
            accepted = not fell and proposal.threshold <= gain
            longer = x if c is None else x.then(c)
            if accepted:
                xs[r : r + 2] = cut(y, self.horizon(r)), longer
            if r + 2 == len(xs):
                decoded = len(c.tokens) if c is not None else 0
                proposed = None if fell else longer.total
                steps.append(Step(r + 1, len(x), current, proposed, decoded, accepted))
        return xs, steps
