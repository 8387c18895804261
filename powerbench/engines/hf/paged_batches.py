"""Batches over a KV cache in pages: any number of tokens of each of some rows, in one call of torch's kernel.

Fixed shapes, and no synchronisation: what a decoding step does can be recorded. Where the kernel is not to be
trusted, the pages are gathered, and the plain attention of each row goes over them: right, and slower.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import torch
from torch.nn.functional import scaled_dot_product_attention as sdpa

from powerbench.engines.hf import paged_cache
from powerbench.engines.hf.attention_batches import (
    AttentionInputs,
    Chunk,
    causal_mask,
    group_heads,
    join_tokens,
    mask_of_several,
    split_tokens,
    ungroup_heads,
)
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

    varlen: bool
    """Whether the kernel is used."""
    fixed: bool
    """Whether all sequences have as many tokens."""
    masks: dict[int | None, torch.Tensor] = field(default_factory=dict)

    def attend(self, inputs: AttentionInputs) -> torch.Tensor:
        layer, query, key, value, *_ = inputs
        keys, values = self.cache.layer(layer)
        count = len(self.pages)
        keys[self.pages, self.offsets] = key[:, :count].transpose(0, 1)
        values[self.pages, self.offsets] = value[:, :count].transpose(0, 1)
        inputs = inputs._replace(query=query[:, :count])
        if self.varlen:
            result = self._by_kernel(inputs, keys, values)
        elif self.fixed:
            result = self._as_many_each(inputs, keys, values)
        else:
            result = self._row_by_row(inputs, keys, values)
        return ungroup_heads(result, query)

    def _by_kernel(
        self, inputs: AttentionInputs, keys: torch.Tensor, values: torch.Tensor
    ) -> torch.Tensor:
        """[N, heads, dim]; keys and values: [pages, page, key heads, dim]."""
        from torch.nn.attention.varlen import varlen_attn

        query, window = inputs.query, inputs.window
        result = varlen_attn(
            query.transpose(0, 1).contiguous(),
            keys,
            values,
            self.starts,
            self.starts,  # read for nothing but their number
            self.most,
            self.cache.capacity,
            scale=inputs.scaling,
            window_size=self._window(window),
            enable_gqa=True,
            seqused_k=self.used,
            block_table=self.table,
            num_splits=self._splits(len(query), keys.shape[2], window),
        )
        assert isinstance(result, torch.Tensor)
        return result

    def _as_many_each(
        self, inputs: AttentionInputs, keys: torch.Tensor, values: torch.Tensor
    ) -> torch.Tensor:
        """As `_by_kernel`, over whole rows: fixed shapes, no synchronisation."""
        query, window, width = inputs.query, inputs.window, self.most
        grouped = group_heads(query, keys.shape[2])
        if window not in self.masks:  # the same in all layers with this window
            ends = self.used[:, None] - torch.arange(width, 0, -1, device=query.device)
            length, group = self.cache.capacity, grouped.shape[2]
            self.masks[window] = mask_of_several(ends, length, window, group, query.dtype)
        key, value = (pool[self.table].flatten(1, 2).transpose(1, 2) for pool in (keys, values))
        queries = join_tokens(grouped.view(-1, width, *grouped.shape[1:]))
        mask = self.masks[window]
        result = sdpa(queries, key, value, attn_mask=mask, scale=inputs.scaling)
        return split_tokens(result, width).flatten(0, 1)

    def _row_by_row(
        self, inputs: AttentionInputs, keys: torch.Tensor, values: torch.Tensor
    ) -> torch.Tensor:
        """As `_by_kernel`, for chunks of prompts."""
        lengths, parts = self.starts.diff().tolist(), []
        chunks = zip(
            torch.split(inputs.query, lengths, 1), self.used.tolist(), self.table, strict=True
        )
        for query, used, pages in chunks:
            key, value = (
                pool[pages].flatten(0, 1)[:used].transpose(0, 1) for pool in (keys, values)
            )
            start = used - query.shape[1]
            part = sdpa(
                query[None],
                key[None],
                value[None],
                attn_mask=causal_mask(start, used, inputs.window, query.device),
                is_causal=start == 0 and inputs.window is None,
                scale=inputs.scaling,
                enable_gqa=True,
            )
            parts.append(part[0].transpose(0, 1))
        return torch.cat(parts)

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
    varlen: bool = True,
) -> PagedBatch:
    """As many tokens for each of these rows, int64 [R], at `positions` [R, W], which follow each other; idle
    rows read W keys, and write to the scratch page, as do tokens beyond what is reserved of their row.

    leading: whether the rows are 0, 1 ... R - 1.
    """
    page, (count, width) = paged_cache.PAGE, positions.shape
    table = cache.table[:count] if leading else cache.table[rows]
    own = table.gather(1, positions // page)
    return PagedBatch(
        cache,
        pages=torch.where(active[:, None], own, 0).long().flatten(),
        offsets=(positions % page).flatten(),
        starts=torch.arange(0, count * width + 1, width, dtype=torch.int32, device=rows.device),
        used=torch.where(active, positions[:, 0] + width, width).int(),
        table=table,
        most=width,
        varlen=varlen,
        fixed=True,
    )


def paged_prefill(cache: PagedCache, chunks: Sequence[Chunk], varlen: bool = True) -> PagedBatch:
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
        varlen=varlen,
        fixed=False,
    )
