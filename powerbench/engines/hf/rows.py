"""What the rows of the cache hold, and how a chain's lane is given what it needs without computing it.

Every chain has two rows: a *lane*, where it decodes, and a *shelf*, which keeps its current response
while a proposal overwrites the lane. A rejected proposal so costs a copy of its suffix, never a
recomputation; an accepted one costs nothing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from powerbench.engines.hf.attention import KVCache


@dataclass
class Row:
    """Keys and values are valid for exactly these tokens."""

    tokens: list[int] = field(default_factory=list)
    long: bool = False
    """Whether they were computed with longrope's long factors."""


class Rows:
    """`width` lanes, then as many shelves, over one cache."""

    def __init__(self, cache: KVCache, width: int) -> None:
        self.cache, self.width = cache, width
        self.rows = [Row() for _ in range(2 * width)]

    def __getitem__(self, lane: int) -> Row:
        return self.rows[lane]

    def longest_start(self, known: Sequence[int], long: bool) -> int:
        """How much of these tokens the best row holds."""
        return max(self._starts(known, long))

    def borrow(self, lane: int, known: Sequence[int], long: bool) -> None:
        """Give a new chain's lane the longest start of its tokens that any row holds.

        The last token is left out: it is to be decoded from.
        """
        starts = list(self._starts(known, long))
        source = max(range(len(starts)), key=starts.__getitem__)
        self._copy(source, lane, 0, min(starts[source], len(known) - 1))
        self.rows[lane].long = long
        if self.rows[lane + self.width].long != long:
            self.rows[lane + self.width] = Row(long=long)

    def restore(self, lane: int, current: Sequence[int], kept: int) -> None:
        """Leave on a chain's lane the first `kept` of its current tokens, as far as either row has them.

        What the chain now holds is the lane's (its last draw was accepted, or continued) or the
        shelf's (it was rejected). What of it is about to be overwritten is shelved first.
        """
        shelf = lane + self.width
        on_lane = common(self.rows[lane].tokens, current)
        on_shelf = common(self.rows[shelf].tokens, current)
        if kept < on_lane and on_lane >= on_shelf:
            shelved = common(self.rows[shelf].tokens, self.rows[lane].tokens[:on_lane])
            self._copy(lane, shelf, shelved, on_lane)
        self._copy(shelf, lane, min(on_lane, kept), min(max(on_lane, on_shelf), kept))

    def _starts(self, known: Sequence[int], long: bool) -> Iterator[int]:
        for row in self.rows:
            yield common(row.tokens, known) if row.long == long else 0

    def _copy(self, source: int, target: int, start: int, stop: int) -> None:
        """Copy positions start..stop; the target's tokens end there."""
        if start < stop and source != target:
            self.cache.copy(source, target, start, stop)
        self.rows[target].tokens[start:] = self.rows[source].tokens[start:stop]


def common(a: Sequence[int], b: Sequence[int]) -> int:
    """Length of the longest common start."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        if tuple(a[low:middle]) == tuple(b[low:middle]):
            low = middle
        else:
            high = middle - 1
    return low
