"""The population that each response of a run was chosen from: its last round, and how many of it are right."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from math import fsum
from statistics import fmean
from typing import Any, NamedTuple

import msgspec

from powerbench.stats.intervals import Estimate, clustered, student
from powerbench.types import SampleKey, Score

SIZES = ("particles", "n")
"""Settings of samplers that end with several whole responses, of which one is returned."""

_decoder = msgspec.json.Decoder(tuple[msgspec.Raw, ...])


class LastRound(NamedTuple):
    """Of one sample."""

    members: int
    distinct: int
    """Members with a log p of their own, to three decimals: at most so many different responses."""
    effective: float | None
    """Of the weights, 1 / sum of squares; None where they are scores."""
    earlier: int
    """Rounds before: resamplings."""


class Populations(NamedTuple):
    """Of a run; means over problems, with 95% intervals over problems."""

    members: Estimate
    distinct: Estimate
    effective: Estimate | None
    earlier: Estimate


class Coverage(NamedTuple):
    """What choosing one member of each population costs, over the responses whose members are all graded."""

    members: float
    """Mean."""
    coverage: Estimate
    """Oracle coverage: how often some member is right, mean over problems, with its 95% interval."""
    lost: Estimate
    """How often some member is right and the one returned is not: coverage less the accuracy of the same
    responses. Likewise."""


def has_populations(sampler: Mapping[str, Any]) -> bool:
    """sampler: a run's settings of it."""
    return bool(set(SIZES) & set(sampler))


def last_round(encoded: msgspec.Raw) -> LastRound | None:
    """encoded: a sample's rounds as they are stored. None if there are none."""
    rounds = _decoder.decode(encoded) if bytes(encoded) else ()
    if not rounds:
        return None
    fields = msgspec.json.decode(rounds[-1])
    logp, weights = fields[2], fields[3]
    return LastRound(len(logp), len(set(logp)), _effective(weights), len(rounds) - 1)


def _effective(weights: Sequence[float]) -> float | None:
    total = fsum(weights)
    if min(weights) < 0 or abs(total - 1) > 0.01:  # rounded to four decimals
        return None
    return total**2 / fsum(w * w for w in weights)


def populations(found: Mapping[SampleKey, LastRound]) -> Populations | None:
    """Of all samples of a run; None if there are none."""
    if not found:
        return None
    of: list[dict[str, list[float]]] = [defaultdict(list) for _ in LastRound._fields]
    for key, each in found.items():
        for values, value in zip(of, each, strict=True):
            if value is not None:
                values[key.problem].append(value)
    members, distinct, effective, earlier = (student(values) if values else None for values in of)
    assert members is not None and distinct is not None and earlier is not None
    return Populations(members, distinct, effective, earlier)


def is_covered(score: Score) -> bool | None:
    """Whether some member of the population is right; None where that is not known, or depends on members that
    the verifier could not decide."""
    if any(score.members):
        return True
    return None if not score.members or None in score.members else False


def coverage(scores: Mapping[SampleKey, Score]) -> Coverage | None:
    """Of a run whose verifier graded the members' answers; None if of no response."""
    members = list[float]()
    covered, lost = defaultdict[str, list[float]](list), defaultdict[str, list[float]](list)
    for key, score in scores.items():
        found = is_covered(score)
        if found is not None and score.correct is not None:
            members.append(len(score.members))
            covered[key.problem].append(float(found))
            lost[key.problem].append(float(found and not score.correct))
    return Coverage(fmean(members), clustered(covered), clustered(lost)) if members else None
