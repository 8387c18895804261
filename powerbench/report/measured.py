"""What numbers and figures need of a sample: a run of any size is read without keeping its texts."""

import sys
from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from powerbench.models.flops import contexts
from powerbench.store import Run
from powerbench.store.shard import Shard
from powerbench.types import FinishReason, Sample, SampleKey, Span


class Measured(NamedTuple):
    """A sample without its text, its tokens and its steps, which are counted."""

    tokens: int
    characters: int
    logp: float
    """Log-likelihood under the base model, nats, summed over tokens."""
    entropy: float
    """Of the base model's next-token distributions, nats, summed over tokens."""
    truncated: bool
    """Whether it ended for want of length, not with a stop token."""
    decoded: int
    """Tokens decoded, rejected proposals included."""
    prefilled: int
    speculated: int
    """Tokens decoded ahead and thrown away."""
    contexts: float
    """Summed over decoded and prefilled tokens: how many tokens each of them attends to."""
    proposals: int
    """Steps that decoded a proposal."""
    accepted: int
    spans: tuple[Span, ...]
    """When it was worked on."""
    shard: Shard
    """In which it was made."""

    @classmethod
    def of(cls, shard: Shard, sample: Sample) -> "Measured":
        cost, steps = sample.cost, sample.steps
        return cls(
            tokens=len(sample.tokens),
            characters=len(sample.text),
            logp=sample.logp,
            entropy=sample.entropy,
            truncated=sample.finish_reason is FinishReason.LENGTH,
            decoded=cost.decoded,
            prefilled=cost.prefilled,
            speculated=cost.speculated,
            contexts=_contexts(sample) if cost.attended is None else cost.attended,
            proposals=sum(step.decoded > 0 for step in steps),
            accepted=sum(step.accepted for step in steps),
            spans=(*cost.earlier, Span(cost.finished - cost.seconds, cost.finished)),
            shard=shard,
        )


def measure(run: Run) -> dict[SampleKey, Measured]:
    """All finished samples of a run, read one at a time."""
    # Interned: a run has far fewer problems than samples, each of which is read with a name of its own.
    return {
        SampleKey(sys.intern(s.problem), s.replicate): Measured.of(shard, s)
        for shard, s in run.located()
    }


def _contexts(sample: Sample) -> float:
    """As well as an earlier version's record tells: proposals start where they are known to, the blocks' first
    drafts together where the response does."""
    prompt, drafted = sample.prompt_tokens, sample.cost.decoded
    proposed = 0.0
    for step in sample.steps:
        proposed += contexts(prompt + step.restart, step.decoded)
        drafted -= step.decoded
    return proposed + contexts(prompt, drafted) + contexts(0, sample.cost.prefilled)


def logp_per_token(samples: Iterable[Measured]) -> list[float]:
    """Each response's log-likelihood over its length, nats per token; empty responses left out."""
    return [s.logp / s.tokens for s in samples if s.tokens]


def confidence(samples: Iterable[Measured]) -> list[float]:
    """Each response's mean of sum_v p(v) log p(v), nats per token; empty responses left out."""
    return [-s.entropy / s.tokens for s in samples if s.tokens]


def wall_clock(samples: Iterable[Measured]) -> float | None:
    """Seconds during which at least one response was under way; None without samples.

    The length of the union of all spans, those before a resume from a checkpoint among them: what lies
    between two sessions is not counted.
    """
    spans = sorted(span for sample in samples for span in sample.spans)
    total, until = 0.0, float("-inf")
    for began, ended in spans:
        total += max(0.0, ended - max(began, until))
        until = max(until, ended)
    return total if spans else None


def device_seconds(samples: Iterable[Measured]) -> float | None:
    """The wall-clock times of all shards together, for each has a device of its own; None without samples."""
    by_shard = defaultdict(list)
    for sample in samples:
        by_shard[sample.shard].append(sample)
    clocks = (wall_clock(each) for each in by_shard.values())
    return sum(clock for clock in clocks if clock is not None) if by_shard else None
