"""Interleaved rounds: each round measures every case once, so that what slows the machine slows them all."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Rate:
    """One way of doing the work: units per second in each round."""

    name: str
    rounds: Sequence[float]

    @property
    def median(self) -> float:
        return median(self.rounds)

    def over(self, baseline: "Rate") -> float:
        """The ratio to a baseline: the median over rounds of the ratios within a round."""
        pairs = zip(self.rounds, baseline.rounds, strict=True)
        return median(ours / theirs for ours, theirs in pairs)


def interleave(cases: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, Rate]:
    """Measure every case in each of `repeats` rounds; a case returns units per second."""
    rounds = [{name: case() for name, case in cases.items()} for _ in range(repeats)]
    return {name: Rate(name, [each[name] for each in rounds]) for name in cases}
