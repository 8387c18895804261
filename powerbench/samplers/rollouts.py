"""Rollouts: what the futures of some prefixes are worth to p(x)^alpha, for samplers that look ahead."""

from collections.abc import Generator, Sequence
from typing import Any

from powerbench.samplers.common import Response, together, weight
from powerbench.types import Context, Key, Request


def futures(
    prefixes: Sequence[Response],
    key: Key,
    until: int,
    context: Context,
    *,
    count: int,
    alpha: float,
    tau: float,
) -> Generator[Request, Any, list[tuple[float, ...]]]:
    """alpha * log p - log q, nats, of each of `count` rollouts after each prefix: [prefixes, count].

    The mean of exp of a row estimates, without bias, zeta = sum of p(future)^alpha over the futures up to
    position `until`. At tau = 1 each entry is (alpha - 1) * log p. A prefix that is finished, or reaches there,
    has no future: its row is zeros, and zeta = 1.

    key: rollout m of prefix i is drawn under (*key, i, m).
    """
    asked = {
        (i, m): x.extend(len(x), until, (*key, i, m), context, tau=tau)
        for i, x in enumerate(prefixes)
        if not x.finished and len(x) < until
        for m in range(count)
    }
    draws = yield from together(asked)
    none = (0.0,) * count
    return [
        tuple(weight(draws[i, m], alpha) for m in range(count)) if (i, 0) in draws else none
        for i in range(len(prefixes))
    ]
