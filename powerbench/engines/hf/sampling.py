"""From logits to tokens: exact log p, log q and entropy of what is drawn, in float32."""

from typing import NamedTuple

import torch

BLOCK = 256
"""The inverse CDF is searched first over blocks of this many tokens, then within one."""

LEAST = -1e4
"""Stands for log 0 among logits: exp of it is 0, and 0 times it is no NaN."""

ROWS_AT_ONCE = 8
"""On the CPU, rows are taken in groups that stay in the processor's cache."""


class Drawn(NamedTuple):
    """One token per row, and its statistics: [R] each."""

    token: torch.Tensor
    logp: torch.Tensor
    logq: torch.Tensor
    entropy: torch.Tensor


def draw(
    logits: torch.Tensor,
    uniforms: torch.Tensor,
    tau: torch.Tensor,
    top_k: torch.Tensor,
    support: torch.Tensor | None = None,
) -> Drawn:
    """Draw a token per row by inverting the CDF of q at a uniform.

    logits [R, V]; uniforms float64 [R]; tau float32 [R], 0 for the likeliest token; top_k int64 [R],
    0 for none (ties with the k-th stay in); support bool [R, V] or None.
    """
    size = ROWS_AT_ONCE if logits.device.type == "cpu" else len(logits)
    parts = [
        _draw(
            logits[i : i + size].float(),
            uniforms[i : i + size],
            tau[i : i + size],
            top_k[i : i + size],
            None if support is None else support[i : i + size],
        )
        for i in range(0, len(logits), size)
    ]
    return Drawn(*(torch.cat(column) for column in zip(*parts, strict=True)))


def _draw(
    logits: torch.Tensor,
    uniforms: torch.Tensor,
    tau: torch.Tensor,
    top_k: torch.Tensor,
    support: torch.Tensor | None,
) -> Drawn:
    z = (logits - logits.amax(1, keepdim=True)).clamp_(min=LEAST)
    mass = z.exp()
    total = mass.sum(1)
    log_total = total.log()
    entropy = log_total - torch.linalg.vecdot(mass, z) / total

    scaled = z / torch.where(tau > 0, tau, 1.0)[:, None]
    if (largest := int(top_k.max())) > 0:
        kept = z.topk(largest, dim=1).values.gather(1, (top_k - 1).clamp(min=0)[:, None])
        scaled.masked_fill_((z < kept) & (top_k > 0)[:, None], float("-inf"))
    if support is not None:
        scaled.masked_fill_(~support, float("-inf"))
        scaled -= scaled.amax(1, keepdim=True)
    token, total_q = _invert(scaled.exp(), uniforms)
    token = torch.where(tau > 0, token, scaled.argmax(1))
    logq = scaled.gather(1, token[:, None])[:, 0] - total_q.log()
    logp = z.gather(1, token[:, None])[:, 0] - log_total
    return Drawn(token, logp, torch.where(tau > 0, logq, 0.0), entropy)


def _invert(weights: torch.Tensor, uniforms: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The first index whose cumulative weight exceeds uniforms * total, and the total: [R] each.

    weights float32 [R, V], not normalised. Cumulative sums are in float64, so that the tail of a
    large vocabulary keeps its share.
    """
    rows, vocabulary = weights.shape
    blocks = -(-vocabulary // BLOCK)
    padded = torch.nn.functional.pad(weights, (0, blocks * BLOCK - vocabulary))
    table = padded.view(rows, blocks, BLOCK)
    upto = table.sum(2, dtype=torch.float64).cumsum(1)
    total = upto[:, -1]
    target = uniforms * total
    block = _first_above(upto, target)
    before = torch.where(block > 0, upto.gather(1, (block - 1).clamp(min=0)[:, None])[:, 0], 0.0)
    within = table[torch.arange(rows, device=weights.device), block].double()
    index = _first_above(within.cumsum(1), target - before)
    return block * BLOCK + index, total.float()


def _first_above(cumulative: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Index of the first entry above the target: [R, n], [R] -> [R].

    Rounding can leave the target at or above the last entry: then the first that reaches the last,
    so that a token without weight is never drawn.
    """
    index = torch.searchsorted(cumulative, target[:, None], right=True)[:, 0]
    reaches_end = torch.searchsorted(cumulative, cumulative[:, -1:].contiguous())[:, 0]
    return torch.minimum(index, reaches_end)
