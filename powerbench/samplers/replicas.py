"""Responses on the rungs of a ladder of powers: extended together, and scored where they have changed rungs."""

from collections.abc import Generator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from powerbench.samplers.blockwise import SuffixMove
from powerbench.samplers.common import Response, together
from powerbench.types import Context, Extend, Key, Request


class Replica(NamedTuple):
    """A response on a rung."""

    sequence: int
    """Which of the chain's responses it is: the number goes with the response from rung to rung."""
    x: Response = Response()
    scored: int = 0
    """From this position on, log q is that of its present rung."""

    def ask(self, keep: int, until: int, move: SuffixMove, key: Key, context: Context) -> Extend:
        """Asks for tokens after the first `keep`, drawn as a move of its rung draws them."""
        drawn = {"tau": move.tau, "top_k": move.top_k}
        return self.x.extend(keep, until, key, context, sequence=self.sequence, **drawn)


def extended(
    replicas: Sequence[Replica],
    moves: Sequence[SuffixMove],
    horizon: int,
    k: int,
    context: Context,
) -> Generator[Request, Any, list[Replica]]:
    """Every response that is not finished, drawn on to the horizon at its rung's temperature."""
    asked = {
        r: each.ask(len(each.x), horizon, moves[r], ("extend", k, r), context)
        for r, each in enumerate(replicas)
        if not each.x.finished
    }
    longer = list(replicas)
    for r, draw in (yield from together(asked)).items():
        longer[r] = longer[r]._replace(x=longer[r].x.then(draw))
    return longer


def scored(
    replicas: Sequence[Replica],
    moves: Sequence[SuffixMove],
    restarts: Sequence[int],
    step: tuple[int, int],
    context: Context,
) -> Generator[Request, Any, list[Replica]]:
    """The same responses, with their rungs' log q from the restarts on.

    After an exchange only log p is known. One token is drawn at each position whose log q is needed, at the
    rung's temperature: log p / tau - log q of it is the log of q's normaliser there. That costs a token a
    position, all at once, and needs nothing special of an engine.
    step: the block and the step, for the keys.
    """
    asked = {
        (r, i): each.ask(i, i + 1, moves[r], ("score", *step, r, i), context)
        for r, (m, each) in enumerate(zip(restarts, replicas, strict=True))
        for i in range(m, each.scored)
    }
    logq = [list(each.x.logq) for each in replicas]
    for (r, i), drawn in (yield from together(asked)).items():
        tau = moves[r].tau
        logq[r][i] = drawn.logq[0] + (replicas[r].x.logp[i] - drawn.logp[0]) / tau
    return [
        each._replace(x=replace(each.x, logq=tuple(q)), scored=min(m, each.scored))
        for each, q, m in zip(replicas, logq, restarts, strict=True)
    ]
