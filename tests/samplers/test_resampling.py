"""Chopthin: no bias, as many particles as before, and weights that are never far apart.

Run: pytest tests/samplers/test_resampling.py
"""

import math
from collections import Counter
from collections.abc import Generator
from typing import Any

import numpy as np
import pytest

from powerbench.chains.law import law
from powerbench.models import TabularModel
from powerbench.samplers.population import effective
from powerbench.samplers.resampling import ETA, SCHEMES, Resampled, chopthin
from powerbench.types import Request


def drawn(count: int, seed: int, spread: float) -> tuple[float, ...]:
    raw = np.random.default_rng(seed).lognormal(0, spread, count)
    return tuple(float(w) for w in raw / raw.sum())


WEIGHTS = [
    (1.0,),
    (1.0, 0.0),
    (0.5, 0.0, 0.5),
    (0.25, 0.25, 0.25, 0.25),
    (0.7, 0.1, 0.1, 0.1),
    (0.97, 0.01, 0.01, 0.01),
    (0.13, 0.29, 0.41, 0.17),
    (1e-300, 1 - 1e-9, 1e-9),
    *(drawn(n, n, spread) for n in (2, 5, 9, 33, 64) for spread in (0.1, 1.0, 4.0)),
]


def resampled(weights: tuple[float, ...], scheme: str) -> dict[Resampled, float]:
    def program() -> Generator[Request, Any, Resampled]:
        return (yield from SCHEMES[scheme](("r",), weights))

    return law(program, TabularModel())


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("weights", WEIGHTS, ids=len)
def test_what_descends_from_a_particle_has_its_weight_on_average(
    weights: tuple[float, ...], scheme: str
) -> None:
    n, mean, total = len(weights), [0.0] * len(weights), 0.0
    for slots, chance in resampled(weights, scheme).items():
        total += chance
        for i, w in zip(slots.ancestors, slots.weights, strict=True):
            mean[i] += chance * w
    assert total == pytest.approx(1, abs=1e-12)
    assert mean == pytest.approx([n * w for w in weights], abs=1e-9)


def test_scaling_new_weights_to_the_old_sum_would_be_biased() -> None:
    """So what CCPS's code does is left out."""
    weights, mean = (0.7, 0.1, 0.1, 0.1), [0.0] * 4
    for slots, chance in resampled(weights, "chopthin").items():
        for i, w in zip(slots.ancestors, slots.weights, strict=True):
            mean[i] += chance * w * 4 / sum(slots.weights)
    assert abs(mean[0] - 2.8) > 0.005


@pytest.mark.parametrize("weights", WEIGHTS, ids=len)
def test_chopthin_bounds_the_ratio_of_weights_and_keeps_the_count(
    weights: tuple[float, ...],
) -> None:
    """So that half of the particles are effective; and who survives keeps the slot."""
    for slots in resampled(weights, "chopthin"):
        new = slots.weights
        assert len(slots.ancestors) == len(new) == len(weights)
        assert max(new) <= ETA * min(new) * (1 + 1e-9)
        assert effective([w / sum(new) for w in new]) >= len(new) / 2 - 1e-9
        assert all(slots.ancestors[i] == i for i in set(slots.ancestors))
        assert all(weights[i] > 0 for i in slots.ancestors)


@pytest.mark.parametrize("weights", WEIGHTS, ids=len)
def test_chopthin_is_that_of_the_definition(weights: tuple[float, ...]) -> None:
    """With the level found by bisection: what is light has its weight or nothing, what is heavy is shared."""
    n = len(weights)
    scaled = [n * w for w in weights]

    def copies(w: float, a: float) -> float:
        return w / a if w < a else 1.0 if w < ETA * a / 2 else 2 * w / (ETA * a)

    low, high = 0.0, 2.0 * n
    for _ in range(200):
        a = (low + high) / 2
        low, high = (a, high) if sum(copies(w, a) for w in scaled) > n else (low, a)
    for slots in resampled(weights, "chopthin"):
        found = Counter(slots.ancestors)
        for i, new in zip(slots.ancestors, slots.weights, strict=True):
            if scaled[i] < a * (1 - 1e-9):
                assert found[i] == 1 and new == pytest.approx(a)
            else:
                expected = copies(scaled[i], a)
                assert math.floor(expected - 1e-9) <= found[i] <= math.ceil(expected + 1e-9)
                assert new == pytest.approx(scaled[i] / found[i])


def test_equal_weights_are_left_alone_whatever_the_bound() -> None:
    def program() -> Generator[Request, Any, Resampled]:
        return (yield from chopthin(("r",), (0.25,) * 4, eta=4.0))

    (slots,) = law(program, TabularModel())
    assert slots == Resampled((0, 1, 2, 3), (1.0,) * 4)
