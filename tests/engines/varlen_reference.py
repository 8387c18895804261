"""torch's attention over sequences of different lengths, on the CPU: what its CUDA kernel computes and refuses.

The checks are those of `aten/src/ATen/native/transformers/cuda/flash_attn/flash_api.cpp` (mha_varlen_fwd), and
beyond them that no index leaves its table, of which a kernel says nothing.
"""

import torch
from torch.nn.attention.varlen import _varlen_attn

PAGE_MULTIPLE = 256
"""The kernel takes pages of a multiple of this many tokens."""


def varlen_reference(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cu_seq_q: torch.Tensor,
    cu_seq_k: torch.Tensor | None,
    max_q: int,
    max_k: int,
    is_causal: bool = False,
    scale: float | None = None,
    window_size: list[int] | None = None,
    enable_gqa: bool = False,
    seqused_k: torch.Tensor | None = None,
    block_table: torch.Tensor | None = None,
    num_splits: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Attention [T_q, heads, dim] of N sequences; the log-sum-exp and the RNG state are not computed.

    query [T_q, heads, dim]: those of sequence n are cu_seq_q[n] ... cu_seq_q[n + 1] - 1. Its keys are the
    `used` first ones from cu_seq_k[n] on in `key` [T_k, key heads, dim]; or, with a block table [N, pages of a
    sequence], of the pages it names in `key` [pages, page size, key heads, dim]. used is seqused_k[n], or all
    up to cu_seq_k[n + 1]. Causality and windows are aligned to the bottom right: the last query is at used - 1.

    Raises AssertionError where the kernel would refuse, or read what is not there.
    """
    _check_layout(query, key, value, cu_seq_q, cu_seq_k, seqused_k, block_table)
    assert cu_seq_k is not None
    used = cu_seq_k.diff() if seqused_k is None else seqused_k
    lengths = cu_seq_q.diff()
    assert cu_seq_q[0] == 0 and cu_seq_q[-1] == len(query) and (lengths >= 0).all()
    assert lengths.max() <= max_q and used.max() <= max_k and used.min() >= 0
    left, right = window_size or (-1, -1)
    right = 0 if is_causal else right

    owner = torch.repeat_interleave(torch.arange(len(used)), lengths)
    ends = used[owner].long()
    position = ends - lengths[owner] + torch.arange(len(query)) - cu_seq_q[owner]
    at = torch.arange(int(used.max()))
    seen = at < ends[:, None]
    if right >= 0:
        seen &= at <= position[:, None] + right
    if left >= 0:
        seen &= at >= position[:, None] - left

    index = _index(at, used, cu_seq_k, block_table, key)[owner]
    groups = query.shape[1] // key.shape[-2]
    keys, values = (
        table.reshape(-1, *table.shape[-2:])[index].repeat_interleave(groups, 2).float()
        for table in (key, value)
    )
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    scores = torch.einsum("thd,tkhd->thk", query.float(), keys) * scale
    weights = scores.masked_fill(~seen[:, None], float("-inf")).softmax(-1).nan_to_num(0.0)
    output = torch.einsum("thk,tkhd->thd", weights, values).to(query.dtype)
    return output, query.new_empty(0, dtype=torch.float), torch.zeros(2, dtype=torch.uint64)


def _check_layout(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cu_seq_q: torch.Tensor,
    cu_seq_k: torch.Tensor | None,
    seqused_k: torch.Tensor | None,
    block_table: torch.Tensor | None,
) -> None:
    heads, dim = query.shape[1:]
    assert query.dtype in (torch.bfloat16, torch.float16)
    assert query.dtype == key.dtype == value.dtype
    assert query.stride(-1) == key.stride(-1) == value.stride(-1) == 1
    assert dim % 8 == 0 and dim <= 256 and dim == key.shape[-1]
    assert key.shape == value.shape and heads % key.shape[-2] == 0
    assert cu_seq_k is not None and len(cu_seq_k) == len(cu_seq_q)
    for numbers in (cu_seq_q, cu_seq_k, seqused_k):
        assert numbers is None or (numbers.dtype == torch.int32 and numbers.is_contiguous())
    assert seqused_k is None or len(seqused_k) == len(cu_seq_q) - 1
    if block_table is None:
        assert key.ndim == 3
        return
    assert key.ndim == 4 and key.shape[1] % PAGE_MULTIPLE == 0, "pages of a multiple of 256 tokens"
    assert seqused_k is not None, "a block table needs seqused_k"
    assert block_table.dtype == torch.int32 and block_table.stride(-1) == 1
    assert block_table.ndim == 2 and len(block_table) == len(seqused_k)


def _index(
    at: torch.Tensor,
    used: torch.Tensor,
    cu_seq_k: torch.Tensor,
    block_table: torch.Tensor | None,
    key: torch.Tensor,
) -> torch.Tensor:
    """Where the keys at these places of each sequence lie, [N, len(at)]; 0 beyond what is used."""
    if block_table is None:
        index, count = cu_seq_k[:-1, None].long() + at, len(key)
    else:
        pages, size = key.shape[:2]
        assert used.max() <= block_table.shape[1] * size
        index, count = block_table[:, at // size].long() * size + at % size, pages * size
    within = at < used[:, None]
    assert ((index >= 0) & (index < count))[within].all(), "keys beyond the table"
    return torch.where(within, index, 0)


_varlen_attn.register_kernel("cpu")(varlen_reference)
