"""The tokens of a forward pass, and how they attend to the resident KV cache.

Each layer writes its keys and values into the cache, then attends in place: nothing is gathered, and
grouped heads are not repeated. What a batch is, one token for each of many rows or chunks of a few
prompts, decides how.
"""

import inspect
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple, Protocol

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention as sdpa

from powerbench.engines.hf.kv_cache import KVCache, round_up


class AttentionInputs(NamedTuple):
    """What a layer hands to attention, for the N tokens of a forward pass."""

    layer: int
    query: torch.Tensor
    """[heads, N, dim]"""
    key: torch.Tensor
    """[key heads, N, dim]"""
    value: torch.Tensor
    """As `key`."""
    window: int | None
    scaling: float


class Batch(Protocol):
    """What the tokens of a forward pass are. Tokens beyond its own are padding: attended as zeros."""

    @property
    def cache(self) -> KVCache: ...

    def attend(self, inputs: AttentionInputs) -> torch.Tensor:
        """Write keys and values, and attend: [heads, N, dim]."""
        ...


class Chunk(NamedTuple):
    """Consecutive tokens of one row's sequence: a prompt, or a part of it."""

    row: int
    start: int
    """Position of the first token."""
    tokens: Sequence[int]


@dataclass(frozen=True)
class Prefill:
    """Chunks of a few rows' prompts, one after the other."""

    cache: KVCache
    chunks: Sequence[Chunk]

    def attend(self, inputs: AttentionInputs) -> torch.Tensor:
        layer, query, key, value, window, scaling = inputs
        keys, values = self.cache.layer(layer)
        output, at = torch.zeros_like(query), 0
        for row, start, tokens in self.chunks:
            stop, after = start + len(tokens), at + len(tokens)
            keys[row, :, start:stop] = key[:, at:after]
            values[row, :, start:stop] = value[:, at:after]
            with _kernels(query.device):
                output[:, at:after] = sdpa(
                    query[None, :, at:after],
                    keys[row : row + 1, :, :stop],
                    values[row : row + 1, :, :stop],
                    attn_mask=causal_mask(start, stop, window, query.device),
                    is_causal=start == 0 and window is None,
                    scale=scaling,
                    enable_gqa=True,
                )[0]
            at = after
        return output


@dataclass(frozen=True)
class DecodeCUDA:
    """The same number of tokens for each of some rows, on CUDA: fixed shapes, and no synchronisation."""

    cache: KVCache
    rows: torch.Tensor
    """int64 [R]"""
    positions: torch.Tensor
    """int64 [R, W], those of a row following each other."""
    leading: bool
    """Whether `rows` are 0, 1 ... R - 1."""
    masks: dict[int | None, torch.Tensor] = field(default_factory=dict)

    def attend(self, inputs: AttentionInputs) -> torch.Tensor:
        count, width = self.positions.shape
        rows = self.rows[:, None].expand(-1, width).flatten()
        keys, values = _write(self.cache, rows, self.positions.flatten(), inputs)
        query, window = inputs.query, inputs.window
        grouped = group_heads(query[:, : len(rows)], keys.shape[1])
        queries = join_tokens(grouped.view(count, width, *grouped.shape[1:]))
        if window not in self.masks:  # the same in all layers with this window
            length, group = self.cache.capacity, grouped.shape[2]
            self.masks[window] = mask_of_several(self.positions, length, window, group, query.dtype)
        which = slice(count) if self.leading else self.rows
        pair, mask = (keys[which], values[which]), self.masks[window]
        result = sdpa(queries, *pair, attn_mask=mask, scale=inputs.scaling)
        return ungroup_heads(split_tokens(result, width).flatten(0, 1), query)


@dataclass(frozen=True)
class DecodeFixedShape:
    """Tokens one by one, each in a shape that its own position decides: deterministic mode."""

    cache: KVCache
    rows: torch.Tensor
    """int64 [N']: whose token each is; a row may come several times."""
    positions: torch.Tensor
    """int64 [N']"""
    where: Sequence[tuple[int, int]]
    """The same as numbers: row and position."""
    masks: dict[int | None, list[torch.Tensor]] = field(default_factory=dict)

    def attend(self, inputs: AttentionInputs) -> torch.Tensor:
        keys, values = _write(self.cache, self.rows, self.positions, inputs)
        query, window, scaling = inputs.query, inputs.window, inputs.scaling
        count = len(self.rows)
        grouped = group_heads(query[:, :count], keys.shape[1])
        result = torch.empty_like(grouped)
        masks = self._masks(window, query.dtype)
        for i, (row, _) in enumerate(self.where):
            length = masks[i].shape[-1]
            pair = keys[row : row + 1, :, :length], values[row : row + 1, :, :length]
            result[i] = sdpa(grouped[i : i + 1], *pair, attn_mask=masks[i], scale=scaling)[0]
        return ungroup_heads(result, query)

    def _masks(self, window: int | None, dtype: torch.dtype) -> list[torch.Tensor]:
        """A token's own, over the next multiple of STRIDE: the same in all layers with this window."""
        if window not in self.masks:
            self.masks[window] = [
                additive_mask(self.positions[i : i + 1], round_up(position + 1), window, dtype)
                for i, (_, position) in enumerate(self.where)
            ]
        return self.masks[window]


@cache
def has_varlen(device: torch.device, dtype: torch.dtype, dim: int) -> bool:
    """Whether torch's attention over sequences of different lengths, and over pages, runs here."""
    if device.type != "cuda" or dtype not in (torch.bfloat16, torch.float16):
        return False
    if dim % 8 or dim > 256:
        return False
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return False
    named = inspect.signature(varlen_attn).parameters
    needed = {"seqused_k", "enable_gqa", "window_size", "scale", "block_table", "num_splits"}
    return needed <= named.keys() and torch.cuda.get_device_capability(device) >= (8, 0)


def _kernels(device: torch.device) -> AbstractContextManager[None]:
    """On CUDA without cuDNN's, which plans anew for every shape, and prompts have as many as lengths."""
    if device.type != "cuda":
        return nullcontext()
    return sdpa_kernel(
        [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    )


def _write(
    cache: KVCache, rows: torch.Tensor, positions: torch.Tensor, inputs: AttentionInputs
) -> tuple[torch.Tensor, torch.Tensor]:
    """Put the first R tokens' keys and values where they belong; returns the layer's tables."""
    keys, values = cache.layer(inputs.layer)
    keys[rows, :, positions] = inputs.key[:, : len(rows)].transpose(0, 1)
    values[rows, :, positions] = inputs.value[:, : len(rows)].transpose(0, 1)
    return keys, values


def group_heads(query: torch.Tensor, shared: int) -> torch.Tensor:
    """[heads, R, dim] -> [R, shared, heads / shared, dim].

    The query heads that share a key head become queries of that one head, so that no head is repeated.
    """
    heads, rows, dim = query.shape
    return query.transpose(0, 1).reshape(rows, shared, heads // shared, dim)


def join_tokens(grouped: torch.Tensor) -> torch.Tensor:
    """[R, W, shared, group, dim] -> [R, shared, W * group, dim]: all queries that a row has of a key head."""
    return grouped.transpose(1, 2).flatten(2, 3)


def split_tokens(result: torch.Tensor, width: int) -> torch.Tensor:
    """Back: [R, shared, W * group, dim] -> [R, W, shared, group, dim]."""
    return result.view(*result.shape[:2], width, -1, result.shape[3]).transpose(1, 2)


def ungroup_heads(result: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
    """Back to the shape of the query, [heads, N, dim]; tokens beyond the result's are zero."""
    heads, tokens, dim = query.shape
    flat = result.reshape(-1, heads, dim).transpose(0, 1)
    if flat.shape[1] == tokens:
        return flat
    output = torch.zeros_like(query)
    output[:, : flat.shape[1]] = flat
    return output


def additive_mask(
    ends: torch.Tensor, length: int, window: int | None, dtype: torch.dtype
) -> torch.Tensor:
    """[R, 1, 1, length]: 0 for the positions that a token at ends[r] sees, else -inf."""
    at = torch.arange(length, device=ends.device)
    hidden = at > ends[:, None]
    if window is not None:
        hidden |= at <= ends[:, None] - window
    mask = torch.zeros(hidden.shape, dtype=dtype, device=ends.device)
    return mask.masked_fill_(hidden, float("-inf"))[:, None, None]


def mask_of_several(
    ends: torch.Tensor, length: int, window: int | None, group: int, dtype: torch.dtype
) -> torch.Tensor:
    """As `additive_mask`, for W tokens a row, ends [R, W], each with `group` queries of a key head:
    [R, 1, W * group, length], or [R, 1, 1, length] if W is 1."""
    rows, width = ends.shape
    mask = additive_mask(ends.flatten(), length, window, dtype)
    if width == 1:
        return mask
    return mask.view(rows, 1, width, 1, length).expand(-1, -1, -1, group, -1).flatten(2, 3)


def causal_mask(
    start: int, stop: int, window: int | None, device: torch.device
) -> torch.Tensor | None:
    """bool [stop - start, stop]: who sees whom; None where `is_causal` says it."""
    if start == 0 and window is None:
        return None
    query = torch.arange(start, stop, device=device)[:, None]
    key = torch.arange(stop, device=device)
    seen = key <= query
    return seen if window is None else seen & (key > query - window)
