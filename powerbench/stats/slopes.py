"""How accuracy changes with alpha, from the responses at one alpha: pure functions.

Under p^alpha the chance P of a right response has the slope dP/dalpha = Cov(right, log p) = P (1 - P) delta:
delta is the mean log p of right responses less that of wrong ones. It has itself the slope
Var(log p | right) - Var(log p | wrong). (Derivatives of an exponential family's means; in the theory of
Adaptive Power Sampling.)
"""

from collections.abc import Mapping, Sequence
from statistics import fmean, variance
from typing import NamedTuple

from powerbench.stats.intervals import Estimate, student


class Response(NamedTuple):
    """One response to a problem."""

    right: bool
    logp: float
    """Of the whole response, nats."""


class Slope(NamedTuple):
    """Of one problem."""

    n: int
    """Responses, at least two."""
    share: float
    """P: of them, the right ones."""
    slope: float
    """dP/dalpha, per unit of alpha: the unbiased covariance of being right and log p."""
    delta: float | None
    """Nats; None unless there are both right and wrong responses."""
    turn: float | None
    """d delta/dalpha, nats squared; None unless there are two of each."""


class Slopes(NamedTuple):
    """Of a task: means over problems, with 95% intervals over problems (Student's t)."""

    slope: Estimate
    """Over the problems with two responses or more: the slope of their mean accuracy."""
    delta: Estimate | None
    """Over those with right and wrong responses."""
    turn: Estimate | None
    """Over those with two of each."""


def slope(responses: Sequence[Response]) -> Slope:
    """Of one problem. Raises ValueError for fewer than two responses."""
    n = len(responses)
    if n < 2:
        raise ValueError(f"a slope needs at least 2 responses to a problem, got {n}")
    share = fmean(r.right for r in responses)
    mean = fmean(r.logp for r in responses)
    covariance = sum((r.right - share) * (r.logp - mean) for r in responses) / (n - 1)
    right = [r.logp for r in responses if r.right]
    wrong = [r.logp for r in responses if not r.right]
    delta = fmean(right) - fmean(wrong) if right and wrong else None
    several = min(len(right), len(wrong)) > 1
    turn = variance(right) - variance(wrong) if several else None
    return Slope(n, share, covariance, delta, turn)


def slopes(found: Mapping[str, Slope]) -> Slopes | None:
    """Of a task, from its problems'; None if there are none."""
    if not found:
        return None
    deltas = {p: [s.delta] for p, s in found.items() if s.delta is not None}
    turns = {p: [s.turn] for p, s in found.items() if s.turn is not None}
    return Slopes(
        student({p: [s.slope] for p, s in found.items()}),
        student(deltas) if deltas else None,
        student(turns) if turns else None,
    )
