"""What may be drawn after some tokens, looked up in what was drawn for the same prompt before.

The uniforms tell more than how often a token came. One that was drawn here at u, with probability q, has an
interval of the CDF that holds u and is q long: so it is the draw at another uniform with a chance that
follows from both (`chance_of_same`). At the same uniform it is 1: what is drawn again, is known.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

ORDERS = (16, 8, 4, 2)
"""Lengths of the contexts that are looked up, in tokens: the longest that is known decides."""

REMEMBERED = 12
"""The latest draws of one context that are kept."""

GENERATION = 4096
"""Tokens of one prompt's responses that are indexed together; of two such generations the older goes."""

BINS = (0.3, 0.6, 0.8, 0.9, 0.97, 0.995)
"""Between these, chances are counted together, to learn how often such guesses are right."""

TEXT_CHANCE = 0.5
"""Of a token that is known from text, as the prompt is, rather than from a draw."""


class Seen(NamedTuple):
    """One draw: a token, its probability under q, and the uniform that it came from; nan for mere text."""

    token: int
    q: float
    u: float


class Kind(NamedTuple):
    """Guesses that are counted together."""

    order: int
    """Index in `ORDERS`."""
    bin: int
    """Of the chance; -1 for text."""


class Guess(NamedTuple):
    """A token that may come next, and its chance by the uniforms alone."""

    token: int
    chance: float
    kind: Kind


def chance_of_same(q: float, before: float, now: float) -> float:
    """The chance, in [0, 1], that the uniform `now` draws the token that `before` drew with probability q.

    The token's interval [low, low + q) of the CDF holds `before` and lies within [0, 1]: low is taken as
    uniform among what that allows.
    """
    lowest, highest = max(0.0, before - q), min(before, 1.0 - q)
    if highest <= lowest:
        return float(lowest <= now < lowest + q)
    overlap = min(highest, now) - max(lowest, now - q)
    return min(1.0, max(0.0, overlap / (highest - lowest)))


class PromptIndex:
    """The draws after each context, of all responses to one prompt. Adding one takes constant time."""

    def __init__(self) -> None:
        self._new: dict[int, list[Seen]] = {}
        self._old: dict[int, list[Seen]] = {}
        self._count = 0

    def add(self, context: Sequence[int], seen: Seen) -> None:
        """What was drawn after these tokens."""
        if self._count >= GENERATION:
            self._old, self._new, self._count = self._new, {}, 0
        self._count += 1
        for order in ORDERS:
            if len(context) >= order:
                draws = self._new.setdefault(_name(context, order), [])
                draws.append(seen)
                if len(draws) > REMEMBERED:
                    del draws[0]

    def add_text(self, tokens: Sequence[int]) -> None:
        """Tokens whose uniforms are not known."""
        longest = ORDERS[0]
        for i in range(1, len(tokens)):
            self.add(tokens[max(0, i - longest) : i], Seen(tokens[i], np.nan, np.nan))

    def size(self) -> int:
        """How many contexts are known."""
        return len(self._new) + len(self._old)

    def guess(self, context: Sequence[int], u: float) -> Guess | None:
        """What may be drawn at u after these tokens; None if nothing was."""
        for i, order in enumerate(ORDERS):
            if len(context) >= order:
                name = _name(context, order)
                draws = self._new.get(name) or self._old.get(name)
                if draws:
                    return _best(i, draws, u)
        return None


def _best(order: int, draws: Sequence[Seen], u: float) -> Guess:
    """The likeliest of these at u: draws before text, later ones before earlier."""
    chance, token = -1.0, -1
    for seen in reversed(draws):
        if seen.q == seen.q:  # not nan
            own = chance_of_same(seen.q, seen.u, u)
            if own > chance:
                chance, token = own, seen.token
    if token < 0:
        return Guess(draws[-1].token, TEXT_CHANCE, Kind(order, -1))
    return Guess(token, chance, Kind(order, int(np.searchsorted(BINS, chance, side="right"))))


def _name(context: Sequence[int], order: int) -> int:
    """Contexts whose hashes are equal share their draws: a guess may be wrong in any case."""
    return hash((order, *context[-order:]))
