"""Power sampling with drafts and proposals started ahead, beside one token a pass: seconds, passes and rows."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import NamedTuple

from powerbench.bench.savings import QUESTIONS, SAMPLER, encoded, run_power
from powerbench.chains.runner import Completed
from powerbench.engines.hf import HFEngine
from powerbench.models import HubModel
from powerbench.types import SampleKey, Tokens


class Way(NamedTuple):
    """How chains are decoded."""

    draft: int | str
    speculate: int


PLAIN = "one token a pass"
WAYS = {
    PLAIN: Way(draft=0, speculate=0),
    "proposals ahead": Way(draft=0, speculate=8),
    "drafts": Way(draft="auto", speculate=0),
    "drafts, proposals ahead": Way(draft="auto", speculate=8),
}


FULL = 32
"""With so many chains, no row is idle."""


@dataclass(frozen=True)
class Decoded:
    """One set of chains, decoded one way."""

    seconds: float
    decoded_per_token: float
    """Tokens decoded, rejected proposals included, per token of the responses."""
    wasted_per_token: float
    """Tokens decoded ahead and thrown away, likewise."""
    passes_per_token: float
    """Decoding passes that a chain took part in, likewise: a plain response has 1."""
    rows_per_decoded: float
    """Rows of these passes per token decoded."""
    tokens: int
    """Of all responses."""
    responses: list[str]
    """A digest of each."""


@dataclass(frozen=True)
class Drafting:
    """All ways of decoding so many chains together."""

    chains: int
    max_tokens: int
    rounds: list[dict[str, Decoded]]

    def speed(self, way: str) -> float:
        """How many times as fast as one token a pass: the median over rounds."""
        return median(each[PLAIN].seconds / each[way].seconds for each in self.rounds)

    def of(self, way: str, name: str) -> float:
        """The median over rounds of a field of `Decoded`."""
        return median(getattr(each[way], name) for each in self.rounds)

    @property
    def same(self) -> float:
        """The share of responses that are the same in all ways; rounding may part a few."""
        every = [
            len(set(responses)) == 1
            for each in self.rounds
            for responses in zip(*(way.responses for way in each.values()), strict=True)
        ]
        return sum(every) / len(every)


def time_drafting(model: HubModel, chains: int, max_tokens: int, repeats: int) -> Drafting:
    """Rounds of all ways, each with the ways in another order: `repeats` of a single chain, and one of several,
    whose work evens out.

    chains: the same question is asked again beyond the eighth. A single chain asks another one in each round;
        many are too busy for proposals ahead.
    """
    rounds, ways = [], [*WAYS] if chains < FULL else [PLAIN, "drafts"]
    for number in range(repeats if chains == 1 else 1):
        order = [*ways[number % len(ways) :], *ways[: number % len(ways)]]
        first = number if chains == 1 else 0
        keys = [
            SampleKey(str((first + i) % len(QUESTIONS)), i // len(QUESTIONS)) for i in range(chains)
        ]
        found = {way: _decoded(model, WAYS[way], keys, max_tokens) for way in order}
        rounds.append({way: found[way] for way in ways})
    return Drafting(chains, max_tokens, rounds)


LONG = {"auto": Way("auto", 8), "16": Way(16, 8)}
"""By engine.draft: as many tokens as make the chains fast, or as many as make their passes few."""


def long_chains(model: HubModel, max_tokens: int) -> dict[str, Decoded]:
    """Eight chains of this length with drafts: what they cost in passes."""
    keys = [SampleKey(str(i), 0) for i in range(len(QUESTIONS))]
    return {draft: _decoded(model, way, keys, max_tokens) for draft, way in LONG.items()}


def _decoded(model: HubModel, way: Way, keys: Sequence[SampleKey], max_tokens: int) -> Decoded:
    """An engine of its own: what one remembers, another does not know."""
    tokenizer = model.tokenizer()
    sampler = replace(SAMPLER, max_tokens=max_tokens)
    width = max(16, len(keys))
    longest = max(map(len, encoded(tokenizer)))
    engine = HFEngine(model, longest, max_tokens, width, draft=way.draft)
    done, seconds = run_power(engine, sampler, tokenizer, keys, way.speculate)
    return _counted(done, seconds)


def _counted(done: Sequence[Completed], seconds: float) -> Decoded:
    tokens = sum(len(each.outcome.tokens) for each in done)
    decoded = sum(each.cost.decoded for each in done)
    return Decoded(
        seconds=seconds,
        decoded_per_token=decoded / tokens,
        wasted_per_token=sum(each.cost.speculated for each in done) / tokens,
        passes_per_token=sum(each.cost.passes or 0 for each in done) / tokens,
        rows_per_decoded=sum(each.cost.rows or 0 for each in done) / decoded,
        tokens=tokens,
        responses=[_digest(each.outcome.tokens) for each in done],
    )


def _digest(tokens: Tokens) -> str:
    return hashlib.blake2b(repr(tokens).encode(), digest_size=8).hexdigest()
