"""The KV cache in pages, for torch's attention over sequences of different lengths, which reads a block table.

Memory follows the tokens that exist, not the longest sequence that may come; rows share the pages of what
they have in common.
"""

import torch
from transformers import PretrainedConfig

from powerbench.engines.hf.kv_cache import shape_of
from powerbench.errors import UserError

PAGE = 256
"""Tokens of a page: the kernel takes multiples of 256 only."""


class PagedCache:
    """Keys and values of `rows` sequences of up to `capacity` tokens in `pages` pages: a `KVCache`.

    A row is a list of pages. Copying shares them; a shared page is copied before a row writes into it. Who
    writes already need not: all others share of its page only what is before. Page 0 is a scratch page, which
    no row has: there idle slots write, and there the unused ends of the block table point.

    The pool stays where it is, as does the block table until `grow`: recorded graphs read them.
    """

    def __init__(
        self,
        config: PretrainedConfig,
        rows: int,
        capacity: int,
        pages: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        layers, heads, dim = shape_of(config)
        self.rows, self.dtype, self.device = rows, dtype, device
        self.pool = torch.zeros(
            (2, layers, pages + 1, PAGE, heads, dim), dtype=dtype, device=device
        )
        self.pages: list[list[int]] = [[] for _ in range(rows)]
        """Of each row, in the order of their positions."""
        self.references = [0] * (pages + 1)
        """How many rows have each page."""
        self._own = [0] * rows
        """From which of its pages on a row may write: those it took for itself, whoever shares them since."""
        self._free = list(range(pages, 0, -1))
        self._allocate(capacity)

    def layer(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of one layer: [1 + pages, PAGE, heads, dim] each, a view."""
        return self.pool[0, index], self.pool[1, index]

    def spare(self) -> int:
        """How many tokens the pages that no row has would hold."""
        return len(self._free) * PAGE

    def owned(self, row: int) -> int:
        """How many pages would be free if this row had none."""
        return sum(self.references[page] == 1 for page in self.pages[row])

    def shared_part(self, length: int) -> int:
        """Of so many tokens that another row holds, how many take no memory in a second one."""
        return length // PAGE * PAGE

    def copy(self, source: int, target: int, start: int, stop: int) -> None:
        """Give a row the positions start..stop of another: it shares the pages that hold them."""
        pages, first = self.pages[source][: count(stop)], start // PAGE
        for page in pages[first:]:
            self.references[page] += 1
        self._release(target, first)
        self.pages[target] += pages[first:]
        self._own[target] = len(self.pages[target])
        self._changed = True

    def truncate(self, row: int, length: int) -> None:
        """Nothing of a row is needed beyond its first `length` positions."""
        if len(self.pages[row]) > count(length):
            self._release(row, count(length))
        self._own[row] = len(self.pages[row])

    def reserve(self, row: int, start: int, stop: int) -> bool:
        """See to it that a row, truncated to `start` or reserved up to there, can be written from there to
        `stop`; False, and nothing is changed, if too few pages are free."""
        pages, first = self.pages[row], start // PAGE
        shared = first < min(len(pages), self._own[row]) and self.references[pages[first]] > 1
        more = max(0, count(stop) - len(pages))
        if shared + more > len(self._free):
            return False
        if shared:
            own, used = self._take(), start % PAGE
            self.pool[:, :, own, :used] = self.pool[:, :, pages[first], :used]
            self.references[pages[first]] -= 1
            pages[first] = own
        pages += [self._take() for _ in range(more)]
        self._own[row] = min(self._own[row], first)
        self._changed |= shared or more > 0
        return True

    def commit(self) -> None:
        """Bring the block table on the device up to date."""
        if self._changed:
            self._host.zero_()
            for row, pages in enumerate(self.pages):
                self._host[row, : len(pages)] = torch.tensor(pages, dtype=torch.int32)
            self.table.copy_(self._host)
            self._changed = False

    def grow(self, capacity: int, used: list[int]) -> None:
        """Allow longer sequences. Raises UserError for a length that all pages together do not hold."""
        held = (len(self.references) - 1) * PAGE
        if capacity > held:
            raise UserError(
                f"a sequence of {capacity} tokens is longer than planned, and the KV cache on "
                f"{self.device} holds {held} tokens; set a smaller max_tokens, or model.dtype=bfloat16"
            )
        self._allocate(capacity)

    def _allocate(self, capacity: int) -> None:
        self.capacity = count(capacity) * PAGE
        self._host = torch.zeros((self.rows, count(capacity)), dtype=torch.int32)
        self.table = self._host.to(self.device, copy=True)
        """int32 [rows, capacity / PAGE]: the page of each row's positions."""
        self._changed = True

    def _take(self) -> int:
        page = self._free.pop()
        self.references[page] = 1
        return page

    def _release(self, row: int, first: int) -> None:
        """A row's pages from `first` on are no longer its own."""
        for page in self.pages[row][first:]:
            self.references[page] -= 1
            if self.references[page] == 0:
                self._free.append(page)
        del self.pages[row][first:]
        self._changed = True


def count(length: int) -> int:
    """Pages of so many tokens."""
    return -(-length // PAGE)
