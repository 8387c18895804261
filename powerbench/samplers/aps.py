"""Adaptive Power Sampling (APS, an anonymous submission): the exponent chosen for each problem, and a vote.

Chains of `power` are drawn K at a time. Where the N chains so far at an exponent disagree, g is the mean of
(v_i - mean v) z_i: v_i the share of the other N - 1 that give i's answer (0 if it gives none), z_i its
standardised log p. As d P(right) / d alpha = Cov(right, log p) under p^alpha, and agreement stands in for being
right, alpha moves by eta * g. The search ends where all agree, where |g| or the acceptance is small, or where
fewer than K of n chains are left; these go to the last exponent that was kept. The answer that most chains at
that one give wins, ties by the mean log p of those that give it. Law: none of p^alpha's, it is a vote. Cost,
tokens decoded per response token: n times `power`, so compare it with a vote of as many tokens.

Same as published: the rule; alpha from 4 within 1 to 8; K 4, n 12, eta 2, |g| <= .05, acceptance >= .05; chains
of T 3072, B 192, N_MCMC 10. Differs: g is computed from log p and v as a round records them, to 3 and 4
decimals, so that `exponents` finds the way of a stored sample. Ours, where it is not said: of those that give
the answer the likeliest is returned, and z has the standard deviation over N.
"""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any, ClassVar

from powerbench.errors import require, require_integer
from powerbench.samplers.blockwise import Blockwise, Moving, SuffixMove
from powerbench.samplers.common import MAX_LOGIT_SCALE, Response, known
from powerbench.samplers.nested import Search, gradient, side_by_side
from powerbench.samplers.population import record
from powerbench.samplers.voting import agreement, answers, tally
from powerbench.types import Chain, Context, Request, Round


@dataclass(frozen=True)
class APS(Blockwise):
    """Settings as in `power`, of each chain; alpha is the first exponent.

    n: chains in all; together: K, of a batch; eta: how far alpha moves for a g of 1; epsilon: the largest |g|
    that ends the search; lowest, highest: alpha's bounds; least_acceptance: of a batch's proposals, below which
    its exponent is given up, 0 for never.
    """

    votes: ClassVar[bool] = True

    n: int = 12
    together: int = 4
    eta: float = 2.0
    epsilon: float = 0.05
    lowest: float = 1.0
    highest: float = 8.0
    least_acceptance: float = 0.05
    early_rejection: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        require_integer("sampler.together", self.together, 2)
        require_integer("sampler.n", self.n, self.together)
        most = {"eta": MAX_LOGIT_SCALE, "epsilon": MAX_LOGIT_SCALE, "least_acceptance": 1.0}
        for name, value in most.items():
            given = getattr(self, name)
            require(0 <= given <= value, f"sampler.{name} must be from 0 to {value:g}, got {given}")
        require(
            0 < self.lowest <= self.alpha <= self.highest <= MAX_LOGIT_SCALE,
            f"sampler.alpha={self.alpha} must be from sampler.lowest={self.lowest}, above 0, to "
            f"sampler.highest={self.highest}, at most {MAX_LOGIT_SCALE:g}",
        )

    def chain(self, context: Context, state: Mapping[str, Any] | None = None) -> Chain:
        """Batch by batch, from its start or from a saved state."""
        now = Search(self.alpha, self.lowest) if state is None else Search.of_state(state)
        while not now.done and now.spent + self.together <= self.n:
            now = yield from self.drawn(now, now.alpha, self.together, context)
            now = self.judged(now, context)
            yield now.saved()
        if now.spent < self.n:
            now = yield from self.drawn(now, now.best, self.n - now.spent, context)
        pool = now.at(now.best) or now.at(now.alpha)
        given = answers(context, pool)
        votes, logp = tally(given, [1.0] * len(pool)), known([x.logp for x in pool])
        mean = {a: fmean(p for b, p in zip(given, logp, strict=True) if a == b) for a in votes}
        won = max(votes, key=lambda a: (votes[a], mean[a]), default=None)
        best = max((i for i, a in enumerate(given) if a == won), key=logp.__getitem__)
        voters = [float(a is not None) for a in given]
        rounds = (*now.rounds, record(len(now.rounds), 0, pool, voters, (best,)))
        members = tuple(x.tokens for x in pool)
        return replace(pool[best], steps=(), rounds=rounds, members=members)

    def move(self, x: Response, m: int, horizon: int, k: int, n: int, context: Context) -> Moving:
        """As in `power`."""
        move = SuffixMove(self.alpha, self.tau, self.top_k, self.early_rejection)
        return (yield from move.step(x, m, horizon, k, n, context))

    def drawn(
        self, now: Search, alpha: float, count: int, context: Context
    ) -> Generator[Request, Any, Search]:
        """With `count` chains more, at this exponent."""
        at, numbers = replace(self, alpha=alpha), range(now.spent, now.spent + count)
        chains = {i: Blockwise.chain(at, context) for i in numbers}
        outcomes = yield from side_by_side(chains)
        return now.adding(alpha, [outcomes[i] for i in numbers])

    def judged(self, now: Search, context: Context) -> Search:
        """After a batch at `now.alpha`: whether the search is over, and the next exponent if not. The round has
        all chains so far at this one, and their v; all are kept, or none where it is given up."""
        pool = now.at(now.alpha)
        proposals = [s.accepted for x in pool[-self.together :] for s in x.steps if s.decoded]
        given_up = bool(proposals) and fmean(proposals) < self.least_acceptance
        kept = () if given_up else range(len(pool))
        told = record(len(now.rounds), 0, pool, agreement(answers(context, pool)), kept)
        following = self.following(now.alpha, told)
        best = now.best if given_up else now.alpha
        now = now._replace(best=best, done=following is None, rounds=(*now.rounds, told))
        return now if following is None else now._replace(alpha=following)

    def following(self, alpha: float, told: Round) -> float | None:
        """The next exponent after a round at this one; None where the search is over."""
        v = told.weights
        if not told.kept or min(v) == 1:
            return None
        if min(v) == max(v):
            return alpha
        g = gradient(v, known(told.logp))
        moved = min(max(alpha + self.eta * g, self.lowest), self.highest)
        return None if abs(g) <= self.epsilon or moved == alpha else moved

    def exponents(self, rounds: Sequence[Round]) -> list[float]:
        """Of each batch of a stored sample, whose last round is the vote: its exponent."""
        found = [self.alpha]
        for told in rounds[:-2]:
            found.append(self.following(found[-1], told) or found[-1])
        return found
