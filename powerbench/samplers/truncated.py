"""One token for each of several responses from a proposal that engines do not draw from.

It is q ~ p^(1/tau) on the smallest set of likeliest tokens that has a share `top_p` of q (the nucleus, Holtzman
et al. 2020), with no stop token in it until a response has its minimum length. A greedy draw reports the
`REPORTED` likeliest tokens, the token drawn is not used, and q is drawn here, with its share taken of those:
its log q is exact, but nothing less likely than they are can be drawn.
"""

import math
from collections.abc import Generator, Mapping
from typing import Any

from powerbench.samplers.common import Response, together
from powerbench.types import (
    LOG_ZERO,
    Choose,
    Context,
    Draw,
    FinishReason,
    Key,
    Request,
    Tokens,
    TopLogprobs,
)

REPORTED = 64


def truncated(
    responses: Mapping[int, Response],
    key: Key,
    context: Context,
    tau: float,
    top_p: float | None,
    may_stop: bool,
) -> Generator[Request, Any, dict[int, Draw]]:
    """A draw of one token for each, under the same names."""
    asked = {
        i: x.extend(len(x), len(x) + 1, (*key, i), context, tau=0.0, top_logprobs=REPORTED)
        for i, x in responses.items()
    }
    draws, found = (yield from together(asked)), {}
    for i, draw in draws.items():
        likeliest = draw.top_logprobs[0]
        kept, q = nucleus(likeliest, tau, top_p, () if may_stop else context.stop_tokens)
        at = yield Choose((*key, i, "token"), q)
        token, logp = likeliest.tokens[kept[at]], likeliest.logp[kept[at]]
        end = FinishReason.STOP if token in context.stop_tokens else FinishReason.LENGTH
        found[i] = Draw((token,), (logp,), (math.log(q[at]),), draw.entropy, end)
    return found


def nucleus(
    likeliest: TopLogprobs, tau: float, top_p: float | None, banned: Tokens
) -> tuple[list[int], tuple[float, ...]]:
    """Which of the likeliest tokens may be drawn, by their ranks, and q of each.

    Banned tokens may be if there is no other.
    """
    possible = [i for i, logp in enumerate(likeliest.logp) if logp > LOG_ZERO]
    kept = [i for i in possible if likeliest.tokens[i] not in banned] or possible
    weights = [math.exp((likeliest.logp[i] - likeliest.logp[kept[0]]) / tau) for i in kept]
    if top_p is not None:
        least, mass, count = top_p * math.fsum(weights), 0.0, 0
        while count < len(kept) and (count == 0 or mass < least):
            mass, count = mass + weights[count], count + 1
        kept, weights = kept[:count], weights[:count]
    total = math.fsum(weights)
    return kept, tuple(w / total for w in weights)
