"""Attention of a decoding step on the CPU, over the resident KV cache: what all layers share is made once."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch.nn.functional import scaled_dot_product_attention as sdpa

from powerbench.engines.hf.attention_batches import (
    AttentionInputs,
    group_heads,
    join_tokens,
    mask_of_several,
    split_tokens,
    ungroup_heads,
)
from powerbench.engines.hf.kv_cache import ContiguousCache

MAX_BATCHED_PRODUCT = 256
"""Up to this length two batched products in float32 beat the fused kernel, for one query per row."""

MIN_BATCHED_PRODUCT = 8
"""The number of rows from which they do."""


class Segment(NamedTuple):
    """The tokens of one row in a pass: consecutive ones."""

    row: int
    at: int
    """Index of the first one in the pass."""
    after: int
    first: int
    """Its position."""
    last: int


class DecodeCPU:
    """The next tokens of each of R rows: one, or a draft's after it. N tokens in all.

    rows: int64 [N], whose token each is: ascending, a row's tokens following each other. positions: int64 [N].
    offsets: int64 [N], the how manieth of its row's tokens each is.
    """

    def __init__(
        self,
        cache: ContiguousCache,
        rows: torch.Tensor,
        positions: torch.Tensor,
        offsets: torch.Tensor,
    ) -> None:
        self.cache, self.rows, self.positions, self.offsets = cache, rows, positions, offsets
        self.segments = _segments(rows.tolist(), positions.tolist(), offsets.tolist())
        self.end_row = 1 + self.segments[-1].row
        self.longest = 1 + max(each.last for each in self.segments)
        self.most = max(each.after - each.at for each in self.segments)
        self.addresses = cache.addresses(rows, positions)
        self.masks: dict[int | None, torch.Tensor] = {}
        self.masks_by_row: dict[int | None, list[torch.Tensor | None]] = {}

    def attend(self, inputs: AttentionInputs) -> torch.Tensor:
        """Write keys and values, and attend: [heads, N, dim]."""
        count = len(self.rows)
        key, value = (t[:, :count].transpose(0, 1) for t in (inputs.key, inputs.value))
        keys, values = self.cache.write(inputs.layer, self.addresses, key, value)
        grouped = group_heads(inputs.query[:, :count], keys.shape[1])
        if 2 * len(self.segments) > self.end_row:
            result = self._together(grouped, keys, values, inputs)
        else:
            result = self._row_by_row(grouped, keys, values, inputs)
        return ungroup_heads(result, inputs.query)

    def _row_by_row(
        self,
        grouped: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        inputs: AttentionInputs,
    ) -> torch.Tensor:
        window = inputs.window
        masks = self._masks_by_row(window, grouped)
        outputs = []
        for (row, at, after, first, last), mask in zip(self.segments, masks, strict=True):
            seen = slice(_start(first, window), last + 1)
            pair = keys[row : row + 1, :, seen], values[row : row + 1, :, seen]
            queries = join_tokens(grouped[at:after][None])
            output = sdpa(queries, *pair, attn_mask=mask, scale=inputs.scaling)
            outputs.append(split_tokens(output, after - at)[0])
        return torch.cat(outputs) if len(outputs) > 1 else outputs[0]

    def _together(
        self,
        grouped: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        inputs: AttentionInputs,
    ) -> torch.Tensor:
        """All rows up to the last in one call, as many tokens of each; idle ones attend to the first token."""
        shape = self.end_row, self.most
        if spread := len(grouped) < self.end_row * self.most:
            tokens = grouped.new_zeros(*shape, *grouped.shape[1:])
            tokens[self.rows, self.offsets] = grouped
        else:
            tokens = grouped.view(*shape, *grouped.shape[1:])
        queries = join_tokens(tokens)
        keys, values = (t[: self.end_row, :, : self.longest] for t in (keys, values))
        mask = self._mask(inputs.window, grouped.shape[2], queries)
        if _in_products(queries, self.longest):
            scores = torch.baddbmm(
                mask.flatten(0, 1),
                queries.flatten(0, 1),
                keys.flatten(0, 1).transpose(1, 2),
                alpha=inputs.scaling,
            )
            result = (scores.softmax(-1) @ values.flatten(0, 1)).view(queries.shape)
        else:
            result = sdpa(queries, keys, values, attn_mask=mask, scale=inputs.scaling)
        result = split_tokens(result, self.most)
        return result[self.rows, self.offsets] if spread else result.flatten(0, 1)

    def _mask(self, window: int | None, group: int, queries: torch.Tensor) -> torch.Tensor:
        """Additive, [end_row, heads or 1, queries or 1, longest]: the same in all layers with this window."""
        if window not in self.masks:
            ends = self.positions.new_zeros(self.end_row, self.most)
            ends[self.rows, self.offsets] = self.positions
            mask = mask_of_several(ends, self.longest, window, group, queries.dtype)
            if _in_products(queries, self.longest):  # a view would be copied in each layer
                mask = mask.expand(-1, queries.shape[1], -1, -1).contiguous()
            self.masks[window] = mask
        return self.masks[window]

    def _masks_by_row(self, window: int | None, grouped: torch.Tensor) -> list[torch.Tensor | None]:
        """Additive, [1, 1, queries, seen] for each row of several tokens: the same in all such layers."""
        if window not in self.masks_by_row:
            self.masks_by_row[window] = [
                None
                if each.first == each.last
                else mask_of_several(
                    self.positions[None, each.at : each.after] - _start(each.first, window),
                    each.last + 1 - _start(each.first, window),
                    window,
                    grouped.shape[2],
                    grouped.dtype,
                )
                for each in self.segments
            ]
        return self.masks_by_row[window]


def _start(first: int, window: int | None) -> int:
    """The first position that a token sees, or others that follow it."""
    return 0 if window is None else max(0, first + 1 - window)


def _in_products(queries: torch.Tensor, longest: int) -> bool:
    """Whether rows attend in two batched products, rather than by torch's fused kernel."""
    return (
        queries.dtype == torch.float32
        and len(queries) >= MIN_BATCHED_PRODUCT
        and longest <= MAX_BATCHED_PRODUCT
    )


def _segments(
    rows: Sequence[int], positions: Sequence[int], offsets: Sequence[int]
) -> list[Segment]:
    """The tokens of each row, from what `DecodeCPU` is made of."""
    starts = [at for at, offset in enumerate(offsets) if offset == 0]
    return [
        Segment(rows[at], at, after, positions[at], positions[after - 1])
        for at, after in pairwise([*starts, len(rows)])
    ]
