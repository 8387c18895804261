"""What is chosen among n responses is exact over all subsets.

Run: pytest tests/stats/test_choices.py
"""

from itertools import combinations
from statistics import fmean

import pytest

from powerbench.stats.choices import Vote, best_of, majority, majority_of

RANKED = [
    [(-3.0, 1.0), (-1.0, 0.0), (-2.0, 1.0), (-5.0, 0.0)],
    [(-1.0, 1.0), (-1.0, 0.0), (-1.0, 0.0), (-2.0, 1.0), (-0.5, 0.25)],
    [(0.0, 1.0)],
    [(-i / 7, 1.0) for i in range(9)],
]


@pytest.mark.parametrize(("ranked", "n"), [(r, n) for r in RANKED for n in range(1, len(r) + 1)])
def test_best_of_n_is_the_mean_over_every_subset(ranked: list[tuple[float, float]], n: int) -> None:
    """Of equal scores each is as likely to be taken: by enumeration."""
    found = []
    for subset in combinations(ranked, n):
        best = max(score for score, _ in subset)
        found.append(fmean(value for score, value in subset if score == best))
    assert best_of(n, ranked) == pytest.approx(fmean(found), abs=1e-12)
    assert 0 <= best_of(n, ranked) <= 1


@pytest.mark.parametrize("n", [0, 3])
def test_best_of_more_than_there_are_is_refused(n: int) -> None:
    with pytest.raises(ValueError, match="n must be between 1 and 2"):
        best_of(n, RANKED[0][:2])


@pytest.mark.parametrize(
    ("votes", "value"),
    [
        ([("4", 1.0)], 1.0),
        ([("4", 1.0), ("5", 0.0), ("4", 1.0)], 1.0),
        ([("4", 1.0), ("5", 0.0), ("5", 0.0)], 0.0),
        ([("4", 1.0), ("5", 0.0)], 0.5),
        ([("4", 1.0), ("5", 0.0), ("6", 0.0), (None, 0.0)], 1 / 3),
        ([(None, 0.0), (None, 0.0), ("4", 1.0)], 1.0),
        ([(None, 0.0)], 0.0),
    ],
)
def test_a_majority_is_the_answer_given_most_often(
    votes: list[tuple[str | None, float]], value: float
) -> None:
    assert majority(votes) == pytest.approx(value)


def test_a_majority_needs_a_vote() -> None:
    with pytest.raises(ValueError, match="at least one response"):
        majority([])


VOTES: list[list[Vote]] = [
    [("4", 1.0), ("5", 0.0), ("4", 1.0), ("6", 0.0), ("5", 0.0), (None, 0.0)],
    [(None, 0.0), (None, 0.0), ("4", 1.0)],
    [(None, 0.0)] * 3,
    [(str(i), float(i == 2)) for i in range(7)],
    [("4", 1.0)] * 5,
    [
        ("a", 1.0),
        ("a", 0.0),
        ("a", 1.0),
        ("b", 0.0),
        ("b", 1.0),
        ("c", 0.5),
        ("c", 0.5),
        ("c", 1.0),
    ],
    [*[("a", 1.0)] * 4, *[("b", 0.0)] * 4, *[("c", 0.25)] * 3, *[(None, 0.0)] * 2],
]


@pytest.mark.parametrize(("votes", "n"), [(v, n) for v in VOTES for n in range(1, len(v) + 1)])
def test_a_majority_of_n_is_the_mean_over_every_subset(votes: list[Vote], n: int) -> None:
    expected = fmean(majority(subset) for subset in combinations(votes, n))
    assert majority_of(n, votes) == pytest.approx(expected, abs=1e-12)


def test_a_majority_of_many_is_counted_not_enumerated() -> None:
    """100 right and 100 wrong: of any odd number drawn, either has it half of the time."""
    votes: list[Vote] = [("4", 1.0)] * 100 + [("5", 0.0)] * 100
    assert majority_of(101, votes) == pytest.approx(0.5)
    assert majority_of(99, [*votes, *[("4", 1.0)] * 100]) > 0.99
    assert majority_of(301, votes * 3) == pytest.approx(0.5)


@pytest.mark.parametrize("n", [0, 7])
def test_a_majority_of_more_than_there_are_is_refused(n: int) -> None:
    with pytest.raises(ValueError, match="n must be between 1 and 6"):
        majority_of(n, VOTES[0])
