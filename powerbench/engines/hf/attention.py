"""The KV cache, and attention over it through the library's attention-function extension point.

The cache is a table of rows, one sequence each, contiguous per layer: [rows, heads, capacity, dim].
A forward pass is a flat batch of tokens, [1, N]: first one token for each decoding row, then pieces of
prompts. Each layer writes all its keys and values, then attends in place: nothing is gathered, and
grouped heads are not repeated.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PretrainedConfig

from powerbench.errors import UserError

ATTENTION = "powerbench"
"""The name to load a model with: `attn_implementation=ATTENTION`."""

SUPPORTED = {"sliding_window", "position_ids", "is_causal", "use_cache", "output_attentions"}


class Piece(NamedTuple):
    """Consecutive tokens of one row's sequence: a prompt, or a part of it."""

    row: int
    start: int
    """Position of the first token."""
    tokens: Sequence[int]


@dataclass(frozen=True)
class Batch:
    """One forward pass: N = len(rows) + the pieces' tokens (+ 1 for a sentinel, see engine)."""

    cache: "KVCache"
    rows: torch.Tensor
    """int64 [R], ascending: the rows that decode one token each."""
    positions: torch.Tensor
    """int64 [R]: that token's position."""
    last_row: int
    longest: int
    """1 + the largest of `positions`."""
    pieces: Sequence[Piece]

    def mask(self, window: int | None) -> torch.Tensor:
        """Additive mask [last_row + 1, 1, 1, longest] of the decoding rows; idle rows see token 0."""
        device, dtype = self.rows.device, self.cache.keys[0].dtype
        at = torch.arange(self.longest, device=device)
        end = torch.zeros(self.last_row + 1, dtype=torch.int64, device=device)
        end[self.rows] = self.positions
        hidden = at > end[:, None]
        if window is not None:
            hidden |= at <= end[:, None] - window
        mask = torch.zeros(hidden.shape, dtype=dtype, device=device)
        return mask.masked_fill_(hidden, float("-inf"))[:, None, None]


class KVCache:
    """Keys and values of `rows` sequences of up to `capacity` tokens.

    Starts as zeros: attention reads, and masks, positions that were never written, and a mask does not
    hide a NaN. On the CPU the zeros are the operating system's, committed as positions are written.
    """

    def __init__(
        self,
        config: PretrainedConfig,
        rows: int,
        capacity: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self.shape = (rows, heads, capacity, dim)
        layers = range(config.num_hidden_layers)
        self.keys = [_zeros(self.shape, dtype, device) for _ in layers]
        self.values = [_zeros(self.shape, dtype, device) for _ in layers]

    @property
    def capacity(self) -> int:
        return self.shape[2]

    def grow(self, capacity: int) -> None:
        """Make room for longer sequences, keeping what is cached."""
        rows, heads, old, dim = self.shape
        self.shape = (rows, heads, capacity, dim)
        for layers in (self.keys, self.values):
            for i, tensor in enumerate(layers):
                layers[i] = _zeros(self.shape, tensor.dtype, tensor.device)
                layers[i][:, :, :old] = tensor

    def copy(self, source: int, target: int, start: int, stop: int) -> None:
        """Copy positions start..stop of one row to another."""
        for tensor in (*self.keys, *self.values):
            tensor[target, :, start:stop] = tensor[source, :, start:stop]


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    lazy = np.zeros(math.prod(shape) * dtype.itemsize, dtype=np.uint8)
    return torch.from_numpy(lazy).view(dtype).view(shape)


def attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    batch: Batch | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """The attention function of a layer: query [1, heads, N, dim] -> [1, N, heads, dim].

    Raises UserError for what a model asks beyond causal attention with a sliding window.
    """
    unknown = [name for name in options.keys() - SUPPORTED if options[name] is not None]
    if unknown:
        raise UserError(f"engine=hf does not support this model's attention ({', '.join(unknown)})")
    assert batch is not None
    layer = int(module.layer_idx)  # type: ignore[arg-type]
    keys, values = batch.cache.keys[layer], batch.cache.values[layer]
    window: int | None = options.get("sliding_window")
    decoding = len(batch.rows)
    keys[batch.rows, :, batch.positions] = key[0, :, :decoding].transpose(0, 1)
    values[batch.rows, :, batch.positions] = value[0, :, :decoding].transpose(0, 1)
    output = torch.zeros_like(query)
    at = decoding
    for row, start, tokens in batch.pieces:
        stop, after = start + len(tokens), at + len(tokens)
        keys[row, :, start:stop] = key[0, :, at:after]
        values[row, :, start:stop] = value[0, :, at:after]
        output[:, :, at:after] = scaled_dot_product_attention(
            query[:, :, at:after],
            keys[row : row + 1, :, :stop],
            values[row : row + 1, :, :stop],
            attn_mask=_causal(start, stop, window, query.device),
            is_causal=start == 0 and window is None,
            scale=scaling,
            enable_gqa=True,
        )
        at = after
    if decoding:
        output[0, :, :decoding] = _decode(
            query[0, :, :decoding], keys, values, batch, window, scaling
        )
    return output.transpose(1, 2), None


def _causal(start: int, stop: int, window: int | None, device: torch.device) -> torch.Tensor | None:
    """bool [stop - start, stop]: who sees whom; None where `is_causal` says it."""
    if start == 0 and window is None:
        return None
    query = torch.arange(start, stop, device=device)[:, None]
    key = torch.arange(stop, device=device)
    seen = key <= query
    return seen if window is None else seen & (key > query - window)


def _decode(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    batch: Batch,
    window: int | None,
    scaling: float | None,
) -> torch.Tensor:
    """One token per row: query [heads, R, dim] -> [heads, R, dim].

    The query heads that share a key head are treated as queries of that one head, so that no head
    is repeated. Many rows go in one call over all rows up to the last; few, one by one.
    """
    heads, decoding, dim = query.shape
    shared = keys.shape[1]
    grouped = query.transpose(0, 1).reshape(decoding, shared, heads // shared, dim)
    width = batch.last_row + 1
    if 2 * decoding > width:
        spread = grouped
        if decoding < width:
            spread = grouped.new_zeros(width, *grouped.shape[1:])
            spread[batch.rows] = grouped
        result = scaled_dot_product_attention(
            spread,
            keys[:width, :, : batch.longest],
            values[:width, :, : batch.longest],
            attn_mask=batch.mask(window),
            scale=scaling,
        )
        result = result if decoding == width else result[batch.rows]
    else:
        result = torch.empty_like(grouped)
        ends = zip(batch.rows.tolist(), batch.positions.tolist(), strict=True)
        for i, (row, last) in enumerate(ends):
            seen = slice(0 if window is None else max(0, last + 1 - window), last + 1)
            result[i] = scaled_dot_product_attention(
                grouped[i : i + 1],
                keys[row : row + 1, :, seen],
                values[row : row + 1, :, seen],
                scale=scaling,
            )[0]
    return result.reshape(decoding, heads, dim).transpose(0, 1)


AttentionInterface.register(ATTENTION, attention)
