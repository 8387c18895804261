"""What the rows of the cache hold, and how a request gets what it needs without computing it.

The first `width` rows are *lanes*, where requests decode; each response at work has a *shelf*
besides, which keeps it while proposals that depart from it decode. A rejected proposal so costs a copy
of its suffix, never a recomputation.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from powerbench.engines.hf.kv_cache import KVCache

Shelf = tuple[int, int]
"""Names a shelf: the chain, and which of its responses (`Extend.slot`)."""

SLACK = 2
"""How far above the lowest free lane a request may be put for the sake of what a lane holds."""


@dataclass
class Row:
    """Keys and values are valid for exactly these tokens."""

    tokens: list[int] = field(default_factory=list)
    long: bool = False
    """Whether they were computed with longrope's long factors."""

    def common(self, tokens: Sequence[int], long: bool) -> int:
        """How many of these tokens, from the first, the row holds."""
        return common(self.tokens, tokens) if self.long == long else 0

    def starts(self, tokens: list[int], long: bool) -> bool:
        """Whether the row holds them all. Most rows that do not are told by the last one."""
        end = len(tokens)
        ends_alike = self.long == long and self.tokens[end - 1 : end] == tokens[-1:]
        return ends_alike and self.tokens[:end] == tokens


class Rows:
    """`width` lanes, then as many shelves, over one cache."""

    def __init__(self, cache: KVCache, width: int) -> None:
        self.cache, self.width = cache, width
        self.rows = [Row() for _ in range(2 * width)]
        self.shelves: dict[Shelf, int] = {}

    def __getitem__(self, row: int) -> Row:
        return self.rows[row]

    def shelve(self, name: Shelf, lanes: Iterable[int], current: Sequence[int], long: bool) -> None:
        """See to it that a response's shelf holds as much of its current tokens as any of its chain's lanes."""
        best = max(lanes, key=lambda lane: self.rows[lane].common(current, long), default=None)
        if best is None:
            return
        shelf = self._shelf(name)
        if shelf is None:
            return
        held = self.rows[shelf].common(current, long)
        self._copy(best, shelf, held, self.rows[best].common(current, long))

    def place(
        self,
        name: Shelf,
        known: Sequence[int],
        long: bool,
        free: Sequence[int],
        near: Iterable[int],
    ) -> int:
        """Choose one of the free lanes (ascending) for these tokens; give it what any row holds of them.

        The last token is left out: it is to be decoded from. Low lanes keep the batch dense; among the
        lowest, the one that needs the least copying. near: lanes of this chain, looked at before all
        others.
        """
        body = known[:-1]
        lane = max(
            (lane for lane in free if lane <= free[0] + SLACK),
            key=lambda lane: (self.rows[lane].common(body, long), -lane),
        )
        held, source = self.rows[lane].common(body, long), lane
        if held < len(body):
            shelf = self.shelves.get(name)
            own = [lane, *near, *([] if shelf is None else [shelf])]
            source = max(own, key=lambda row: self.rows[row].common(body, long))
            if self.rows[source].common(body, long) < len(body):
                every = range(len(self.rows))
                source = max(every, key=lambda row: self.rows[row].common(body, long))
        self._copy(source, lane, held, max(held, self.rows[source].common(body, long)))
        self.rows[lane].long = long
        return lane

    def longest_start(self, known: Sequence[int], long: bool) -> int:
        """How much of these tokens the best row holds."""
        return max(row.common(known, long) for row in self.rows)

    def release(self, chain: int) -> None:
        """A chain is over: its shelves are others'. What rows hold stays, for whoever shares it."""
        for name in [name for name in self.shelves if name[0] == chain]:
            del self.shelves[name]

    def _shelf(self, name: Shelf) -> int | None:
        if name not in self.shelves:
            taken = set(self.shelves.values())
            free = (row for row in range(self.width, 2 * self.width) if row not in taken)
            shelf = next(free, None)
            if shelf is None:
                return None
            self.shelves[name] = shelf
        return self.shelves[name]

    def _copy(self, source: int, target: int, start: int, stop: int) -> None:
        """Copy positions start..stop; the target's tokens end there."""
        if start < stop and source != target:
            self.cache.copy(source, target, start, stop)
        row = self.rows[target]
        row.tokens[start:] = self.rows[source].tokens[start:stop]
        row.long = self.rows[source].long


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
