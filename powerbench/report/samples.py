"""What tables and figures need of a run's samples, read in one pass that keeps no text, token or step."""

import sys
from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from powerbench.report.chains import PlainStep, StepCounts
from powerbench.report.populations import LastRound, has_populations, last_round
from powerbench.store import Run
from powerbench.store.run_folder import Place
from powerbench.store.shard import Shard
from powerbench.types import Cost, FinishReason, SampleKey, Span


class _Reported(msgspec.Struct, gc=False):
    """Of what an endpoint says of its response, the field that is decoded."""

    tokens: int


class _Record(msgspec.Struct, gc=False):
    """The fields of a stored sample that are decoded."""

    problem: str
    replicate: int
    text: str
    tokens: msgspec.Raw
    """Their JSON, of which only the length is needed: a quarter of the time of decoding them."""
    logp: float | None
    entropy: float | None
    finish_reason: FinishReason
    cost: Cost
    steps: tuple[PlainStep, ...] = ()
    rounds: msgspec.Raw = msgspec.Raw()
    """Their JSON, which is decoded where it is needed."""
    reported: _Reported | None = None

    @property
    def key(self) -> SampleKey:
        """Its problem's name is interned: a run has far fewer of them than samples, each read with its own."""
        return SampleKey(sys.intern(self.problem), self.replicate)

    @property
    def length(self) -> int:
        """Of the response, tokens."""
        if self.reported is not None:
            return self.reported.tokens
        encoded = bytes(self.tokens)
        return encoded.count(b",") + 1 if len(encoded) > len(b"[]") else 0


class SampleStats(NamedTuple):
    """A sample without its text, its tokens and its steps, which are counted."""

    tokens: int
    characters: int
    logp: float | None
    """Log-likelihood under the base model, nats, summed over tokens; None where it is not known."""
    entropy: float | None
    """Of the base model's next-token distributions, nats, summed over tokens; None where it is not known."""
    truncated: bool
    """Whether it ended at the length limit, without a stop token."""
    refused: bool
    """Whether an endpoint refused to give it, or all of it."""
    decoded: int
    """Tokens decoded, rejected proposals included."""
    prefilled: int
    speculated: int
    """Tokens decoded ahead and thrown away."""
    passes: int | None
    """Decoding passes, one that verifies a draft counted once; None: not known."""
    rows: int | None
    """Token positions that these computed, rejected drafted tokens included; None: not known."""
    contexts: float | None
    """Summed over rows and prefilled tokens: how many tokens each of them attends to; None: not known."""
    dollars: float | None
    """What an endpoint's bill says, US dollars; None: not known, or no bill."""
    proposals: int
    """Steps that decoded a proposal."""
    accepted: int
    spans: tuple[Span, ...]
    """When it was worked on."""
    place: Place
    """Where it is stored: `Run.at` reads it."""

    @property
    def logp_per_token(self) -> float | None:
        """Log-likelihood over its length, nats; None of an empty response, and where it is not known."""
        return self.logp / self.tokens if self.tokens and self.logp is not None else None

    @classmethod
    def of(cls, place: Place, sample: _Record) -> "SampleStats":
        cost, steps = sample.cost, sample.steps
        return cls(
            tokens=sample.length,
            characters=len(sample.text),
            logp=sample.logp,
            entropy=sample.entropy,
            truncated=sample.finish_reason is FinishReason.LENGTH,
            refused=sample.finish_reason is FinishReason.REFUSED,
            decoded=cost.decoded,
            prefilled=cost.prefilled,
            speculated=cost.speculated,
            passes=cost.passes,
            rows=cost.rows,
            contexts=cost.attended,
            dollars=cost.dollars,
            proposals=sum([decoded > 0 for _, _, _, _, decoded, _ in steps]),
            accepted=sum([accepted for _, _, _, _, _, accepted in steps]),
            spans=(*cost.earlier, Span(cost.finished - cost.seconds, cost.finished)),
            place=place,
        )


class RunSamples(NamedTuple):
    """All finished samples of a run."""

    stats: dict[SampleKey, SampleStats]
    steps: StepCounts
    """Of all of them together."""
    last_rounds: dict[SampleKey, LastRound]
    """Of a sampler that ends with several whole responses."""


def read_samples(run: Run) -> RunSamples:
    """Read the finished samples of a run, once and one at a time. Raises Damaged as `Run.stream` does."""
    stats, steps = dict[SampleKey, SampleStats](), StepCounts.of(run.config["sampler"])
    last_rounds, several = dict[SampleKey, LastRound](), has_populations(run.config["sampler"])
    for place, sample in run.located(_Record):
        stats[sample.key] = SampleStats.of(place, sample)
        if sample.steps:
            steps.add(sample.key.problem, sample.steps)
        if several and (found := last_round(sample.rounds)) is not None:
            last_rounds[sample.key] = found
    return RunSamples(stats, steps, last_rounds)


def logp_per_token(samples: Iterable[SampleStats]) -> list[float]:
    """Each response's log-likelihood over its length, nats per token; empty responses left out, and
    those of which it is not known."""
    return [each for s in samples if (each := s.logp_per_token) is not None]


def confidence(samples: Iterable[SampleStats]) -> list[float]:
    """Each response's mean of sum_v p(v) log p(v), nats per token; empty responses left out, and
    those of which it is not known."""
    return [-s.entropy / s.tokens for s in samples if s.tokens and s.entropy is not None]


def wall_clock(samples: Iterable[SampleStats]) -> float | None:
    """Seconds during which at least one response was being worked on; None without samples.

    The length of the union of all spans, those before a resume from a checkpoint among them: what lies
    between two sessions is not counted.
    """
    spans = sorted(span for sample in samples for span in sample.spans)
    total, until = 0.0, float("-inf")
    for began, ended in spans:
        total += max(0.0, ended - max(began, until))
        until = max(until, ended)
    return total if spans else None


def device_seconds(samples: Iterable[SampleStats]) -> float | None:
    """The wall-clock times of all shards together, for each has a device of its own; None without samples."""
    by_shard = defaultdict[Shard, list[SampleStats]](list)
    for sample in samples:
        by_shard[sample.place.shard].append(sample)
    clocks = (wall_clock(each) for each in by_shard.values())
    return sum(clock for clock in clocks if clock is not None) if by_shard else None
