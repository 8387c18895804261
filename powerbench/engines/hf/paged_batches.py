"""Batches over a KV cache in pages: any number of tokens of each of some rows, in one call of torch's kernel.

Fixed shapes, and no synchronisation: what a decoding step does can be recorded.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch

from powerbench.engines.hf import paged_cache
from powerbench.engines.hf.attention_batches import AttentionInputs, Chunk
from powerbench.engines.hf.paged_cache import PagedCache


@dataclass(frozen=True)
class PagedBatch:
    """The last tokens of S rows' sequences, N in all; what does not differ between layers, once."""

    cache: PagedCache
    pages: torch.Tensor
    """int64 [N]: where each token's keys and values are written."""
    offsets: torch.Tensor
    """int64 [N]: at which of the page's tokens."""
    starts: torch.Tensor
    """int32 [S + 1]: where the tokens of each sequence begin, and N."""
    used: torch.Tensor
    """int32 [S]: the length of each sequence, these tokens included."""
    table: torch.Tensor
    """int32 [S, capacity / page]"""
    most: int
    """The largest number of tokens of a sequence."""

    def attend(self, inputs: AttentionInputs) -> torch.Tensor:
        from torch.nn.attention.varlen import varlen_attn

        layer, query, key, value, window, scaling = inputs
        keys, values = self.cache.layer(layer)
        count = len(self.pages)
        keys[self.pages, self.offsets] = key[:, :count].transpose(0, 1)
        values[self.pages, self.offsets] = value[:, :count].transpose(0, 1)
        result = varlen_attn(
            query[:, :count].transpose(0, 1).contiguous(),
            keys,
            values,
            self.starts,
            self.starts,  # read for nothing but their number
            self.most,
            self.cache.capacity,
            scale=scaling,
            window_size=self._window(window),
            enable_gqa=True,
            seqused_k=self.used,
            block_table=self.table,
            num_splits=self._splits(len(query), keys.shape[2], window),
        )
        assert isinstance(result, torch.Tensor)
        if count == query.shape[1]:
            return result.transpose(0, 1)
        output = torch.zeros_like(query)
        output[:, :count] = result.transpose(0, 1)
        return output

    def _window(self, window: int | None) -> tuple[int, int]:
        """Causal, aligned to each sequence's end; which needs not be said of a single token."""
        if window is None:
            return -1, (-1 if self.most == 1 else 0)
        return window - 1, 0

    def _splits(self, heads: int, key_heads: int, window: int | None) -> int | None:
        """The kernel puts parts of long sequences together only in the layout of one query for each, its heads
        grouped (mha_varlen_fwd's seqlenq_ngroups_swapped, pytorch flash_api.cpp): there it may choose."""
        return None if self.most == 1 and heads > key_heads and window is None else 1


def paged_decode(
    cache: PagedCache,
    rows: torch.Tensor,
    positions: torch.Tensor,
    active: torch.Tensor,
    leading: bool,
) -> PagedBatch:
    """One token for each of these rows, int64 [R]; idle ones read one key, and write to the scratch page.

    leading: whether the rows are 0, 1 ... R - 1.
    """
    page, count = paged_cache.PAGE, len(rows)
    table = cache.table[:count] if leading else cache.table[rows]
    own = table.gather(1, (positions // page)[:, None])[:, 0]
    return PagedBatch(
        cache,
        pages=torch.where(active, own, 0).long(),
        offsets=positions % page,
        starts=torch.arange(count + 1, dtype=torch.int32, device=rows.device),
        used=torch.where(active, positions + 1, 1).int(),
        table=table,
        most=1,
    )


def paged_prefill(cache: PagedCache, chunks: Sequence[Chunk]) -> PagedBatch:
    """Chunks of some rows' prompts, one after the other."""
    page, device = paged_cache.PAGE, cache.device
    lengths = [len(chunk.tokens) for chunk in chunks]
    places = [
        (chunk.row, position)
        for chunk, length in zip(chunks, lengths, strict=True)
        for position in range(chunk.start, chunk.start + length)
    ]
    rows, positions = torch.tensor(places, device=device).T
    ends = [chunk.start + length for chunk, length in zip(chunks, lengths, strict=True)]
    return PagedBatch(
        cache,
        pages=cache.table[rows, positions // page].long(),
        offsets=positions % page,
        starts=torch.tensor([0, *accumulate(lengths)], dtype=torch.int32, device=device),
        used=torch.tensor(ends, dtype=torch.int32, device=device),
        table=cache.table[torch.tensor([chunk.row for chunk in chunks], device=device)],
        most=max(lengths),
    )
