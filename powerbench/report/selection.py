"""The responses that the page shows, where a report has more of them than a page can hold."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from powerbench.report.summary import Results
from powerbench.types import SampleKey

MAX_SHOWN = 4000
"""Responses that are shown of all runs of a report together: about 20 MB of page."""


@dataclass(frozen=True)
class Selection:
    """The responses that are shown."""

    runs: Sequence[Sequence[SampleKey]]
    """Of each run, by problem and replicate."""
    of: int
    """Responses in all."""

    @property
    def shown(self) -> int:
        """Responses that are shown."""
        return sum(map(len, self.runs))


def select(results: Sequence[Results], most: int = MAX_SHOWN) -> Selection:
    """All responses, or `most` of them or a few less, chosen evenly by their keys alone.

    Of each run as many as of any other, or all that it has; within a run, of each problem as many as of
    any other or one more, the lowest replicates first. So runs with the same samples show the same ones,
    and can be compared.
    """
    each = _level([len(r.samples) for r in results], most)
    runs = [_spread(_ordered(r), each) for r in results]
    return Selection(runs, sum(len(r.samples) for r in results))


def _level(sizes: Sequence[int], most: int) -> int:
    """The most responses that each run may show."""
    left = most
    for i, size in enumerate(sorted(sizes)):
        level = left // (len(sizes) - i)
        if size > level:
            return level
        left -= size
    return max(sizes, default=0)


def _ordered(results: Results) -> list[SampleKey]:
    place = {problem: i for i, problem in enumerate(results.problems)}
    return sorted(results.samples, key=lambda key: (place[key.problem], key.replicate))


def _spread(ordered: Sequence[SampleKey], most: int) -> list[SampleKey]:
    chosen = set[SampleKey]()
    for turn in _turns(ordered):
        count = min(len(turn), most - len(chosen))
        chosen.update(turn[i * len(turn) // count] for i in range(count))
    return [key for key in ordered if key in chosen]


def _turns(ordered: Iterable[SampleKey]) -> list[list[SampleKey]]:
    """The first sample of each problem, then the second of each, and so on."""
    turns: list[list[SampleKey]] = []
    for _, replicates in groupby(ordered, lambda key: key.problem):
        for i, key in enumerate(replicates):
            if i == len(turns):
                turns.append([])
            turns[i].append(key)
    return turns
