"""Taking turns: measurements that are compared run one after the other, several times over."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Rate:
    """One way of doing the work: units per second in each turn."""

    name: str
    turns: Sequence[float]

    @property
    def median(self) -> float:
        return median(self.turns)

    def over(self, baseline: "Rate") -> float:
        """The ratio to a baseline: the median over turns of the ratios within a turn."""
        pairs = zip(self.turns, baseline.turns, strict=True)
        return median(ours / theirs for ours, theirs in pairs)


def take_turns(cases: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, Rate]:
    """Measure every case in turn, `repeats` times; each returns units per second."""
    turns = [{name: case() for name, case in cases.items()} for _ in range(repeats)]
    return {name: Rate(name, [turn[name] for turn in turns]) for name in cases}
