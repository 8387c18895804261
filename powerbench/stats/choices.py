"""The expected value of what is chosen among n responses to a problem: exact over all subsets."""

import math
from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache
from itertools import groupby

import numpy as np
from scipy.stats import binom

Vote = tuple[str | None, float]
"""A response's answer, None if it gives none, and its value in [0, 1]."""


def best_of(n: int, ranked: Sequence[tuple[float, float]]) -> float:
    """The expected value of the response with the highest score among n of these, drawn without replacement.

    ranked: (score, value) of every response. Exact: the response of rank i, from the lowest, is the
    best of n with chance C(i, n-1)/C(R, n); of equal scores each is as likely to be taken as the others.

    Raises ValueError unless 1 <= n <= the number of responses.
    """
    if not 1 <= n <= len(ranked):
        raise ValueError(f"n must be between 1 and {len(ranked)}, got {n}")
    chances, expected = _chances(len(ranked), n), 0.0
    places = zip(chances, sorted(ranked), strict=True)
    for _, tied in groupby(places, key=lambda each: each[1][0]):
        chance, total, count = 0.0, 0.0, 0
        for own, (_, value) in tied:
            chance, total, count = chance + own, total + value, count + 1
        expected += chance * total / count
    values = [value for _, value in ranked]
    return min(max(expected, min(values)), max(values))  # rounding


def majority(votes: Sequence[Vote]) -> float:
    """The value of the answer that most responses give (maj@n): the mean over these, and over tied answers.

    votes: of every response. One without an answer has no vote; with none at all the
    value is 0 (self-consistency: Wang et al. 2022, arXiv 2203.11171).

    Raises ValueError if there is no response.
    """
    if not votes:
        raise ValueError("votes must hold at least one response")
    answers = _by_answer(votes)
    most = max((count for count, _ in answers), default=0)
    tied = [value for count, value in answers if count == most]
    return float(np.mean(tied)) if tied else 0.0


def majority_of(n: int, votes: Sequence[Vote]) -> float:
    """The expected `majority` of n of these responses, drawn without replacement.

    Exact without enumeration. Each response is taken with chance n / R by itself: given that n are taken, they
    are any n alike. Answers are then independent, and for every number of votes that can win, their
    chances are added up by how many responses are taken and how many answers are tied.

    Raises ValueError unless 1 <= n <= the number of responses.
    """
    if not 1 <= n <= len(votes):
        raise ValueError(f"n must be between 1 and {len(votes)}, got {n}")
    answers = _by_answer(votes)
    silent = len(votes) - sum(count for count, _ in answers)
    most = max((count for count, _ in answers), default=0)
    share = n / len(votes)
    won = sum(_won_with(each, n, share, answers, silent) for each in range(1, min(n, most) + 1))
    return min(1.0, won / float(binom.pmf(n, len(votes), share)))


def _by_answer(votes: Sequence[Vote]) -> list[tuple[int, float]]:
    """How many responses give each answer, and their mean value; without those that give none."""
    values = defaultdict(list)
    for answer, value in votes:
        if answer is not None:
            values[answer].append(value)
    return [(len(each), float(np.mean(each))) for each in values.values()]


def _won_with(
    most: int, n: int, share: float, answers: Sequence[tuple[int, float]], silent: int
) -> float:
    """The expectation of `majority`, where n responses are taken and the commonest answer has this many votes.

    share: the chance of each response to be taken. answers: of each, its responses and their mean value.
    silent: responses without an answer.
    """
    # by responses taken and answers tied: the chance, and the expected sum of the tied answers' values
    chances, sums = np.zeros((2, n + 1, n // most + 2))
    chances[: silent + 1, 0] = _taken(silent, share)[: n + 1]
    for count, value in answers:
        before, before_sums = chances, sums
        chances, sums = np.zeros_like(before), np.zeros_like(before)
        for taken, chance in enumerate(_taken(count, share)[: most + 1]):
            tied = int(taken == most)
            here, there = np.s_[taken:, tied:], np.s_[: n + 1 - taken, : before.shape[1] - tied]
            chances[here] += chance * before[there]
            sums[here] += chance * (before_sums[there] + tied * value * before[there])
    return float(np.sum(sums[n, 1:] / np.arange(1, sums.shape[1])))


@lru_cache(maxsize=4096)
def _taken(count: int, share: float) -> np.ndarray:
    """The chance of each number of `count` responses to be taken, each with this chance."""
    return np.asarray(binom.pmf(np.arange(count + 1), count, share))


@lru_cache(maxsize=1024)
def _chances(size: int, n: int) -> list[float]:
    """Of each rank, from the lowest: to be the highest among n of `size`."""
    return [math.comb(i, n - 1) / math.comb(size, n) for i in range(size)]
