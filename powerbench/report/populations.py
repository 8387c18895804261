"""The population that each response of a run was chosen from: what its last recorded round tells of it."""

from collections import defaultdict
from collections.abc import Sequence
from math import fsum
from typing import NamedTuple

import msgspec

from powerbench.report.summary import Results
from powerbench.stats.intervals import Estimate, student
from powerbench.types import SampleKey

SIZES = ("particles", "n")
"""Settings of samplers that end with several whole responses, of which one is returned."""


class _Record(msgspec.Struct, gc=False):
    """The fields of a stored sample that are decoded."""

    problem: str
    replicate: int
    rounds: Sequence[msgspec.Raw] = ()

    @property
    def key(self) -> SampleKey:
        return SampleKey(self.problem, self.replicate)


class Populations(NamedTuple):
    """Of a run; means over problems, with 95% intervals over problems."""

    members: Estimate
    distinct: Estimate
    """Members whose log p differs by more than rounding: at most so many different responses."""
    effective: Estimate | None
    """Of the weights, 1 / sum of squares; None where a round's weights are scores."""
    rounds: Estimate
    """Before the last: resamplings."""


def populations(results: Results) -> Populations | None:
    """None for a run of another sampler, or without rounds."""
    if not set(SIZES) & set(results.summary.settings):
        return None
    members, distinct = defaultdict[str, list[float]](list), defaultdict[str, list[float]](list)
    effective, rounds = defaultdict[str, list[float]](list), defaultdict[str, list[float]](list)
    for _, sample in results.run.located(_Record):
        if not sample.rounds:
            continue
        fields = msgspec.json.decode(sample.rounds[-1])
        logp, weights = fields[2], fields[3]
        members[sample.problem].append(len(logp))
        distinct[sample.problem].append(len(set(logp)))
        rounds[sample.problem].append(len(sample.rounds) - 1)
        if all(w >= 0 for w in weights) and abs(fsum(weights) - 1) < 0.01:
            effective[sample.problem].append(fsum(weights) ** 2 / fsum(w * w for w in weights))
    if not members:
        return None
    return Populations(
        student(members),
        student(distinct),
        student(effective) if effective else None,
        student(rounds),
    )
