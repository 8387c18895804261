"""The KV cache: what its users need of it, the one of contiguous rows, and what is free for it."""

import math
from typing import Protocol

import numpy as np
import psutil
import torch
from transformers import PretrainedConfig

STRIDE = 64
"""Rows have room for a multiple of this many tokens."""

SHARE = 0.9
"""Of the memory that is free, how much the cache may take: the rest is for activations."""


class KVCache(Protocol):
    """Keys and values of `rows` sequences of up to `capacity` tokens."""

    rows: int
    capacity: int
    dtype: torch.dtype

    def layer(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of one layer, as the batches for this cache read them."""
        ...

    def spare(self) -> float:
        """How many more tokens can be written than have been reserved; infinity where rows have fixed room."""
        ...

    def owned(self, row: int) -> int:
        """What memory would be free if a row held nothing, in pages; 0 where rows have fixed room."""
        ...

    def shared_part(self, length: int) -> int:
        """Of so many tokens that another row holds, how many take no memory in a second one."""
        ...

    def copy(self, source: int, target: int, start: int, stop: int) -> None:
        """Give a row the positions start..stop of another, whose tokens up to `stop` are the same."""
        ...

    def truncate(self, row: int, length: int) -> None:
        """Nothing of a row is needed beyond its first `length` positions."""
        ...

    def reserve(self, row: int, start: int, stop: int) -> bool:
        """See to it that a row, truncated to `start` or reserved up to there, can be written from there to
        `stop`; False, and nothing is changed, if memory lacks."""
        ...

    def commit(self) -> None:
        """What was copied, reserved and truncated holds on the device from now on."""
        ...

    def grow(self, capacity: int, used: list[int]) -> None:
        """Make room for longer sequences, keeping the first used[row] positions of every row."""
        ...


class ContiguousCache:
    """A `KVCache` that is a table with room for `capacity` tokens in every row.

    Starts as zeros: attention reads, and masks, positions that were never written, and a mask does not
    hide a NaN. On the CPU the zeros are the operating system's, committed as positions are written, and
    a row is [heads, capacity, dim], as batched products read it; on CUDA it is [capacity, heads, dim],
    as its kernels for sequences of different lengths do.
    """

    def __init__(
        self,
        config: PretrainedConfig,
        rows: int,
        capacity: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.shape = shape_of(config)
        self.rows, self.capacity = rows, round_up(capacity)
        self.dtype, self.device = dtype, device
        self._allocate()

    def layer(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of one layer: [rows, heads, capacity, dim] each, a view."""
        return self.table[0, index], self.table[1, index]

    def addresses(self, rows: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Where these tokens' keys are in any layer, as `write` takes it: rows, positions int64 [N]."""
        layer = self.table[0, 0]
        of_row, of_head, of_position = (stride // layer.shape[-1] for stride in layer.stride()[:3])
        heads = of_head * torch.arange(layer.shape[1], device=self.device)
        return ((of_row * rows + of_position * positions)[:, None] + heads).flatten()

    def write(
        self, layer: int, addresses: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Put keys and values, [N, heads, dim], at N tokens' addresses; returns the tables of the layer."""
        for flat, new in zip(self.flat[:, layer], (key, value), strict=True):
            every = new.expand(-1, self.shape[1], -1)  # a single head serves as each of them
            flat.index_copy_(0, addresses, every.reshape(-1, flat.shape[1]))
        return self.layer(layer)

    def spare(self) -> float:
        return math.inf

    def owned(self, row: int) -> int:
        return 0

    def shared_part(self, length: int) -> int:
        return 0

    def truncate(self, row: int, length: int) -> None:
        pass

    def reserve(self, row: int, start: int, stop: int) -> bool:
        return True

    def commit(self) -> None:
        pass

    def copy(self, source: int, target: int, start: int, stop: int) -> None:
        """Copy positions start..stop of one row to another."""
        self.table[:, :, target, :, start:stop] = self.table[:, :, source, :, start:stop]

    def grow(self, capacity: int, used: list[int]) -> None:
        """Make room for longer sequences, keeping the first used[row] positions of every row."""
        old, self.capacity = self.table, round_up(capacity)
        self._allocate()  # beside the old one: what is cached outlives a failure
        for row, length in enumerate(used):
            self.table[:, :, row, :, :length] = old[:, :, row, :, :length]

    def _allocate(self) -> None:
        layers, heads, dim = self.shape
        if self.device.type == "cpu":
            shape = (2, layers, self.rows, heads, self.capacity, dim)
            lazy = np.zeros(math.prod(shape) * self.dtype.itemsize, dtype=np.uint8)
            table = torch.from_numpy(lazy).view(self.dtype).view(shape)
            self.table = table
        else:
            shape = (2, layers, self.rows, self.capacity, heads, dim)
            table = torch.zeros(shape, dtype=self.dtype, device=self.device)
            self.table = table.transpose(3, 4)
        self.flat = table.flatten(2, -2)


def shape_of(config: PretrainedConfig) -> tuple[int, int, int]:
    """Layers, key heads and their dimension."""
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return config.num_hidden_layers, heads, dim


def round_up(capacity: int) -> int:
    return -(-capacity // STRIDE) * STRIDE


def row_bytes(config: PretrainedConfig, capacity: int, dtype: torch.dtype) -> int:
    """What one row takes."""
    return 2 * math.prod(shape_of(config)) * round_up(capacity) * dtype.itemsize


def free_bytes(device: torch.device) -> int:
    """Memory that is free on a device."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    return psutil.virtual_memory().available
