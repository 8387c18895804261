"""Weights and resampling: exact, unbiased, and moving no more particles than they must.

Run: pytest tests/samplers/test_population.py
"""

import math
from collections import Counter
from collections.abc import Generator
from typing import Any

import pytest

from powerbench.chains.law import law
from powerbench.models import TabularModel
from powerbench.samplers.population import effective, log_mean, normalised
from powerbench.samplers.resampling import systematic
from powerbench.types import Request

WEIGHTS = [
    (0.25, 0.25, 0.25, 0.25),
    (0.7, 0.1, 0.1, 0.1),
    (0.5, 0.0, 0.5),
    (1.0, 0.0),
    (0.13, 0.29, 0.41, 0.17),
]


def resampled(weights: tuple[float, ...]) -> dict[tuple[int, ...], float]:
    def program() -> Generator[Request, Any, tuple[int, ...]]:
        return (yield from systematic(("r",), weights)).ancestors

    return law(program, TabularModel())


@pytest.mark.parametrize("weights", WEIGHTS)
def test_every_particle_has_its_share_of_copies(weights: tuple[float, ...]) -> None:
    """Exactly n w on average, and in each outcome the whole number below or above it."""
    n, mean = len(weights), Counter[int]()
    found = resampled(weights)
    assert math.fsum(found.values()) == pytest.approx(1, abs=1e-12)
    for ancestors, chance in found.items():
        copies = Counter(ancestors)
        for i, w in enumerate(weights):
            assert copies[i] in (math.floor(n * w + 1e-9), math.ceil(n * w - 1e-9))
            mean[i] += chance * copies[i]  # type: ignore[assignment]
    for i, w in enumerate(weights):
        assert mean[i] == pytest.approx(n * w, abs=1e-9)


@pytest.mark.parametrize("weights", WEIGHTS)
def test_who_survives_keeps_the_slot(weights: tuple[float, ...]) -> None:
    for ancestors in resampled(weights):
        assert all(ancestors[i] == i for i in set(ancestors))


def test_systematic_resampling_is_that_of_the_definition() -> None:
    """Slot i takes the particle in whose part (u + i) / n lies: by a fine grid of u."""
    weights, grid = WEIGHTS[4], 20_000
    expected = Counter[tuple[int, ...]]()
    for step in range(grid):
        u, counts = (step + 0.5) / grid, [0] * 4
        for i in range(4):
            place, particle = (u + i) / 4, 0
            while place >= sum(weights[: particle + 1]) and particle < 3:
                particle += 1
            counts[particle] += 1
        expected[tuple(counts)] += 1
    found = Counter[tuple[int, ...]]()
    for ancestors, chance in resampled(weights).items():
        found[tuple(Counter(ancestors)[i] for i in range(4))] += chance  # type: ignore[assignment]
    assert set(found) == set(expected)
    for counts, chance in found.items():
        assert chance == pytest.approx(expected[counts] / grid, abs=1e-3)


def test_weights_of_any_size_are_normalised() -> None:
    assert normalised([-1000.0, -1000.0 + math.log(3), -math.inf]) == pytest.approx((0.25, 0.75, 0))
    assert log_mean([-1000.0, -1000.0 + math.log(3)]) == pytest.approx(-1000 + math.log(2))
    assert effective((0.5, 0.5, 0.0)) == pytest.approx(2)
    with pytest.raises(ValueError, match="no weight is finite"):
        normalised([-math.inf, -math.inf])
