"""The slope of accuracy against alpha: its identities, exactly, on a model that can be enumerated.

Run: pytest tests/stats/test_slopes.py
"""

import math
import random
from functools import cache

import pytest

from powerbench.chains.law import power_law
from powerbench.models import TabularModel
from powerbench.stats.slopes import Response, Slope, slope, slopes

ALPHA, HORIZON, SMALL = 1.3, 3, 1e-5


@cache
def law(alpha: float) -> dict[tuple[int, ...], float]:
    return power_law(TabularModel(seed=3), alpha, HORIZON)


def logp(x: tuple[int, ...]) -> float:
    return math.log(law(1.0)[x])


def right(x: tuple[int, ...]) -> bool:
    return len(x) == 2 or x[0] == 2


def mean_right(alpha: float) -> float:
    return sum(mass for x, mass in law(alpha).items() if right(x))


def difference(alpha: float) -> float:
    """delta: mean log p of right responses less that of wrong ones."""
    means = []
    for kind in (True, False):
        own = {x: mass for x, mass in law(alpha).items() if right(x) == kind}
        means.append(sum(m * logp(x) for x, m in own.items()) / sum(own.values()))
    return means[0] - means[1]


def population(alpha: float, size: int) -> list[Response]:
    """Responses in the law's own proportions."""
    every = [
        Response(right(x), logp(x)) for x, m in law(alpha).items() for _ in range(round(m * size))
    ]
    random.Random(0).shuffle(every)
    return every


def test_the_slope_is_that_of_the_accuracy_of_p_to_the_alpha() -> None:
    found = slope(population(ALPHA, 200_000))
    change = (mean_right(ALPHA + SMALL) - mean_right(ALPHA - SMALL)) / (2 * SMALL)
    assert abs(change) > 0.02
    assert found.slope == pytest.approx(change, rel=1e-3)
    assert found.share == pytest.approx(mean_right(ALPHA), rel=1e-3)


def test_delta_and_its_own_slope_are_those_of_p_to_the_alpha() -> None:
    found = slope(population(ALPHA, 200_000))
    assert found.delta == pytest.approx(difference(ALPHA), rel=1e-3)
    turn = (difference(ALPHA + SMALL) - difference(ALPHA - SMALL)) / (2 * SMALL)
    assert abs(turn) > 0.02
    assert found.turn == pytest.approx(turn, rel=5e-3)


def test_the_slope_is_p_times_one_minus_p_times_delta() -> None:
    few = [Response(True, -3.0), Response(False, -5.0), Response(True, -4.0), Response(False, -4.5)]
    found = slope(few)
    assert found.delta == pytest.approx(1.25)
    assert found.slope == pytest.approx(0.25 * 1.25 * 4 / 3)


def test_few_responses_are_unbiased() -> None:
    """The mean over every ordered triple of draws is the covariance itself."""
    every = [(Response(right(x), logp(x)), m) for x, m in law(ALPHA).items()]
    total = sum(
        a[1] * b[1] * c[1] * slope([a[0], b[0], c[0]]).slope
        for a in every
        for b in every
        for c in every
    )
    change = (mean_right(ALPHA + SMALL) - mean_right(ALPHA - SMALL)) / (2 * SMALL)
    assert total == pytest.approx(change, rel=1e-6)


def test_a_problem_that_is_always_right_has_no_slope_but_counts() -> None:
    sure = slope([Response(True, -1.0), Response(True, -9.0)])
    assert (sure.slope, sure.delta, sure.turn) == (0.0, None, None)
    both = Slope(4, 0.5, 0.4, 1.2, None)
    of = slopes({"a": sure, "b": both})
    assert of is not None and of.slope.mean == pytest.approx(0.2) and of.slope.n == 2
    assert of.delta is not None and of.delta.n == 1 and of.turn is None
    assert slopes({}) is None


def test_one_response_has_no_slope() -> None:
    with pytest.raises(ValueError, match="at least 2 responses"):
        slope([Response(True, -1.0)])
