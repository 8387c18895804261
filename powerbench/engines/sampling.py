"""From logits to tokens: exact log p, log q and entropy of what is drawn, in float32."""

import math
from typing import NamedTuple

import torch

from powerbench.types import LOG_ZERO

BLOCK = 256
"""The inverse CDF is searched first over blocks of this many tokens, then within one."""

ROWS_AT_ONCE = 8
"""On the CPU, rows are taken in groups that stay in the processor's cache."""

LOG2_E = math.log2(math.e)


class Drawn(NamedTuple):
    """One token per row, and its statistics: [R] each. Beside them the likeliest tokens: [R, K] each.

    Of logits that hold NaN or +inf, log p and entropy are NaN, and the token is any: no index is out of
    bounds, which a device could not tell without a stop.
    """

    token: torch.Tensor
    logp: torch.Tensor
    logq: torch.Tensor
    entropy: torch.Tensor
    top: torch.Tensor
    """int64: the K likeliest tokens of the base model, likeliest first, ties by the lower token id."""
    top_logp: torch.Tensor
    log_normalisers: torch.Tensor
    """float32 [R, E], nats: log sum_v p(v)^a over q's support, for each of the row's E exponents."""

    def by_row(self, rows: int, width: int, computed: torch.Tensor | None) -> "Drawn":
        """What was drawn after each of N tokens, as [rows, width] and [rows, width, K].

        computed: int64 [N], which of the rows * width tokens they are; None for all. Others are zeros.
        """
        if computed is None:
            return Drawn(*(column.view(rows, width, *column.shape[1:]) for column in self))
        every = (column.new_zeros(rows * width, *column.shape[1:]) for column in self)
        spread = (
            table.index_copy_(0, computed.to(table.device), column)
            for table, column in zip(every, self, strict=True)
        )
        return Drawn(*(table.view(rows, width, *table.shape[1:]) for table in spread))


def draw(
    logits: torch.Tensor,
    uniforms: torch.Tensor,
    tau: torch.Tensor,
    top_k: torch.Tensor,
    support: torch.Tensor | None = None,
    largest_k: int | None = None,
    greedy: bool = True,
    top: int = 0,
    exponents: torch.Tensor | None = None,
) -> Drawn:
    """Draw a token per row by inverting the CDF of q at a uniform.

    logits [R, V]; uniforms float64 [R]; tau float32 [R], 0 for the likeliest token; top_k int64 [R],
    0 for none (ties with the k-th stay in); support bool [R, V] or None. All on one device, but for the
    uniforms where it has no float64: they are on the CPU then, and the CDF is inverted there.

    largest_k: the largest of `top_k`, and greedy: whether any tau may be 0; who knows them spares the
        device a question, or a pass over the logits.
    top: how many of the likeliest tokens to report, K; at most V.
    exponents: float32 [R, E], those whose log-normalisers to report; None for none.
    """
    largest_k = int(top_k.max()) if largest_k is None else largest_k
    size = ROWS_AT_ONCE if logits.device.type == "cpu" else len(logits)
    parts = [
        _draw(
            logits[i : i + size],
            uniforms[i : i + size],
            tau[i : i + size],
            top_k[i : i + size],
            None if support is None else support[i : i + size],
            largest_k,
            greedy,
            top,
            None if exponents is None else exponents[i : i + size],
        )
        for i in range(0, len(logits), size)
    ]
    if len(parts) == 1:
        return parts[0]
    return Drawn(*(torch.cat(column) for column in zip(*parts, strict=True)))


def _draw(
    logits: torch.Tensor,
    uniforms: torch.Tensor,
    tau: torch.Tensor,
    top_k: torch.Tensor,
    support: torch.Tensor | None,
    largest_k: int,
    greedy: bool,
    top: int,
    exponents: torch.Tensor | None,
) -> Drawn:
    # exp2 rather than exp: the CPU's exp is many times slower where its result is denormal
    logp = logits.float().log_softmax(1).clamp_(min=LOG_ZERO)
    entropy = -torch.linalg.vecdot((logp * LOG2_E).exp2_(), logp)

    scaled = logp * (LOG2_E / torch.where(tau > 0, tau, 1.0))[:, None]  # in bits
    scaled -= scaled.amax(1, keepdim=True)
    if largest_k > 0:
        kept = logp.topk(largest_k, dim=1).values.gather(1, (top_k - 1).clamp(min=0)[:, None])
        scaled.masked_fill_((logp < kept) & (top_k > 0)[:, None], float("-inf"))
    if support is not None:
        scaled.masked_fill_(~support, float("-inf"))
        scaled -= scaled.amax(1, keepdim=True)
    asked = exponents is not None and exponents.shape[1] > 0
    outside = scaled.isneginf() if asked and (largest_k > 0 or support is not None) else None
    doubles = uniforms.device
    token, total = _invert(scaled.exp2().to(doubles), uniforms)
    token = token.to(logits.device)
    if greedy:
        token = torch.where(tau > 0, token, scaled.argmax(1))
    chosen = scaled.gather(1, token[:, None])[:, 0]
    logq = chosen.to(doubles) / LOG2_E - total.log()
    top_tokens, top_logp = _top_logprobs(logp, top, doubles)
    return Drawn(
        token,
        logp.gather(1, token[:, None])[:, 0],
        torch.where(tau > 0, logq.float().to(logits.device), 0.0),
        entropy,
        top_tokens.to(logits.device),
        top_logp.to(logits.device),
        _log_normalisers(logp, outside, exponents),
    )


def _log_normalisers(
    logp: torch.Tensor, outside: torch.Tensor | None, exponents: torch.Tensor | None
) -> torch.Tensor:
    """log sum_v p(v)^a, nats [R, E]. logp float32 [R, V]; outside: bool [R, V], tokens that are left out."""
    if exponents is None or exponents.shape[1] == 0:
        return logp.new_empty((len(logp), 0))
    if outside is not None:
        logp = logp.masked_fill(outside, float("-inf"))
    largest = logp.amax(1)
    bits = (logp - largest[:, None]) * LOG2_E
    sums = [(bits * a[:, None]).exp2_().sum(1).log() for a in exponents.T]
    return torch.stack(sums, dim=1) + exponents * largest[:, None]


def _top_logprobs(
    logp: torch.Tensor, count: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """The likeliest tokens and their log-probabilities: [R, count] each. logp float32 [R, V].

    device: where they are found; int64 keys are not ordered on every device (older MPS takes them as int32).
    """
    if count == 0:  # not a view, which would keep all of `logp`
        empty = logp.new_empty((len(logp), 0))
        return empty.long(), empty
    logp = logp.to(device)
    # Ties need one order, or what is reported would depend on how many are asked for. No log p is
    # positive, so its bits without the sign, read as an integer, grow as it falls.
    keys = logp.abs().view(torch.int32).long()
    keys <<= 32
    keys |= torch.arange(logp.shape[1], device=logp.device)
    tokens = keys.topk(count, dim=1, largest=False).indices
    return tokens, logp.gather(1, tokens)


def _invert(weights: torch.Tensor, uniforms: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The first index whose cumulative weight exceeds uniforms * total, and the total: [R] each.

    weights float32 [R, V], not normalised. All sums are float64, so that the tail of a large vocabulary
    keeps its share.
    """
    rows, vocabulary = weights.shape
    blocks = -(-vocabulary // BLOCK)
    if short := blocks * BLOCK - vocabulary:
        weights = torch.nn.functional.pad(weights, (0, short))
    table = weights.view(rows, blocks, BLOCK)
    upto = table.sum(2, dtype=torch.float64).cumsum(1)
    total = upto[:, -1]
    target = uniforms * total
    block = _first_above(upto, target)
    before = torch.where(block > 0, upto.gather(1, (block - 1).clamp(min=0)[:, None])[:, 0], 0.0)
    within = table[torch.arange(rows, device=weights.device), block].double()
    index = _first_above(within.cumsum(1), target - before)
    return (block * BLOCK + index).clamp_(max=vocabulary - 1), total


def _first_above(cumulative: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Index of the first entry above the target: [R, n], [R] -> [R].

    Rounding can leave the target at or above the last entry: then the first that reaches the last,
    so that a token without weight is never drawn. Among NaN, any index.
    """
    index = torch.searchsorted(cumulative, target[:, None], right=True)[:, 0]
    reaches_end = torch.searchsorted(cumulative, cumulative[:, -1:].contiguous())[:, 0]
    return torch.minimum(index, reaches_end).clamp_(max=cumulative.shape[1] - 1)
