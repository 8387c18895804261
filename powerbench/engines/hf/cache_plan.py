"""How many chains the free memory holds, and the KV cache for them.

In contiguous rows each chain has two, of the longest length that may come. In pages, chains take what their
tokens need, and are planned at a share of that length; where they turn out longer, fewer run at once.
"""

import math
import sys
from typing import NamedTuple

import torch
from transformers import PretrainedConfig

from powerbench.engines.hf import kv_cache, paged_cache
from powerbench.engines.hf.attention_batches import has_varlen
from powerbench.engines.hf.kv_cache import SHARE, ContiguousCache, KVCache, row_bytes, shape_of
from powerbench.engines.hf.paged_cache import PagedCache
from powerbench.errors import UserError

MAX_NUM_SEQS = {"cpu": 32, "mps": 32, "cuda": 256}
"""Requests at once, at most, where `engine.max_num_seqs` is null."""

PLANNED_SHARE = 0.5
"""Of its longest length, what a chain is planned to hold: its response, and what its proposal departs by. The
paper's responses on MATH500 are 679 tokens on average, of up to 3072."""


class Plan(NamedTuple):
    """What the memory is given to."""

    num_seqs: int
    pages: int
    """Of which the scratch page is none; 0 if rows are contiguous."""


def make_cache(
    max_num_seqs: int | None,
    config: PretrainedConfig,
    capacity: int,
    dtype: torch.dtype,
    device: torch.device,
    fixed_shape: bool,
) -> tuple[KVCache, int]:
    """The cache for what is free on a device, two rows a chain, and how many chains it is for.

    fixed_shape: rows must be contiguous. Says so on stderr if less than `max_num_seqs` fit, or than what null
    stands for. Raises UserError where not even one chain fits.
    """
    most = max_num_seqs or MAX_NUM_SEQS[device.type]
    paged = not fixed_shape and has_varlen(device, dtype, shape_of(config)[2])
    free = kv_cache.free_bytes(device)
    plan = plan_pages if paged else plan_rows
    num_seqs, pages = plan(most, free, config, capacity, dtype)
    if num_seqs < 1:
        least = page_bytes(config, dtype) * paged_cache.count(capacity)
        needed = least if paged else 2 * row_bytes(config, capacity, dtype)
        raise UserError(
            f"a chain of up to {capacity} tokens needs {needed / 2**30:.1f} GiB of KV cache, and "
            f"{free / 2**30:.1f} GiB are free on {device}; set a smaller max_tokens, or "
            f"model.dtype=bfloat16"
        )
    if num_seqs < most:
        asked = f"engine.max_num_seqs={max_num_seqs}" if max_num_seqs else f"a batch of {most}"
        print(f"{asked} does not fit memory; using {num_seqs}", file=sys.stderr)
    rows = 2 * num_seqs
    try:
        if paged:
            return PagedCache(config, rows, capacity, pages, dtype, device), num_seqs
        return ContiguousCache(config, rows, capacity, dtype, device), num_seqs
    except torch.OutOfMemoryError as error:
        size = f"{pages} pages" if paged else f"{rows} rows of {capacity} tokens"
        raise UserError(
            f"the KV cache of {size} does not fit {device}; set a smaller engine.max_num_seqs"
        ) from error


def plan_rows(
    most: int, free: float, config: PretrainedConfig, capacity: int, dtype: torch.dtype
) -> Plan:
    """At most `most` chains of two contiguous rows of `capacity` tokens in so many free bytes."""
    fit = max(0, int(SHARE * free)) // (2 * row_bytes(config, capacity, dtype))
    return Plan(min(most, fit), pages=0)


def plan_pages(
    most: int, free: float, config: PretrainedConfig, capacity: int, dtype: torch.dtype
) -> Plan:
    """At most `most` chains of up to `capacity` tokens in pages in so many free bytes; none if not even one of
    that length fits."""
    pages = max(0, int(SHARE * free)) // page_bytes(config, dtype) - 1
    whole = paged_cache.count(capacity)
    if pages < whole:
        return Plan(0, 0)
    planned = paged_cache.count(math.ceil(PLANNED_SHARE * capacity)) + 1
    num_seqs = min(most, max(1, pages // planned))
    return Plan(num_seqs, min(pages, 2 * num_seqs * whole))


def page_bytes(config: PretrainedConfig, dtype: torch.dtype) -> int:
    """What a page takes, keys and values of all layers."""
    return 2 * math.prod(shape_of(config)) * paged_cache.PAGE * dtype.itemsize
