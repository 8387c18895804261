"""A shard: one of several equal parts of a run's samples, computed apart and merged by reading."""

import re
from dataclasses import dataclass
from math import gcd

from powerbench.errors import UserError, require


@dataclass(frozen=True, order=True)
class Shard:
    """The number-th (from 1) of `of` parts. Every key belongs to exactly one part of each partition, and
    stays in it when problems or replicates are added."""

    number: int
    of: int

    @classmethod
    def parse(cls, text: str | None) -> "Shard":
        """The shard that a setting names, such as "2/8"; None is the whole. Raises UserError."""
        if text in (None, "null"):  # the latter as it stands on a command line
            return WHOLE
        match = re.fullmatch(r"(\d+)/(\d+)", str(text))
        shard = cls(int(match[1]), int(match[2])) if match else None
        if shard is None or not 1 <= shard.number <= shard.of:
            raise UserError(
                f"shard must be like 2/8 (the second of eight parts) or null for the whole run, got {text}"
            )
        return shard

    @classmethod
    def from_suffix(cls, suffix: str) -> "Shard":
        """The shard whose files have this suffix."""
        match = re.fullmatch(r"-(\d+)-of-(\d+)", suffix)
        return cls(int(match[1]), int(match[2])) if match else WHOLE

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    @property
    def suffix(self) -> str:
        """What names its files: nothing for the whole."""
        return "" if self.of == 1 else f"-{self.number}-of-{self.of}"

    def holds(self, problem: int, replicate: int) -> bool:
        """Whether a sample is in this part.

        problem: its place in the task's order, so that parts are equal in size for any number of
            problems and replicates.
        """
        return (problem + replicate) % self.of == self.number - 1

    def part(self, number: int, of: int) -> "Shard":
        """The number-th (from 1) of `of` parts of this part."""
        return Shard(self.number + (number - 1) * self.of, self.of * of)

    def overlaps(self, other: "Shard") -> bool:
        """Whether some sample could be in both."""
        return (self.number - other.number) % gcd(self.of, other.of) == 0

    def within(self, other: "Shard") -> bool:
        """Whether all its samples are the other's too."""
        return self.of % other.of == 0 and self.overlaps(other)


WHOLE = Shard(1, 1)


def expand(setting: str) -> str:
    """`shard=all/4` as the sweep that it stands for, `shard=1/4,2/4,3/4,4/4`; any other setting as it is."""
    match = re.fullmatch(r"shard=all/(\d+)", setting)
    if match is None:
        return setting
    of = int(match[1])
    require(of > 0, f"{setting}: a run has at least one part")
    return "shard=" + ",".join(str(Shard(number, of)) for number in range(1, of + 1))
