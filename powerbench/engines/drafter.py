"""Drafts: tokens that a response may go on with, verified in one pass instead of decoded one by one.

A token is the inverse CDF of q at a uniform that is known beforehand. One pass over a draft gives q after each
of its tokens; as long as the tokens that are really drawn equal the drafted ones, they are those that single
passes would have drawn, and the first that differs is a right draw too. No draft changes a sample.

How long drafts are, a pass decides by what it costs: the drafted tokens likeliest to be right are computed, as
long as that gives more tokens a second.
"""

from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from powerbench.engines.lookup import ORDERS, Guess, Kind, PromptIndex, Seen
from powerbench.types import Extend, Tokens

MOST = 32
"""Tokens of a draft, at most, where the number is not set."""

CAPS = (0, 1, 2, 3, 4, 6, 8, 12, 16, MOST)
"""Lengths at which drafts are cut, the best of which is taken: one long draft widens all rows' attention."""

IDLE_PROMPTS = 32
"""Prompts whose chains are over: so many are remembered, for more replicates may come."""

PRIOR = 8.0
"""As many guesses count for what is known of a kind elsewhere, beside those that were seen."""


@dataclass(frozen=True)
class PassTimes:
    """How long a forward pass takes by the number of its rows, in any unit: linear between those measured."""

    rows: tuple[int, ...]
    """At least two, ascending."""
    times: tuple[float, ...]
    padding: float = 0.0
    """What a place costs that attention computes in vain, since other rows have longer drafts: as a share of
    the last rows' time."""

    @property
    def slope(self) -> float:
        """The time of one of the last rows."""
        (before, last), (less, most) = self.rows[-2:], self.times[-2:]
        return max(0.0, most - less) / (last - before)

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """[N] -> [N]; beyond the last as between the last two."""
        beyond = np.maximum(rows - self.rows[-1], 0) * self.slope
        return np.interp(rows, self.rows, np.maximum.accumulate(self.times)) + beyond


class Hits:
    """How often guesses of each kind were right."""

    def __init__(self) -> None:
        self.right: Counter[Kind] = Counter()
        self.tried: Counter[Kind] = Counter()

    def count(self, kind: Kind, right: bool) -> None:
        self.tried[kind] += 1
        self.right[kind] += right

    def chance(self, kind: Kind, prior: float) -> float:
        return (self.right[kind] + PRIOR * prior) / (self.tried[kind] + PRIOR)


@dataclass
class Family:
    """The chains that share a prompt: what they drew, and how often guesses from that were right."""

    index: PromptIndex = field(default_factory=PromptIndex)
    hits: Hits = field(default_factory=Hits)
    chains: set[int] = field(default_factory=set)


@dataclass
class Writing:
    """A request that decodes: where it stands, and what is drafted for it."""

    family: Family
    context: list[int]
    """The last tokens, up to the longest context."""
    position: int
    """Of the next token in the response."""
    request: Extend
    uniforms: np.ndarray
    draft: list[Guess] = field(default_factory=list)
    """What the pass at work computes."""
    saved: int = 0
    """Passes fewer than tokens."""
    rejected: int = 0
    """Drafted tokens that were computed in vain."""


class PassCounts(NamedTuple):
    """As of `Draw`."""

    passes: int
    rows: int


def pass_counts(writing: Writing | None, tokens: int) -> PassCounts:
    """In how many passes so many tokens were decoded, and of how many rows."""
    if writing is None:
        return PassCounts(tokens, tokens)
    return PassCounts(tokens - writing.saved, tokens + writing.rejected)


class Drafter:
    """Drafts for the requests of one engine.

    most: tokens of a draft, at most.
    times: what a pass costs, by which drafts are shortened; None: they are as long as they can be.
    widths: the numbers of tokens a row that a pass may have, ascending, where all rows have the same; empty:
        any.
    """

    def __init__(
        self, most: int, times: PassTimes | None = None, widths: Sequence[int] = ()
    ) -> None:
        self.most, self.times, self.widths = most, times, widths
        self.families: OrderedDict[Tokens, Family] = OrderedDict()
        """By prompt; those used last come last."""
        self.hits = Hits()

    def begin(self, chain: int, prompt: Tokens, request: Extend, uniforms: np.ndarray) -> Writing:
        """A request begins to decode, or begins again."""
        family = self.families.get(prompt)
        if family is None:
            family = self.families[prompt] = Family()
            family.index.add_text(prompt)
        self.families.move_to_end(prompt)
        if chain not in family.chains:
            family.chains.add(chain)
            if request.response:  # drawn before this engine was
                family.index.add_text((*prompt[-ORDERS[0] :], *request.response))
        known = (*prompt, *request.prefix)
        return Writing(family, [*known[-ORDERS[0] :]], request.keep, request, uniforms)

    def forget(self, chain: int) -> None:
        """A chain is over."""
        idle = []
        for prompt, family in self.families.items():
            family.chains.discard(chain)
            if not family.chains:
                idle.append(prompt)
        for prompt in idle[: max(0, len(idle) - IDLE_PROMPTS)]:
            del self.families[prompt]

    def draft(self, writings: Sequence[Writing]) -> list[Tokens]:
        """What the next pass computes for each of these beside its last token."""
        guesses, chances = [], []
        least = self._least(len(writings))
        for writing in writings:
            own, likely = self._guess(writing, least)
            guesses.append(own)
            chances.append(likely)
        lengths = [len(own) for own in guesses]
        if self.times is not None:
            lengths = best_lengths(chances, self.times, self.widths)
        for writing, own, length in zip(writings, guesses, lengths, strict=True):
            writing.draft = own[:length]
        return [tuple(guess.token for guess in writing.draft) for writing in writings]

    def take(self, writing: Writing, tokens: Sequence[int], logq: Sequence[float]) -> None:
        """Tokens were drawn: learn from them. logq: nats."""
        for guess, token in zip(writing.draft, tokens, strict=False):
            right = guess.token == token
            self.hits.count(guess.kind, right)
            writing.family.hits.count(guess.kind, right)
            if not right:
                break
        if writing.draft:
            writing.saved += len(tokens) - 1
            writing.rejected += 1 + len(writing.draft) - len(tokens)
            writing.draft = []
        for token, q in zip(tokens, np.exp(logq).tolist(), strict=True):
            u = float(writing.uniforms[writing.position])
            writing.family.index.add(writing.context, Seen(token, q, u))
            _append(writing.context, token)
            writing.position += 1

    def _guess(self, writing: Writing, least: float) -> tuple[list[Guess], list[float]]:
        """The longest draft, and for each of its tokens the chance that all up to it are right."""
        guesses: list[Guess] = []
        chances: list[float] = []
        family, context, chance = writing.family, [*writing.context], 1.0
        for i in range(min(self.most, writing.request.until - 1 - writing.position)):
            guess = family.index.guess(context, float(writing.uniforms[writing.position + i]))
            if guess is None or guess.token in writing.request.stop_tokens:
                break
            known = self.hits.chance(guess.kind, guess.chance)
            chance *= family.hits.chance(guess.kind, known)
            if chance < least:
                break
            guesses.append(guess)
            chances.append(chance)
            _append(context, guess.token)
        return guesses, chances

    def _least(self, rows: int) -> float:
        """No token that is less likely to be drawn is worth computing beside so many rows; above 1, none is."""
        if self.times is None:
            return 0.0
        more = rows + np.arange(1, rows * self.most + 1)
        now, then = self.times(np.array([rows]))[0], self.times(more)
        return float(((then / now - 1) * rows / (more - rows)).min())


def best_lengths(
    chances: Sequence[Sequence[float]], times: PassTimes, widths: Sequence[int] = ()
) -> list[int]:
    """How much of each draft a pass should compute, for the most tokens in its time.

    chances: for each row, that its draft is right up to each of its tokens: they fall. widths: as of `Drafter`.
    """
    rows = len(chances)
    if widths:
        expected = [rows + sum(sum(own[: width - 1]) for own in chances) for width in widths]
        rates = np.array(expected) / times(rows * np.array(widths))
        width = widths[int(rates.argmax())]
        return [min(len(own), width - 1) for own in chances]
    ways = (_likeliest(chances, times, most) for most in CAPS)
    return max(ways, key=lambda way: way.rate).lengths


class _Way(NamedTuple):
    lengths: list[int]
    rate: float
    """Expected tokens in a pass's time."""


def _likeliest(chances: Sequence[Sequence[float]], times: PassTimes, most: int) -> _Way:
    """The best choice among drafts of up to `most` tokens."""
    rows = len(chances)
    likeliest = np.sort([chance for own in chances for chance in own[:most]])[::-1]
    expected = rows + np.concatenate(([0.0], np.cumsum(likeliest)))
    count = int((expected / times(rows + np.arange(len(expected)))).argmax())
    least = likeliest[count - 1] if count else np.inf
    lengths = [sum(chance >= least for chance in own[:most]) for own in chances]
    computed = rows + sum(lengths)
    padded = rows * (1 + max(lengths)) - computed
    seconds = times(np.array([computed]))[0] + times.padding * times.slope * padded
    return _Way(lengths, float(expected[count] / seconds))


def _append(context: list[int], token: int) -> None:
    context.append(token)
    if len(context) > ORDERS[0]:
        del context[0]
