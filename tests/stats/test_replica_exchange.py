"""Round trips and acceptance of recorded exchanges, on swaps whose law is known.

Run: pytest tests/stats/test_replica_exchange.py
"""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise, product

import numpy as np
import pytest

from powerbench.chains.law import loglikelihood, power_law
from powerbench.models import TabularModel
from powerbench.samplers.common import Response
from powerbench.samplers.parallel_tempering import ParallelTempering
from powerbench.samplers.replicas import Replica
from powerbench.stats.replica_exchange import (
    accepted,
    equalised,
    independent_round_trip,
    round_trips,
)


def swept(sampler: ParallelTempering, n: int, wanted: Sequence[bool]) -> tuple[int, ...]:
    """The origins after the sampler's own sweep n over responses that are all alike, of whose tries the wanted
    ones are accepted."""
    rungs = len(sampler.ladder)
    x = Response((1,), (-1.0,), (-1.0,), (0.0,), log_normalisers=((0.0,) * rungs,))
    sweep = sampler.exchange([Replica(r, x) for r in range(rungs)], 0, n)
    answer = None
    while True:
        try:
            request = sweep.send(answer)
            answer = -1.0 if wanted[request.key[-1]] else 1.0
        except StopIteration as end:
            replicas, (told,) = end.value
            assert tuple(each.sequence for each in replicas) == told.kept
            return told.kept


def tempering(rungs: int, schedule: str) -> ParallelTempering:
    return ParallelTempering(4, 4.0, blocks=1, replicas=rungs, schedule=schedule)


def outcomes(
    sampler: ParallelTempering, n: int, acceptance: float
) -> Iterator[tuple[tuple[int, ...], float]]:
    """The origins after a sweep of independent exchanges, and their probability."""
    for wanted in product((False, True), repeat=len(sampler.ladder) - 1):
        chance = math.prod(acceptance if yes else 1 - acceptance for yes in wanted)
        yield swept(sampler, n, wanted), chance


@pytest.mark.parametrize("acceptance", [0.2, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("rungs", [2, 3, 4, 6])
@pytest.mark.parametrize(("schedule", "times"), [("ordered", 1), ("even_odd", 2)])
def test_independent_swaps_take_the_published_number_of_sweeps_for_a_round_trip(
    schedule: str, times: int, rungs: int, acceptance: float
) -> None:
    """Exactly: a response's way is a Markov chain over (rung, whether it was on top, parity)."""
    sampler = tempering(rungs, schedule)
    index = {s: i for i, s in enumerate(product(range(rungs), (False, True), range(2)))}
    matrix, arrives = np.zeros((len(index), len(index))), np.zeros((len(index), len(index)))
    for (rung, topped, parity), i in index.items():
        for origins, chance in outcomes(sampler, parity, acceptance):
            to = origins.index(rung)
            been = topped or to == rungs - 1
            done = been and to == 0
            j = index[to, been and not done, 1 - parity]
            (arrives if done else matrix)[i, j] += chance
    # From one arrival at the lowest rung to the next: where arrivals happen in the long run, times their ways.
    ways = np.linalg.inv(np.eye(len(index)) - matrix)
    between = ways @ arrives
    lowest = [index[0, False, parity] for parity in range(2)]
    among = between[np.ix_(lowest, lowest)]
    stationary = np.linalg.matrix_power(0.5 * (np.eye(2) + among), 2**10)[0]
    mean = stationary @ ways[lowest].sum(axis=1) / stationary.sum()
    assert mean == pytest.approx(times * independent_round_trip(rungs, acceptance), rel=1e-9)


@pytest.mark.parametrize("schedule", ["ordered", "even_odd"])
def test_recorded_round_trips_have_the_mean_of_independent_swaps(schedule: str) -> None:
    sampler, rng, rungs = tempering(4, schedule), np.random.default_rng(1), 4
    known = {
        (n, wanted): swept(sampler, n, wanted)
        for n in range(2)
        for wanted in product((False, True), repeat=rungs - 1)
    }
    flips = rng.random((40_000, rungs - 1)) < 0.4
    trips = round_trips([known[n % 2, tuple(w)] for n, w in enumerate(flips.tolist())])
    expected = independent_round_trip(rungs, 0.4) * (1 if schedule == "ordered" else 2)
    assert np.mean(trips) == pytest.approx(expected, rel=0.05)


def test_round_trips_are_counted_from_the_bottom_over_the_top_to_the_bottom() -> None:
    swap, stay = (1, 0), (0, 1)
    assert round_trips([swap, stay, swap, swap, swap]) == [3, 2]
    assert round_trips([swap] * 4) == [2, 2]
    assert round_trips([stay] * 5) == round_trips([]) == round_trips([(0,)] * 3) == []


@pytest.mark.parametrize("schedule", ["ordered", "even_odd"])
@pytest.mark.parametrize("n", [0, 1])
def test_a_sweeps_origins_tell_which_pairs_exchanged(schedule: str, n: int) -> None:
    sampler = tempering(5, schedule)
    for wanted in product((False, True), repeat=4):
        tried = [schedule == "ordered" or r % 2 == n for r in range(4)]
        expected = [w and t for w, t in zip(wanted, tried, strict=True)]
        assert accepted(swept(sampler, n, wanted)) == expected


def acceptance_of(model: TabularModel, ladder: Sequence[float], horizon: int) -> list[float]:
    """Of neighbours at equilibrium, by enumeration."""
    laws = [power_law(model, alpha, horizon) for alpha in ladder]
    logp = {x: loglikelihood(model, x) for x in laws[0]}
    return [
        sum(
            p * q * math.exp(min(0.0, (b - a) * (logp[x] - logp[y])))
            for x, p in laws[r].items()
            for y, q in laws[r + 1].items()
        )
        for r, (a, b) in enumerate(pairwise(ladder))
    ]


def test_a_ladder_is_tuned_to_equal_acceptance() -> None:
    model, ladder = TabularModel(seed=1), (1.0, 1.2, 1.5, 6.0)
    before = acceptance_of(model, ladder, 3)
    for _ in range(60):
        ladder = equalised(ladder, acceptance_of(model, ladder, 3))
    after = acceptance_of(model, ladder, 3)
    assert (ladder[0], ladder[-1]) == (1.0, 6.0)
    assert max(after) - min(after) < 1e-3 < max(before) - min(before)
    assert min(after) > min(before)
    assert equalised((1.0, 2.0, 4.0), (1.0, 1.0)) == (1.0, 2.0, 4.0)
