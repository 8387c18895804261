"""Responses on the rungs of a ladder of powers: extended together, and moved from rung to rung for nothing."""

import math
from collections.abc import Generator, Iterable, Sequence
from typing import Any, NamedTuple

from powerbench.samplers.blockwise import SuffixMove
from powerbench.samplers.common import Response, together
from powerbench.samplers.population import record
from powerbench.types import Context, LogUniform, Request, Round


class Replica(NamedTuple):
    """A response on a rung, with that rung's log q, and the log-normalisers of all rungs."""

    sequence: int
    """Which of the chain's responses it is: the number goes with the response from rung to rung."""
    x: Response = Response()

    def on(self, r: int, moves: Sequence[SuffixMove]) -> "Replica":
        """The same response on rung r: log q follows from log p and the log-normalisers (PPT, appendix B.1)."""
        return self._replace(x=self.x.proposed_at(moves[r].tau, r))


def with_normalisers(moves: Sequence[SuffixMove]) -> tuple[SuffixMove, ...]:
    """The same moves, each of which asks for the log-normalisers of all, in their order."""
    exponents = tuple(1 / move.tau for move in moves)
    return tuple(move._replace(exponents=exponents) for move in moves)


def extended(
    replicas: Sequence[Replica],
    moves: Sequence[SuffixMove],
    horizon: int,
    k: int,
    context: Context,
) -> Generator[Request, Any, list[Replica]]:
    """Every response that is not finished, drawn on to the horizon at its rung's temperature."""
    asked = {
        r: move.draft(x, len(x), horizon, ("extend", k, r), context, sequence)
        for r, ((sequence, x), move) in enumerate(zip(replicas, moves, strict=True))
        if not x.finished
    }
    longer = list(replicas)
    for r, draw in (yield from together(asked)).items():
        longer[r] = longer[r]._replace(x=longer[r].x.then(draw))
    return longer


def exchanged(
    replicas: Sequence[Replica],
    ladder: Sequence[float],
    moves: Sequence[SuffixMove],
    pairs: Iterable[int],
    k: int,
    n: int,
) -> Generator[Request, Any, tuple[list[Replica], list[Round]]]:
    """In step n of block k, tries to exchange the responses of rungs r and r + 1, for each r of `pairs`.

    The chance is min(1, exp((alpha_r+1 - alpha_r) (log p(x_r) - log p(x_r+1)))). Returns the replicas and, for
    more than one, a round: the rungs' responses before, each rung's chance of its exchange with the next (0
    where it was not tried), and the rung from which each rung's response has come.
    """
    after, chances, origin = list(replicas), [0.0] * len(replicas), list(range(len(replicas)))
    for r in pairs:
        below, above = after[r : r + 2]
        log_chance = (ladder[r + 1] - ladder[r]) * (below.x.total - above.x.total)
        chances[r] = math.exp(min(0.0, log_chance))
        if (yield LogUniform(("exchange", k, n, r))) + 0.0 <= log_chance:
            after[r : r + 2] = above.on(r, moves), below.on(r + 1, moves)
            origin[r : r + 2] = origin[r + 1], origin[r]
    if len(replicas) == 1:
        return after, []
    return after, [record(k, 0, [each.x for each in replicas], chances, origin)]
