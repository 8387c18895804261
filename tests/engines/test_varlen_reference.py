"""The stand-in for torch's varlen kernel: SDPA's numbers, from flat tables and from pages; its refusals.

Run: pytest tests/engines/test_varlen_reference.py
"""

from typing import Any

import pytest
import torch
import varlen_reference  # noqa: F401  (registers itself)
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import scaled_dot_product_attention as sdpa

HEADS, SHARED, DIM, SIZE = 4, 2, 16, 256
QUERIES, USED = (1, 5, 3), (270, 9, 3)


def arguments() -> dict[str, Any]:
    """Three sequences, of which the first reaches into a second page; all keys from one table."""
    torch.manual_seed(0)
    dtype, starts = torch.bfloat16, (512, 0, 900)
    return {
        "query": torch.randn(sum(QUERIES), HEADS, DIM, dtype=dtype),
        "key": torch.randn(1024, SHARED, DIM, dtype=dtype),
        "value": torch.randn(1024, SHARED, DIM, dtype=dtype),
        "cu_seq_q": torch.tensor([0, 1, 6, 9], dtype=torch.int32),
        "cu_seq_k": torch.tensor([*starts, 0], dtype=torch.int32),
        "max_q": 5,
        "max_k": 512,
        "enable_gqa": True,
        "seqused_k": torch.tensor(USED, dtype=torch.int32),
    }


def expected(
    query: torch.Tensor, keys: list[torch.Tensor], values: list[torch.Tensor], window: int
) -> torch.Tensor:
    """Sequence by sequence: causal from the bottom right, over the last `window` keys."""
    parts = []
    for q, k, v in zip(query.split(QUERIES), keys, values, strict=True):
        position = torch.arange(len(k) - len(q), len(k))[:, None]
        seen = (torch.arange(len(k)) <= position) & (torch.arange(len(k)) > position - window)
        q, k, v = (each.transpose(0, 1)[None].float() for each in (q, k, v))
        parts.append(sdpa(q, k, v, attn_mask=seen, enable_gqa=True)[0].transpose(0, 1))
    return torch.cat(parts)


@pytest.mark.parametrize("window", [4, 10**6])
def test_queries_are_aligned_to_the_end_of_their_keys(window: int) -> None:
    given = arguments()
    starts = given["cu_seq_k"].tolist()
    keys, values = (
        [given[name][at : at + used] for at, used in zip(starts, USED, strict=False)]
        for name in ("key", "value")
    )
    left = -1 if window == 10**6 else window - 1
    output = varlen_attn(**given, window_size=(left, 0))
    wanted = expected(given["query"], keys, values, window)
    torch.testing.assert_close(output.float(), wanted, atol=0.02, rtol=0.02)


def test_pages_may_lie_anywhere() -> None:
    given = arguments()
    flat = varlen_attn(**given, window_size=(-1, 0))
    pages = torch.tensor([[3, 1], [2, 0], [0, 0]], dtype=torch.int32)
    for name in ("key", "value"):
        paged = torch.full((4, SIZE, SHARED, DIM), 9.0, dtype=torch.bfloat16)
        for sequence, used in enumerate(USED):
            start = int(given["cu_seq_k"][sequence])
            for first in range(0, used, SIZE):
                part = given[name][start + first : start + min(used, first + SIZE)]
                paged[pages[sequence, first // SIZE], : len(part)] = part
        given[name] = paged
    assert torch.equal(varlen_attn(**given, window_size=(-1, 0), block_table=pages), flat)


@pytest.mark.parametrize(
    "odd",
    [
        {"query": torch.zeros(9, HEADS, DIM)},
        {"key": torch.zeros(1024, DIM, SHARED, dtype=torch.bfloat16).transpose(1, 2)},
        {"seqused_k": torch.tensor(USED)},
        {"seqused_k": torch.tensor([600, 9, 3], dtype=torch.int32)},
        {"max_q": 4},
        {"cu_seq_k": torch.tensor([512, 0, 1022, 0], dtype=torch.int32)},
        {"block_table": torch.zeros(3, 2, dtype=torch.int32)},
        {
            "key": torch.zeros(4, 128, SHARED, DIM, dtype=torch.bfloat16),
            "value": torch.zeros(4, 128, SHARED, DIM, dtype=torch.bfloat16),
            "block_table": torch.zeros(3, 4, dtype=torch.int32),
        },
        {
            "key": torch.zeros(4, SIZE, SHARED, DIM, dtype=torch.bfloat16),
            "value": torch.zeros(4, SIZE, SHARED, DIM, dtype=torch.bfloat16),
            "block_table": torch.full((3, 2), 4, dtype=torch.int32),
        },
    ],
    ids=["fp32", "strides", "int64", "long", "max_q", "outside", "flat", "small", "page"],
)
def test_what_the_kernel_refuses_or_would_misread_fails(odd: dict[str, Any]) -> None:
    with pytest.raises((AssertionError, ValueError)):
        varlen_attn(**arguments() | odd, window_size=(-1, 0))
