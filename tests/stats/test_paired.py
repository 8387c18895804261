"""Paired comparisons agree with statsmodels, scipy and enumeration, and cover what they promise.

Run: pytest tests/stats/test_paired.py
"""

import math
from itertools import product

import numpy as np
import pytest
from scipy import stats as reference
from statsmodels.stats.contingency_tables import mcnemar as reference_mcnemar
from statsmodels.stats.multitest import multipletests

from powerbench.stats.paired import bootstrap, holm, mcnemar, paired_difference


@pytest.mark.parametrize(
    ("n", "only_first", "only_second"),
    [(1, 0, 1), (20, 0, 0), (20, 3, 9), (50, 25, 25), (500, 31, 60), (164, 0, 7)],
)
def test_mcnemar_agrees_with_statsmodels(n: int, only_first: int, only_second: int) -> None:
    both = (n - only_first - only_second) // 2
    table = [[both, only_first], [only_second, n - both - only_first - only_second]]
    found = mcnemar(n, only_first, only_second)
    if only_first + only_second:
        assert found.p == pytest.approx(reference_mcnemar(table, exact=True).pvalue)
    else:
        assert found.p == 1.0
    assert found.mean == pytest.approx((only_second - only_first) / n)
    assert found.low <= found.mean <= found.high


def test_the_interval_of_two_paired_rates_covers_the_difference_by_enumeration() -> None:
    """Of 20 problems, every possible table, weighed by its probability."""
    n, first, second = 20, 0.15, 0.30  # solved by one of the two only
    covered = total = 0.0
    for b, c in product(range(n + 1), repeat=2):
        if b + c <= n:
            table = [b, c, n - b - c]
            weight = reference.multinomial.pmf(table, n, [first, second, 1 - first - second])
            found = mcnemar(n, b, c)
            total += weight
            covered += weight * (found.low <= second - first <= found.high)
    assert total == pytest.approx(1)
    assert 0.94 <= covered <= 0.985


@pytest.mark.parametrize(("n", "a", "b"), [(0, 0, 0), (3, 2, 2), (3, -1, 1)])
def test_impossible_counts_are_named(n: int, a: int, b: int) -> None:
    with pytest.raises(ValueError, match=f"of n={n} problems {a} and {b} cannot be discordant"):
        mcnemar(n, a, b)


def test_the_bootstrap_tends_to_students_t() -> None:
    differences = np.random.default_rng(5).normal(0.04, 0.2, 400)
    found = bootstrap(list(differences), seed=1)
    expected = reference.ttest_1samp(differences, 0)
    interval = expected.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), abs=2e-3)
    assert found.p == pytest.approx(expected.pvalue, abs=5e-3)


@pytest.mark.parametrize("problems", [16, 60])
def test_the_bootstrap_covers_the_difference(problems: int) -> None:
    """Two samplers, four replicates each, on problems of very different difficulty."""
    rng, trials, covered, rejected = np.random.default_rng(11), 400, 0, 0
    truth = 0.08
    for _ in range(trials):
        difficulty = rng.beta(0.5, 0.5, problems) * (1 - truth)
        first = rng.binomial(4, difficulty) / 4
        second = rng.binomial(4, difficulty + truth) / 4
        found = bootstrap(list(second - first), resamples=1500)
        covered += found.low <= truth <= found.high
        none = bootstrap(list(rng.binomial(4, difficulty) / 4 - first), resamples=1500)
        rejected += none.p < 0.05
    assert 0.92 <= covered / trials <= 0.98
    assert rejected / trials <= 0.08


def test_one_problem_tells_nothing_of_others() -> None:
    assert bootstrap([0.3])[:4] == (0.3, -1.0, 1.0, 1.0)


@pytest.mark.parametrize(("each", "n"), [(0.0, 30), (0.0, 2), (1.0, 9), (-1.0, 7), (1.0, 25)])
def test_problems_that_all_differ_alike_have_mcnemars_interval(each: float, n: int) -> None:
    found = bootstrap([each] * n)
    expected = mcnemar(n, n * (each < 0), n * (each > 0))
    assert found[:3] == pytest.approx(expected[:3])
    assert found.p == pytest.approx(expected.p, abs=1e-3)  # of many flips a sample


def test_problems_that_all_differ_a_little_are_bootstrapped() -> None:
    """Sixteen preferences that differ by about 0.04: no interval of differences of up to 1."""
    found = bootstrap(list(np.random.default_rng(4).normal(-0.04, 0.03, 16)))
    assert found.test == "paired bootstrap"
    assert found.low < -0.04 < found.high < 0
    assert found.high - found.low < 0.05


def test_rounding_is_no_difference() -> None:
    few = [0.75, 0.5, 0.25]
    rounded = bootstrap([*few, *[1.1e-16] * 40, *[0.0] * 17])
    assert rounded[:5] == pytest.approx(bootstrap([*few, *[0.0] * 57])[:5])
    assert bootstrap([1e-17] * 25).p == 1.0


@pytest.mark.parametrize("only", [[1.0], [-1.0, 1.0, 1.0], [1.0] * 8 + [-1.0] * 3])
def test_sign_flips_of_right_and_wrong_are_mcnemars_test(only: list[float]) -> None:
    found = bootstrap([*only, *[0.0] * 20])
    expected = mcnemar(len(only) + 20, only.count(-1.0), only.count(1.0))
    assert found[:5] == pytest.approx(expected[:5])
    assert found.test == "sign flips"


@pytest.mark.parametrize("problems", [20, 60, 164])
@pytest.mark.parametrize("share", [0.02, 0.05, 0.1])
def test_the_interval_of_problems_of_which_few_differ_covers(problems: int, share: float) -> None:
    rng, trials, covered, widths = np.random.default_rng(7), 400, 0, []
    sizes, chances = np.array([-0.5, 0.0, 0.25, 1.0]), [share / 4, 1 - share, share / 2, share / 4]
    truth = float(sizes @ chances)
    for _ in range(trials):
        found = bootstrap(list(rng.choice(sizes, problems, p=chances)), resamples=1000)
        covered += found.low <= truth <= found.high
        widths.append(found.high - found.low)
    assert covered / trials >= 0.93
    assert np.mean(widths) < 2 * 1.96 * math.sqrt(share + 1 / problems) / math.sqrt(problems)


def test_holm_agrees_with_statsmodels() -> None:
    rng = np.random.default_rng(2)
    for count in (1, 2, 7, 20):
        ps = rng.uniform(0, 0.2, count)
        assert holm(list(ps)) == pytest.approx(multipletests(ps, method="holm")[1])
    assert holm([]) == []


def test_one_answer_a_problem_is_mcnemars_few_of_more_are_flipped_many_bootstrapped() -> None:
    first = {"a": [1.0], "b": [0.0], "c": [0.0], "only here": [1.0]}
    second = {"a": [1.0], "b": [1.0], "c": [1.0], "only there": [0.0]}
    found = paired_difference(first, second)
    assert found is not None and found.test == "McNemar"
    assert (found.mean, found.n) == (pytest.approx(2 / 3), 3)
    alike = {str(i): [0.0, 1.0] for i in range(9)}
    for changed in ({"a": [1.0, 0.0], **alike}, {"a": [0.5], **alike}):
        found = paired_difference(first | changed, second | alike)
        assert found is not None and found.test == "sign flips"
    many = [
        {f"{name}{i}": [float(i % k == 0)] * 2 for i in range(60)} for name, k in (("", 2), ("", 3))
    ]
    found = paired_difference(*many)
    assert found is not None and found.test == "paired bootstrap"
    assert paired_difference(first, {"x": [1.0], "a": []}) is None


def test_exchanging_the_two_turns_the_sign() -> None:
    first = {str(i): [float(i % 3 == 0)] for i in range(30)}
    second = {str(i): [float(i % 2 == 0)] for i in range(30)}
    there, back = paired_difference(first, second), paired_difference(second, first)
    assert there is not None and back is not None
    assert (back.mean, back.low, back.high, back.p) == pytest.approx(
        (-there.mean, -there.high, -there.low, there.p)
    )


def test_where_one_problem_differs_the_interval_is_bounded_on_both_sides() -> None:
    """A third of the resamples lack it, and tell nothing of the upper end."""
    found = bootstrap([0.75, *[0.0] * 7])
    assert -0.3 < found.low < 0 < found.mean == pytest.approx(0.09375)
    assert found.mean < found.high < 0.5
    assert found.p > 0.1


def test_a_difference_as_small_as_detectable_is_seen_four_times_in_five() -> None:
    """Normal differences of 200 problems, 400 times; p as the paired comparison has it."""
    rng, n, spread = np.random.default_rng(3), 200, 0.3
    true = bootstrap(list(rng.normal(0, spread, n)), resamples=1000).detectable
    assert true == pytest.approx(2.80 * spread / math.sqrt(n), rel=0.15)
    exact = 2.80 * spread / math.sqrt(n)
    seen = [
        bootstrap(list(rng.normal(exact, spread, n)), resamples=1000).p < 0.05 for _ in range(400)
    ]
    assert 0.74 < np.mean(seen) < 0.86


@pytest.mark.parametrize("each", [0.1, 0.125])
def test_alike_resamples_are_alike_whatever_their_rounding(each: float) -> None:
    """40 problems differ by as much and one by more: 0.125 is a binary fraction, 0.1 is none."""
    found = bootstrap([each] * 40 + [0.9])
    assert found.test == "sign flips"
    assert found.high < 0.5


@pytest.mark.parametrize("each", [0.3, 0.375, 0.7])
def test_resamples_that_are_all_the_mean_are_left_out_whatever_their_rounding(each: float) -> None:
    assert bootstrap([each] * 40 + [each - 0.25, each + 0.25]).test == "paired bootstrap"


def test_what_is_detectable_does_not_shrink_where_an_interval_is_cut_off() -> None:
    """All of 20 problems differ: the interval ends at 1, the standard error does not know that."""
    cut, whole = mcnemar(20, 0, 20), mcnemar(20, 10, 10)
    assert cut.high == 1.0
    assert cut.detectable > 1.2 * 2.8016 * (cut.high - cut.low) / 3.9199
    assert whole.detectable == pytest.approx(2.8016 * (whole.high - whole.low) / 3.9199, rel=1e-3)
