"""How the Metropolis-Hastings chains of a run went: where they accept, how they climb, how well they agree."""

from array import array
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from statistics import fmean, median
from typing import Any, NamedTuple

from powerbench.stats.diagnostics import diagnose
from powerbench.stats.intervals import Count, Estimate, Interval, clustered_counts, student

TENTHS = 10
"""Parts of the horizon by which restart positions are told apart."""

AGREE = 1.1
"""R-hat up to which chains are usually taken to agree."""

PlainStep = tuple[int, int, float, float | None, int, bool]
"""The fields of `powerbench.types.Step`, in their order: faster to decode than its names."""

Counts = defaultdict[int, dict[str, list[int]]]
"""By block, or by tenth of the horizon, then by problem: proposals, and how many of them were accepted."""

Logps = dict[str, "array[float]"]
"""Log-likelihoods by problem, nats."""


class Rate(NamedTuple):
    """Accepted steps among those that decoded a proposal."""

    place: int
    """The block, or the tenth of the horizon, from 0."""
    accepted: float
    interval: Interval
    proposals: int


class Chains(NamedTuple):
    """What the steps of a run say. Intervals are over problems."""

    steps: int
    """In each block."""
    by_block: Sequence[Rate]
    by_position: Sequence[Rate]
    rise: Sequence[Estimate]
    """Log-likelihood gained since a block's first state, nats: after 0, 1 ... steps."""
    ess: float | None
    """Effective draws of the log-likelihood among the steps of a chain's last block: median over problems."""
    r_hat: float | None
    """Between the replicates of a problem, in their last block: median over problems."""
    disagree: float | None
    """Problems whose R-hat is above 1.1, of those that have one."""
    compared: int
    """Problems that have an R-hat."""
    stayed: float
    """Steps whose restart lay past the end, of all steps: they change nothing."""


class StepCounts:
    """What is kept of the steps of the samples that have been read."""

    def __init__(self, block: int | None) -> None:
        """block: its length in tokens; None for a sampler without blocks, whose restarts have no tenths."""
        self._block = block
        self._by_block: Counts = defaultdict(_by_problem)
        self._by_position: Counts = defaultdict(_by_problem)
        self._rises: defaultdict[int, Logps] = defaultdict(lambda: defaultdict(lambda: array("d")))
        self._last: dict[str, dict[int, list[array[float]]]] = defaultdict(
            lambda: defaultdict(list)
        )
        self._steps = self._stayed = 0

    @classmethod
    def of(cls, sampler: Mapping[str, Any]) -> "StepCounts":
        """sampler: a run's settings of it."""
        if not {"max_tokens", "blocks"} <= set(sampler):
            return cls(None)
        return cls(sampler["max_tokens"] // sampler["blocks"])

    def add(self, problem: str, steps: Sequence[PlainStep]) -> None:
        """Count the steps of one sample, of which there is at least one."""
        for block, group in groupby(steps, itemgetter(0)):
            own = list(group)
            first = own[0][2]
            after = array("d", [b if ok and b is not None else a for _, _, a, b, _, ok in own])
            self._rises[0][problem].append(0.0)
            for n, state in enumerate(after, 1):
                self._rises[n][problem].append(state - first)
            proposals = [(restart, ok) for _, restart, _, _, decoded, ok in own if decoded]
            if proposals:
                self._count(problem, block, proposals)
            self._steps += len(own)
            self._stayed += len(own) - len(proposals)
        self._last[problem][block].append(after)

    def _count(self, problem: str, block: int, proposals: Sequence[tuple[int, bool]]) -> None:
        """proposals: of one block, restart and whether it was accepted."""
        counts = self._by_block[block][problem]
        counts[0] += len(proposals)
        counts[1] += sum([ok for _, ok in proposals])
        if self._block is not None:
            by_position, horizon = self._by_position, (block + 1) * self._block
            for restart, ok in proposals:
                counts = by_position[min(TENTHS * restart // horizon, TENTHS - 1)][problem]
                counts[0] += 1
                counts[1] += ok

    def chains(self) -> Chains | None:
        """None if no step has decoded a proposal."""
        if not self._by_block:
            return None
        found = [diagnose(_comparable(by_block)) for by_block in self._last.values()]
        r_hats = [d.r_hat for d in found if d.r_hat is not None]
        sizes = [d.ess for d in found if d.ess is not None]
        return Chains(
            steps=max(self._rises),
            by_block=list(_rates(self._by_block)),
            by_position=list(_rates(self._by_position)),
            rise=[student(self._rises[n]) for n in sorted(self._rises)],
            ess=median(sizes) if sizes else None,
            r_hat=median(r_hats) if r_hats else None,
            disagree=fmean(r > AGREE for r in r_hats) if r_hats else None,
            compared=len(r_hats),
            stayed=self._stayed / self._steps,
        )


def _by_problem() -> dict[str, list[int]]:
    return defaultdict(lambda: [0, 0])


def _comparable(by_block: Mapping[int, list["array[float]"]]) -> list["array[float]"]:
    """The chains of a problem that ended in one block, and so have one target: the largest such set."""
    return max(by_block.values(), key=len)


def _rates(counts: Counts) -> Iterator[Rate]:
    for place in sorted(counts):
        estimate = clustered_counts({p: Count(*each) for p, each in counts[place].items()})
        proposals = sum(n for n, _ in counts[place].values())
        yield Rate(place, estimate.mean, estimate.interval, proposals)
