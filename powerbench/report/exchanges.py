"""What a run of parallel tempering tells of its exchanges: acceptance, round trips, and a better ladder."""

from collections import defaultdict
from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter
from statistics import fmean
from typing import NamedTuple

import msgspec

from powerbench.config import RunConfig
from powerbench.stats.replica_exchange import equalised, independent_round_trip, round_trips
from powerbench.store import Run
from powerbench.types import SampleKey

PlainRound = tuple[int, int, tuple[float, ...], tuple[float, ...], tuple[int, ...]]
"""The fields of `powerbench.types.Round`, in their order."""


class _Record(msgspec.Struct, gc=False):
    """The fields of a stored sample that are decoded."""

    problem: str
    replicate: int
    rounds: tuple[PlainRound, ...] = ()

    @property
    def key(self) -> SampleKey:
        return SampleKey(self.problem, self.replicate)


class Exchanges(NamedTuple):
    """Of all chains of a run together."""

    ladder: tuple[float, ...]
    acceptance: tuple[float, ...]
    """Of each pair of neighbours, from the lowest: the mean chance of an exchange that was tried."""
    round_trips: int
    sweeps: float | None
    """For a round trip, in the mean; None if there is none."""
    independent: float
    """Sweeps that it would take if exchanges were independent, with the mean acceptance."""
    equalised: tuple[float, ...]
    """The ladder whose exchanges would all be accepted equally often, as far as this run tells."""


def exchanges(run: Run) -> Exchanges | None:
    """None for a run of another sampler, or of one rung, or without samples."""
    sampler = run.config["sampler"]
    if "schedule" not in sampler:
        return None
    chances, trips = defaultdict[int, list[float]](list), list[int]()
    every_pair = sampler["schedule"] == "ordered"
    for _, sample in run.located(_Record):
        for _, block in groupby(sample.rounds, itemgetter(0)):
            for n, (*_, tried, _) in enumerate(block):
                for r in range(len(tried) - 1) if every_pair else range(n % 2, len(tried) - 1, 2):
                    chances[r].append(tried[r])
        trips += round_trips([origins for *_, origins in sample.rounds])
    ladder = tuple(RunConfig.of_settings(run.config).build("sampler").ladder)
    if len(chances) < max(1, len(ladder) - 1):
        return None
    return _summary(ladder, [fmean(chances[r]) for r in sorted(chances)], trips, every_pair)


def _summary(
    ladder: tuple[float, ...], acceptance: Sequence[float], trips: Sequence[int], ordered: bool
) -> Exchanges:
    sweeps = independent_round_trip(len(ladder), fmean(acceptance))
    return Exchanges(
        ladder,
        tuple(acceptance),
        len(trips),
        fmean(trips) if trips else None,
        sweeps if ordered else 2 * sweeps,
        equalised(ladder, acceptance),
    )
