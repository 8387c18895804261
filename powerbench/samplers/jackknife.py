"""Weights of candidates from rollouts of their futures, with and without the bias of few rollouts."""

import math
from collections.abc import Sequence

from powerbench.samplers.population import log_mean, normalised


def plain(blocks: Sequence[float], futures: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """Weights of the candidates, summing to one: exp(block) times the mean of exp(future), [K] and [K, M]."""
    return normalised([w + log_mean(each) for w, each in zip(blocks, futures, strict=True)])


def jackknifed(blocks: Sequence[float], futures: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """The same weights less their O(1/M) bias (the paper's jackknife; Quenouille 1956).

    Each zeta is unbiased, their normalised weights are not: E[p_M] = p + c/M + O(1/M^2). With p_(-s) the
    weights without every candidate's s-th rollout, M p_M - (M - 1) mean_s p_(-s) has no term c/M. It sums
    to one but may be negative: it is cut at zero, and normalised again.
    """
    count = len(futures[0])
    whole = plain(blocks, futures)
    if count == 1:
        return whole
    without = [plain(blocks, [(*f[:s], *f[s + 1 :]) for f in futures]) for s in range(count)]
    means = [math.fsum(each) / count for each in zip(*without, strict=True)]
    cut = [max(0.0, count * p - (count - 1) * q) for p, q in zip(whole, means, strict=True)]
    total = math.fsum(cut)
    return tuple(p / total for p in cut)
