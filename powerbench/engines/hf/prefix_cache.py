"""What the rows of the KV cache hold, and how a request gets what it needs without computing it.

The first `max_num_seqs` rows are the slots where requests decode; each response at work has a *retained* row
besides, which keeps it while proposals that depart from it decode. Rejecting a proposal thus costs one
copy of its suffix, never a recomputation.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from powerbench.engines.hf.kv_cache import KVCache

ResponseName = tuple[int, int]
"""Names a response: its chain, and which of the chain's responses it is (`Extend.sequence`)."""

SLOT_SLACK = 2
"""How far above the lowest free slot a request may be put for the sake of what a slot holds."""


@dataclass
class CacheRow:
    """Keys and values are valid for exactly these tokens."""

    tokens: list[int] = field(default_factory=list)
    long: bool = False
    """Whether they were computed with longrope's long factors."""
    touched: int = 0
    """When a request last had to do with it: larger is later."""

    def common(self, tokens: Sequence[int], long: bool) -> int:
        """How many of these tokens, from the first, the row holds."""
        return common_prefix(self.tokens, tokens) if self.long == long else 0

    def holds(self, tokens: list[int], long: bool) -> bool:
        """Whether the row holds them all. For most rows that do not, comparing the last one tells."""
        end = len(tokens)
        ends_alike = self.long == long and self.tokens[end - 1 : end] == tokens[-1:]
        return ends_alike and self.tokens[:end] == tokens


class PrefixCache:
    """A row for each of `max_num_seqs` slots, then as many retained ones, over one KV cache."""

    def __init__(self, cache: KVCache, max_num_seqs: int) -> None:
        self.cache, self.max_num_seqs = cache, max_num_seqs
        self.rows = [CacheRow() for _ in range(2 * max_num_seqs)]
        self.retained: dict[ResponseName, int] = {}
        """The row that keeps a response."""
        self._clock = 0

    def __getitem__(self, row: int) -> CacheRow:
        return self.rows[row]

    def lengths(self) -> list[int]:
        """How many tokens each row holds."""
        return [len(row.tokens) for row in self.rows]

    def retain(
        self, name: ResponseName, slots: Iterable[int], current: Sequence[int], long: bool
    ) -> None:
        """See to it that a response's retained row holds as much of its current tokens as any of its chain's
        slots."""
        best = max(slots, key=lambda slot: self.rows[slot].common(current, long), default=None)
        if best is None:
            return
        row = self._retained_row(name)
        if row is None:
            return
        held = self.rows[row].common(current, long)
        self._copy(best, row, held, self.rows[best].common(current, long))

    def allocate(
        self,
        name: ResponseName,
        known: Sequence[int],
        long: bool,
        free: Sequence[int],
        near: Iterable[int],
    ) -> int:
        """Choose one of the free slots (ascending) for these tokens; give it what any row holds of them.

        The last token is left out: it is to be decoded from. Low slots keep the batch dense; among the
        lowest, the one that needs the least copying. near: slots of this chain, looked at before all
        others.
        """
        body = known[:-1]
        slot = max(
            (slot for slot in free if slot <= free[0] + SLOT_SLACK),
            key=lambda slot: (self.rows[slot].common(body, long), -slot),
        )
        held, source = self.rows[slot].common(body, long), slot
        if held < len(body):
            own = [slot, *near, *self.retained_rows(name)]
            source = max(own, key=lambda row: self.rows[row].common(body, long))
            if self.rows[source].common(body, long) < len(body):
                every = range(len(self.rows))
                source = max(every, key=lambda row: self.rows[row].common(body, long))
        self._copy(source, slot, held, max(held, self.rows[source].common(body, long)))
        self.rows[slot].long = long
        return slot

    def retained_rows(self, name: ResponseName) -> list[int]:
        """The row that keeps a response, if there is one."""
        return [self.retained[name]] if name in self.retained else []

    def keep(self, row: int, tokens: Sequence[int]) -> None:
        """A row holds these tokens from now on: it has been written, or is cut."""
        self.rows[row].tokens = [*tokens]
        self.cache.truncate(row, len(tokens))
        self._touch(row)

    def drop(self, rows: Iterable[int]) -> bool:
        """Give up what one of these rows holds, for the sake of memory: of those that alone have memory, or
        else of those that share some, the one untouched for longest. False if none holds anything."""
        held = [row for row in rows if self.rows[row].tokens]
        least = min(
            held,
            key=lambda row: (self.cache.owned(row) == 0, self.rows[row].touched),
            default=None,
        )
        if least is not None:
            self.keep(least, ())
        return least is not None

    def longest_prefix(self, known: Sequence[int], long: bool) -> int:
        """How many of these tokens, from the first, the best row holds."""
        return max(row.common(known, long) for row in self.rows)

    def release(self, chain: int) -> None:
        """A chain is over: its retained rows are free. What they hold stays, for any chain that shares it."""
        for name in [name for name in self.retained if name[0] == chain]:
            del self.retained[name]

    def _retained_row(self, name: ResponseName) -> int | None:
        """The row that keeps this response, a new one if need be; None if all are taken."""
        if name not in self.retained:
            taken = set(self.retained.values())
            rows = range(self.max_num_seqs, 2 * self.max_num_seqs)
            row = next((row for row in rows if row not in taken), None)
            if row is None:
                return None
            self.retained[name] = row
        return self.retained[name]

    def _copy(self, source: int, target: int, start: int, stop: int) -> None:
        """Copy positions start..stop; the target's tokens end there."""
        if start < stop and source != target:
            self.cache.copy(source, target, start, stop)
        row = self.rows[target]
        row.tokens[start:] = self.rows[source].tokens[start:stop]
        row.long = self.rows[source].long
        self.cache.truncate(target, len(row.tokens))
        self._touch(source)
        self._touch(target)

    def _touch(self, row: int) -> None:
        self._clock += 1
        self.rows[row].touched = self._clock


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """Length of the longest common start."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        if tuple(a[low:middle]) == tuple(b[low:middle]):
            low = middle
        else:
            high = middle - 1
    return low
