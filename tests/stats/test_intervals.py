"""pass@k and intervals agree with exact enumeration and scipy, and cover what they promise.

Run: pytest tests/stats/test_intervals.py
"""

import math
from itertools import combinations

import numpy as np
import pytest
from scipy import stats as reference

from powerbench.stats.intervals import (
    Count,
    Estimate,
    Interval,
    clustered,
    clustered_counts,
    pass_at_k,
    pass_at_k_curve,
    student,
    wilson,
)


@pytest.mark.parametrize("n", [1, 2, 5, 7])
def test_pass_at_k_is_the_share_of_subsets_with_a_right_answer(n: int) -> None:
    for correct in range(n + 1):
        answers = [True] * correct + [False] * (n - correct)
        for k in range(1, n + 1):
            subsets = [any(s) for s in combinations(answers, k)]
            assert pass_at_k(n, correct, k) == pytest.approx(np.mean(subsets), abs=1e-12)


def test_pass_at_k_neither_over_nor_underflows() -> None:
    exact = 1 - reference.hypergeom(20_000, 3, 9_000).pmf(0)
    assert pass_at_k(20_000, 3, 9_000) == pytest.approx(exact, rel=1e-9)


@pytest.mark.parametrize(("n", "correct", "k"), [(3, 4, 1), (3, -1, 1), (3, 1, 4), (3, 1, 0)])
def test_pass_at_k_names_the_bad_value(n: int, correct: int, k: int) -> None:
    with pytest.raises(ValueError, match=r"must be between"):
        pass_at_k(n, correct, k)


@pytest.mark.parametrize("level", [0.8, 0.95])
@pytest.mark.parametrize(
    ("successes", "n"), [(0, 1), (1, 1), (0, 20), (7, 20), (20, 20), (61, 500)]
)
def test_wilson_agrees_with_scipy(successes: int, n: int, level: float) -> None:
    expected = reference.binomtest(successes, n).proportion_ci(level, method="wilson")
    assert wilson(successes, n, level) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_one_binary_replicate_a_problem_gives_wilson() -> None:
    estimate = clustered({str(i): [float(i < 7)] for i in range(20)})
    assert estimate.mean == pytest.approx(0.35)
    assert estimate.interval == pytest.approx(wilson(7, 20))
    assert estimate.n == 20


def test_every_problem_weighs_the_same() -> None:
    assert clustered({"a": [1.0] * 9, "b": [0.0]}).mean == pytest.approx(0.5)


def test_copies_of_an_answer_tell_nothing_new() -> None:
    once = {str(i): [float(i % 3 == 0)] for i in range(60)}
    copied = {problem: value * 8 for problem, value in once.items()}
    narrow, wide = clustered(once).interval, clustered(copied).interval
    assert wide.high - wide.low == pytest.approx(narrow.high - narrow.low, rel=0.05)
    assert wide.high - wide.low >= narrow.high - narrow.low


def test_preferences_get_the_t_interval_of_the_problem_means() -> None:
    values = {"a": [0.2, 0.4], "b": [0.9, 0.8], "c": [0.5], "d": [0.61, 0.39]}
    means = [0.3, 0.85, 0.5, 0.5]
    expected = reference.t.interval(0.95, 3, np.mean(means), reference.sem(means))
    assert clustered(values).interval == pytest.approx(expected)


def test_the_interval_stays_within_0_and_1() -> None:
    assert clustered({"a": [0.99], "b": [0.5]}).interval == Interval(0.0, 1.0)
    assert clustered({"a": [0.3, 0.4]}).interval == Interval(0.0, 1.0)


@pytest.mark.parametrize("values", [{}, {"a": []}, {"a": [1.5]}])
def test_clustered_names_the_bad_value(values: dict[str, list[float]]) -> None:
    with pytest.raises(ValueError, match=r"values"):
        clustered(values)


@pytest.mark.parametrize(
    ("problems", "replicates", "a", "b"),
    [(10, 1, 2, 2), (10, 4, 2, 2), (20, 4, 9, 1), (50, 8, 0.3, 0.7), (8, 16, 1, 1)],
)
def test_the_interval_covers_the_truth(problems: int, replicates: int, a: float, b: float) -> None:
    """Difficulty ~ Beta(a, b) over problems; the truth is its mean."""
    rng = np.random.default_rng(7)
    trials, covered = 1000, 0
    for _ in range(trials):
        difficulty = rng.beta(a, b, size=problems)
        answers = (rng.random((replicates, problems)) < difficulty).astype(float).T
        interval = clustered({str(i): list(row) for i, row in enumerate(answers)}).interval
        covered += interval.low <= a / (a + b) <= interval.high
    assert 0.93 <= covered / trials <= 0.995


def test_the_curve_is_the_mean_over_problems_of_pass_at_k() -> None:
    curve = pass_at_k_curve([Count(4, 0), Count(4, 1), Count(8, 8)], ks=[1, 2, 4], seed=0)
    assert [point.k for point in curve] == [1, 2, 4]
    assert [point.mean for point in curve] == pytest.approx([1.25 / 3, 1.5 / 3, 2 / 3])


def test_the_bootstrap_matches_its_normal_limit() -> None:
    rng = np.random.default_rng(1)
    counts = [Count(4, int(c)) for c in rng.integers(0, 5, size=400)]
    (point,) = pass_at_k_curve(counts, ks=[1], seed=3, resamples=20_000)
    values = [c.correct / c.n for c in counts]
    expected = reference.norm.interval(0.95, np.mean(values), np.std(values) / 20)
    assert point.interval == pytest.approx(expected, abs=2e-3)


def test_the_bootstrap_is_a_function_of_its_seed() -> None:
    counts = [Count(7, c % 8) for c in range(31)]
    assert pass_at_k_curve(counts, [3], seed=5) == pass_at_k_curve(counts, [3], seed=5)
    assert pass_at_k_curve(counts, [3], seed=5) != pass_at_k_curve(counts, [3], seed=6)


def test_one_problem_says_nothing_about_others() -> None:
    (point,) = pass_at_k_curve([Count(2, 1)], ks=[2], seed=0)
    assert (point.mean, point.interval) == (1.0, Interval(0.0, 1.0))


def test_a_problem_with_too_few_replicates_is_refused() -> None:
    with pytest.raises(ValueError, match="k must be between 1 and n=3, got 4"):
        pass_at_k_curve([Count(4, 1), Count(3, 1)], ks=[4], seed=0)


@pytest.mark.parametrize("problems", [2, 7, 40])
def test_students_interval_is_scipys(problems: int) -> None:
    """Over problems: replicates are averaged first, whatever their number."""
    rng = np.random.default_rng(problems)
    values = {f"p{i}": rng.normal(50, 9, size=1 + i % 3).tolist() for i in range(problems)}
    found = student(values)
    expected = reference.ttest_1samp([np.mean(v) for v in values.values()], 0)
    assert found.interval == pytest.approx(tuple(expected.confidence_interval(0.95)))
    assert found.n == problems


def test_students_interval_of_one_problem_tells_nothing() -> None:
    assert student({"p": [3.0, 5.0]}) == Estimate(4.0, Interval(-math.inf, math.inf), 1)
    with pytest.raises(ValueError, match="at least one"):
        student({"p": []})


@pytest.mark.parametrize("k", [1, 4])
def test_the_bands_of_pass_at_k_cover_the_truth(k: int) -> None:
    """400 times 40 problems of 8 responses, each problem solved with a chance drawn from Beta(1, 2)."""
    rng, covered = np.random.default_rng(k), 0
    exact = 1 - 2 / (k + 2)  # 1 - E (1 - p)^k
    for seed in range(400):
        chances = rng.beta(1, 2, size=40)
        counts = [Count(8, int(rng.binomial(8, p))) for p in chances]
        (point,) = pass_at_k_curve(counts, [k], seed, resamples=400)
        covered += point.interval.low <= exact <= point.interval.high
    assert 0.90 <= covered / 400 <= 0.98


@pytest.mark.parametrize(
    "values",
    [
        {"a": [1]},
        {"a": [1, 0, 1], "b": [0, 0], "c": [1, 1, 1, 1]},
        {"a": [1, 1], "b": [1, 1]},
        {"a": [0, 1], "b": [1, 0], "c": [0, 1]},
    ],
)
def test_counts_of_answers_say_the_same_as_the_answers(values: dict[str, list[float]]) -> None:
    counts = {problem: Count(len(v), int(sum(v))) for problem, v in values.items()}
    assert clustered_counts(counts) == clustered(values)


@pytest.mark.parametrize("counts", [{}, {"a": Count(2, 1), "b": Count(0, 0)}])
def test_counts_without_answers_are_refused(counts: dict[str, Count]) -> None:
    with pytest.raises(ValueError, match="at least one"):
        clustered_counts(counts)
