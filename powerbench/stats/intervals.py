"""pass@k and confidence intervals over problems: pure functions."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import ndtri, stdtrit


class Interval(NamedTuple):
    """A confidence interval: of a rate, within [0, 1]."""

    low: float
    high: float


class Estimate(NamedTuple):
    """A mean over problems, what is known about it, and from how many problems."""

    mean: float
    interval: Interval
    n: int


class Count(NamedTuple):
    """One problem's replicates: how many, and how many of them are right."""

    n: int
    correct: int


class PassAtK(NamedTuple):
    """One point of a pass@k curve: the mean over problems."""

    k: int
    mean: float
    interval: Interval


def pass_at_k(n: int, correct: int, k: int) -> float:
    """Unbiased estimate of the chance that at least one of k samples is right.

    `1 - C(n - correct, k) / C(n, k)`, in the product form that neither over- nor
    underflows (Chen et al. 2021, arXiv 2107.03374, eq. 1).

    Raises ValueError unless 0 <= correct <= n and 1 <= k <= n.
    """
    if not 0 <= correct <= n:
        raise ValueError(f"correct must be between 0 and n={n}, got {correct}")
    if not 1 <= k <= n:
        raise ValueError(f"k must be between 1 and n={n}, got {k}")
    return 1 - math.prod(max(0.0, 1 - k / i) for i in range(n - correct + 1, n + 1))


def wilson(successes: float, n: float, level: float = 0.95) -> Interval:
    """Wilson's score interval for a binomial proportion (Wilson 1927, JASA 22:209).

    Real-valued arguments are allowed: n may be an effective sample size.

    Raises ValueError unless 0 <= successes <= n, n > 0 and 0 < level < 1.
    """
    if not (n > 0 and 0 <= successes <= n):
        raise ValueError(f"successes must be between 0 and n > 0, got {successes} of {n}")
    z, p = z_of(level), successes / n
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    margin = z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    low = 0.0 if successes == 0 else max(0.0, centre - margin)
    return Interval(low, 1.0 if successes == n else min(1.0, centre + margin))


def clustered(values: Mapping[str, Sequence[float]], level: float = 0.95) -> Estimate:
    """The mean over problems of each problem's mean value, with an interval over problems.

    values: by problem, one value in [0, 1] for each replicate. Replicates of one problem are not
    independent, so the problem is the unit of sampling.

    Right or wrong (all values 0 or 1): Wilson's interval at the effective sample size, that is the
    number of independent answers that would give the variance seen between problems (Korn and
    Graubard 1998, Survey Methodology 24:193; Dean and Pagano 2015, J. Survey Stat. Methodol. 3:484).
    With one replicate a problem this is Wilson's interval itself, and it keeps its width where all
    problems agree. Otherwise (preferences): Student's t on the problems' means, clipped to [0, 1]
    (clustered standard errors: Miller 2024, arXiv 2411.00640, section 2.2).

    Raises ValueError if there is no problem, if one has no value, or for a value outside [0, 1].
    """
    if not values:
        raise ValueError("values must hold at least one problem")
    for problem, replicates in values.items():
        if not replicates or not all(0 <= v <= 1 for v in replicates):
            raise ValueError(f"values of {problem!r} must be in [0, 1], got {list(replicates)}")
    if all(v in (0, 1) for replicates in values.values() for v in replicates):
        return clustered_counts({p: Count(len(v), int(sum(v))) for p, v in values.items()}, level)
    n, mean = len(values), float(np.mean(_means(values)))
    if n == 1:
        return Estimate(mean, Interval(0.0, 1.0), n)
    margin = _t(level, n - 1) * math.sqrt(_variance_of_mean(_means(values)))
    return Estimate(mean, Interval(max(0.0, mean - margin), min(1.0, mean + margin)), n)


def clustered_counts(counts: Mapping[str, Count], level: float = 0.95) -> Estimate:
    """`clustered` of right and wrong answers, of which only the counts are needed. counts: by problem.

    Raises ValueError if there is no problem, or if one has no answer.
    """
    if not counts or not all(count.n for count in counts.values()):
        raise ValueError("counts must hold at least one problem, and each at least one answer")
    means = [count.correct / count.n for count in counts.values()]
    mean = float(np.mean(means))
    effective = _effective_answers(means, sum(count.n for count in counts.values()), level)
    return Estimate(mean, wilson(mean * effective, effective, level), len(means))


def student(values: Mapping[str, Sequence[float]], level: float = 0.95) -> Estimate:
    """The mean over problems of each problem's mean value, whatever its range, with Student's t interval.

    values: by problem, one for each replicate. A single problem tells nothing of others: its interval is
    the whole line.

    Raises ValueError if there is no problem, or if one has no value.
    """
    if not values or not all(values.values()):
        raise ValueError("values must hold at least one problem, and each at least one value")
    means = _means(values)
    n, mean = len(means), float(np.mean(means))
    margin = _t(level, n - 1) * math.sqrt(_variance_of_mean(means)) if n > 1 else math.inf
    return Estimate(mean, Interval(mean - margin, mean + margin), n)


def distinct(counts: Sequence[int], n: int) -> float:
    """The expected number of kinds among n things drawn without replacement. counts: of each kind.

    Rarefaction (Hurlbert 1971, Ecology 52:577): sum over kinds of 1 - C(N - c, n) / C(N, n).

    Raises ValueError unless 1 <= n <= the number of things.
    """
    return sum(pass_at_k(sum(counts), count, n) for count in counts)


def normal(mean: float, standard_error: float, n: int, level: float = 0.95) -> Estimate:
    """A mean in [0, 1] over n problems with its normal interval, clipped to [0, 1]."""
    margin = z_of(level) * standard_error
    return Estimate(mean, Interval(max(0.0, mean - margin), min(1.0, mean + margin)), n)


def pass_at_k_curve(
    counts: Sequence[Count], ks: Sequence[int], seed: int, resamples: int = 2000
) -> list[PassAtK]:
    """Mean pass@k over problems for each k, with 95% percentile bootstrap intervals over problems.

    The same resampled problems serve every k. The interval of a single problem is [0, 1]: nothing
    is known about others.

    Raises ValueError if there is no problem, or if a problem has fewer than k replicates.
    """
    if not counts:
        raise ValueError("counts must hold at least one problem")
    table = np.array([[pass_at_k(c.n, c.correct, k) for k in ks] for c in counts])  # [problems, ks]
    means = table.mean(axis=0)
    n = len(counts)
    if n == 1:
        bounds = np.array([[0.0] * len(ks), [1.0] * len(ks)])
    else:
        draws = np.random.default_rng(seed).multinomial(n, [1 / n] * n, size=resamples)
        bounds = np.quantile(draws @ table / n, (0.025, 0.975), axis=0)
    return [
        PassAtK(k, float(mean), Interval(float(low), float(high)))
        for k, mean, low, high in zip(ks, means, *bounds, strict=True)
    ]


def _effective_answers(means: Sequence[float], answers: int, level: float) -> float:
    """How many independent answers tell as much about the mean as these clustered ones.

    means: of each problem. answers: of all problems together.
    """
    problems, mean = len(means), float(np.mean(means))
    if problems in (1, answers) or mean in (0, 1):
        return problems
    variance = _variance_of_mean(means)
    if variance == 0:
        return answers
    # The variance is itself estimated, from few problems: Student's t in place of z.
    known = mean * (1 - mean) / variance * (z_of(level) / _t(level, problems - 1)) ** 2
    return min(known, answers)


def _means(values: Mapping[str, Sequence[float]]) -> list[float]:
    """Of each problem's values."""
    return [float(np.mean(v)) for v in values.values()]


def _variance_of_mean(means: Sequence[float]) -> float:
    return float(np.var(means, ddof=1)) / len(means)


def z_of(level: float) -> float:
    """The normal quantile of a two-sided level. Raises ValueError unless 0 < level < 1."""
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, got {level}")
    return float(ndtri((1 + level) / 2))


def _t(level: float, degrees: int) -> float:
    return float(stdtrit(degrees, (1 + level) / 2))
