"""Two samplers on the same problems: differences with intervals, tests, and corrections. Pure functions."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import binomtest, permutation_test

from powerbench.stats.intervals import z_of

RESAMPLES = 10_000
FEW = 20
"""With fewer problems that differ among many that do not, resamples are no guide to others."""
ROUNDING = 1e-12
"""A smaller difference of two means is none."""
MCNEMAR, FLIPS, BOOTSTRAP = "McNemar", "sign flips", "paired bootstrap"


class Difference(NamedTuple):
    """How much better the second is than the first, over the problems that both have answered."""

    mean: float
    low: float
    """The 95% interval's lower end; unlike a rate, a difference lies in [-1, 1]."""
    high: float
    p: float
    """Two-sided p-value of "no difference"."""
    n: int
    """Problems."""
    test: str
    """MCNEMAR, FLIPS or BOOTSTRAP."""
    error: float
    """The standard error, as the interval's width tells it before it is cut off at -1 and 1."""

    @property
    def detectable(self) -> float:
        """The smallest true difference that four of five such comparisons would show at the 5% level, for one
        comparison: z(.975) + z(.8) standard errors; at most 1."""
        return min(1.0, (z_of(0.95) + z_of(0.6)) * self.error)


def _difference(mean: float, ends: tuple[float, float], p: float, n: int, test: str) -> Difference:
    low, high = ends
    error = (high - low) / (2 * z_of(0.95))
    return Difference(mean, max(-1.0, low), min(1.0, high), p, n, test, error)


def paired_difference(
    first: Mapping[str, Sequence[float]],
    second: Mapping[str, Sequence[float]],
    seed: int = 0,
) -> Difference | None:
    """The mean over problems of second minus first; None if they have no problem in common.

    first, second: by problem, one value in [0, 1] for each replicate. Right or wrong with one replicate
    each: McNemar's exact test, and Agresti and Min's interval. Otherwise: a bootstrap over problems of
    the difference of their mean values; sign flips where few problems differ.
    """
    common = [problem for problem in first if second.get(problem) and first[problem]]
    if not common:
        return None
    pairs = [(first[problem], second[problem]) for problem in common]
    single = all(len(a) == len(b) == 1 and {*a, *b} <= {0, 1} for a, b in pairs)
    if single:
        return mcnemar(
            n=len(pairs),
            only_first=sum(a[0] > b[0] for a, b in pairs),
            only_second=sum(b[0] > a[0] for a, b in pairs),
        )
    return bootstrap([float(np.mean(b) - np.mean(a)) for a, b in pairs], seed)


def mcnemar(n: int, only_first: int, only_second: int) -> Difference:
    """Of n problems, those that only one of the two has solved decide.

    Exact binomial test (McNemar 1947, Psychometrika 12:153). Interval: Wald's after half an answer is
    added to each cell of the table (Agresti and Min 2005, Statistics in Medicine 24:729).

    Raises ValueError unless the counts are >= 0 and n >= 1 holds them.
    """
    if not (n >= 1 and min(only_first, only_second) >= 0 and only_first + only_second <= n):
        raise ValueError(f"of n={n} problems {only_first} and {only_second} cannot be discordant")
    discordant = only_first + only_second
    p = float(binomtest(only_second, discordant).pvalue) if discordant else 1.0
    alike = n - discordant
    ends = _of_few(np.repeat([-1.0, 1.0, 0.0], [only_first, only_second, alike]))
    return _difference((only_second - only_first) / n, ends, p, n, MCNEMAR)


def bootstrap(
    differences: Sequence[float], seed: int = 0, resamples: int = RESAMPLES
) -> Difference:
    """The mean of the problems' differences, each in [-1, 1]: bootstrap-t interval and p-value over problems.

    Each resample's mean is measured in its own standard errors, which makes the interval second-order
    accurate where few problems are skewed (Efron and Tibshirani 1993, chapter 12.5). Where fewer than FEW
    problems differ, and most do not, or where too many resamples have no spread, resamples are no guide to
    others: such problems have what McNemar's test and its interval are of differences of -1, 0 and 1, sign
    flips (Fisher 1935; exact up to 13 of them) and Agresti and Min's interval, which is wide, and may hold 0
    whatever p is, if the differences are small.
    One problem tells nothing of others: its interval is [-1, 1].

    Raises ValueError if there is no difference.
    """
    values = np.asarray(differences, float)
    values = np.where(np.abs(values) < ROUNDING, 0.0, values)
    n = len(values)
    if n == 0:
        raise ValueError("differences must hold at least one problem")
    mean = float(values.mean())
    if n == 1:
        return _difference(mean, (-1.0, 1.0), 1.0, n, FLIPS)
    error = float(values.std(ddof=1)) / math.sqrt(n)
    differing = np.count_nonzero(values)
    if (differing < FEW and 2 * differing <= n) or error < ROUNDING:
        return _flips(values, seed)
    drawn = values[np.random.default_rng(seed).integers(0, n, (resamples, n))]
    errors = drawn.std(axis=1, ddof=1) / math.sqrt(n)
    errors[errors < ROUNDING] = 0.0
    gaps = drawn.mean(axis=1) - mean
    gaps[np.abs(gaps) < ROUNDING] = 0.0
    with np.errstate(divide="ignore", invalid="ignore"):
        t = gaps / errors
    t = t[~np.isnan(t)]  # alike resamples: infinitely many of their errors away
    below, above = np.quantile(t, (0.025, 0.975), method="inverted_cdf")
    if not np.isfinite([below, above]).all():
        return _flips(values, seed)
    ends = (mean - float(above) * error, mean - float(below) * error)
    tail = min(np.mean(t >= mean / error), np.mean(t <= mean / error))
    p = min(1.0, 2 * float(max(tail, 1 / (len(t) + 1))))
    return _difference(mean, ends, p, n, BOOTSTRAP)


def _flips(values: np.ndarray, seed: int) -> Difference:
    p = _flipped(values, seed)
    return _difference(float(values.mean()), _of_few(values), p, len(values), FLIPS)


def _flipped(values: np.ndarray, seed: int) -> float:
    """The two-sided p-value of the sum, if each difference had either sign with the same chance."""
    differing = values[values != 0]
    if len(differing) < 2:  # either sign is as far from 0
        return 1.0
    found = permutation_test(
        (differing,),
        np.sum,
        permutation_type="samples",
        vectorized=True,
        n_resamples=RESAMPLES,
        rng=np.random.default_rng(seed),
    )
    return float(found.pvalue)


def _of_few(values: np.ndarray) -> tuple[float, float]:
    """Wald's interval after two problems are added, of which half a one differs by 1 and half a one by -1."""
    total = len(values) + 2
    centre = float(values.sum()) / total
    variance = (float(values @ values) + 1) / total - centre**2
    margin = z_of(0.95) * math.sqrt(variance / total)
    return centre - margin, centre + margin


def holm(ps: Sequence[float]) -> list[float]:
    """p-values corrected for their number, in the same order (Holm 1979, Scand. J. Statist. 6:65)."""
    corrected, most = [0.0] * len(ps), 0.0
    for rank, i in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        most = max(most, min(1.0, (len(ps) - rank) * ps[i]))
        corrected[i] = most
    return corrected
