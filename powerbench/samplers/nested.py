"""Chains of a sampler run side by side inside the chain of another one, which searches for an exponent."""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from statistics import fmean, pstdev
from typing import Any, NamedTuple

from powerbench.samplers.common import together
from powerbench.samplers.population import recorded
from powerbench.types import (
    Chain,
    Choose,
    Draw,
    Extend,
    FinishReason,
    LogUniform,
    Outcome,
    Request,
    Round,
    Save,
)


def side_by_side(chains: Mapping[int, Chain]) -> Generator[Request, Any, dict[int, Outcome]]:
    """What these chains return, by their numbers. Those that still run are decoded together, a draw each.

    A chain's number precedes its keys, and names its response in the engine's cache. It asks for one draw at a
    time; what it saves is not kept.
    """
    running, draws = dict(chains), dict[int, Draw]()
    outcomes: dict[int, Outcome] = {}
    while running:
        asked: dict[int, Extend] = {}
        for i, chain in running.items():
            found = yield from _up_to_a_draw(i, chain, draws.get(i))
            if isinstance(found, Extend):
                asked[i] = found
            else:
                outcomes[i] = found
        draws = yield from together(asked)
        running = {i: running[i] for i in asked}
    return outcomes


def _up_to_a_draw(
    i: int, chain: Chain, draw: Draw | None
) -> Generator[Request, Any, Extend | Outcome]:
    """The next draw that the chain asks for, or what it returns."""
    answer: Any = draw
    while True:
        try:
            request = chain.send(answer)
        except StopIteration as end:
            outcome: Outcome = end.value
            return outcome
        if isinstance(request, Extend):
            return replace(request, key=(i, *request.key), sequence=i)
        answer = None
        if isinstance(request, LogUniform | Choose):
            answer = yield replace(request, key=(i, *request.key))


def gradient(v: Sequence[float], logp: Sequence[float]) -> float:
    """g: the covariance of v with log p, over the standard deviation of log p."""
    spread, mean_v, mean_logp = pstdev(logp), fmean(v), fmean(logp)
    if spread == 0:
        return 0.0
    return fmean((a - mean_v) * (b - mean_logp) / spread for a, b in zip(v, logp, strict=True))


class Search(NamedTuple):
    """A search over exponents between two batches of chains."""

    alpha: float
    """The next batch's."""
    best: float
    """The last one that was kept."""
    drawn: tuple[tuple[float, Outcome], ...] = ()
    """Every chain's exponent, and what it returned; without steps in a saved state, as its batch is judged."""
    rounds: tuple[Round, ...] = ()
    done: bool = False

    @property
    def spent(self) -> int:
        """Chains so far."""
        return len(self.drawn)

    def at(self, alpha: float) -> list[Outcome]:
        """What the chains at this exponent have returned."""
        return [outcome for own, outcome in self.drawn if own == alpha]

    def adding(self, alpha: float, outcomes: Sequence[Outcome]) -> "Search":
        """With what a batch at this exponent has returned."""
        return self._replace(drawn=(*self.drawn, *((alpha, each) for each in outcomes)))

    def saved(self) -> Save:
        """As plain data, without steps."""
        drawn = [(a, x.tokens, x.logp, x.entropy, x.finish_reason.value) for a, x in self.drawn]
        return Save({**self._asdict(), "drawn": drawn, "rounds": [*self.rounds]})

    @classmethod
    def of_state(cls, state: Mapping[str, Any]) -> "Search":
        """The inverse of `saved`."""
        drawn = tuple(
            (alpha, Outcome(tuple(tokens), logp, entropy, FinishReason(reason)))
            for alpha, tokens, logp, entropy, reason in state["drawn"]
        )
        return cls(**{**state, "drawn": drawn, "rounds": tuple(recorded(state["rounds"]))})
