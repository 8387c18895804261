"""Scalable Power Sampling: its exact law, what it tends to, and the bias of the published settings.

With a vocabulary of EOS and one token, a block of B tokens has B + 1 outcomes, of which one goes on: the
law can be written down for any L, K, M, H. That expression is checked against the enumerated sampler where
enumeration can reach, and then evaluated at the published settings.

Run: pytest tests/samplers/test_scalable_power.py
"""

import math
from collections.abc import Generator, Iterator
from dataclasses import replace
from functools import partial
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
import pytest
from toy_chains import ENDLESS, chain_law, completed, resumed, state

from powerbench.chains.law import (
    context_of,
    law,
    loglikelihood,
    power_law,
    responses,
    total_variation,
)
from powerbench.errors import UserError
from powerbench.models import TabularModel
from powerbench.samplers.jackknife import jackknifed, plain
from powerbench.samplers.low_temp import LowTemp
from powerbench.samplers.rollouts import futures
from powerbench.samplers.scalable_power import ScalablePower
from powerbench.types import Request, Tokens

MODEL = TabularModel(table=lambda x: [(0.6, 0.4), (0.3, 0.7)][len(x) % 2])
"""EOS and one token, by turns likely and unlikely: conditionals alone mislead."""


def small(**settings: Any) -> ScalablePower:
    """Candidates at 1/alpha, unless said otherwise."""
    given = {"max_tokens": 2, "alpha": 2.0, "blocks": 2, "candidates": 2, "kept": 2, "rollouts": 2}
    return ScalablePower(**{**given, "lookahead": 2, "proposal_temperature": None, **settings})


# -- the law, written down for a vocabulary of two ------------------------------------------------


def written(
    sampler: ScalablePower, model: TabularModel, exact: bool = False
) -> dict[Tokens, float]:
    """The law of the sampler; with `exact`, as M tends to infinity."""
    size, reached, found = sampler.max_tokens // sampler.blocks, 1.0, {}
    for horizon in range(size, sampler.max_tokens + 1, size):
        prefix: Tokens = (1,) * (horizon - size)
        chances = block_law(sampler, model, prefix, horizon, exact)
        for x, chance in chances.items():
            if x[-1] == 0 or horizon == sampler.max_tokens:
                found[x] = reached * chance
        reached *= chances.get((1,) * horizon, 0.0)
    return found


def block_law(
    sampler: ScalablePower, model: TabularModel, prefix: Tokens, horizon: int, exact: bool
) -> dict[Tokens, float]:
    blocks = list(responses(model, horizon, prefix))
    logp = {x: loglikelihood(model, x) - loglikelihood(model, prefix) for x in blocks}
    blocks.sort(key=lambda x: -logp[x])
    steps = {
        x: [model.p(x[:i]) ** (1 / sampler.tau) for i in range(len(prefix), len(x))] for x in blocks
    }
    q = {
        x: math.prod(row[t] / row.sum() for row, t in zip(steps[x], x[len(prefix) :], strict=True))
        for x in blocks
    }
    weight = {x: math.exp(sampler.alpha * logp[x]) for x in blocks}
    if sampler.weights == "importance":
        weight = {x: w / q[x] for x, w in weight.items()}
    until = min(horizon + sampler.lookahead, sampler.max_tokens)
    futures, chances = future_law(sampler, model, horizon, until, exact)
    zeta, m = futures.mean(axis=1), futures.shape[1]
    without = [
        np.delete(futures, s, axis=1).mean(axis=1) for s in range(m) if m > 1 and sampler.jackknife
    ]
    goes_on = next(i for i, x in enumerate(blocks) if x[-1] == 1)
    law = dict.fromkeys(blocks, 0.0)
    kept = distinct if sampler.weights == "distinct" else counted
    for counts, probability in kept([q[x] for x in blocks], sampler.candidates, sampler.kept):
        copies_differ = counts[goes_on] > 1 and until > horizon and not exact
        assert not copies_differ  # their zetas are not the same
        own = [n * weight[x] for n, x in zip(counts, blocks, strict=True)]
        on, rest = own[goes_on], sum(own) - own[goes_on]
        shares = on * zeta / (on * zeta + rest)
        if without:
            left_out = sum(on * each / (on * each + rest) for each in without)
            shares = np.clip(m * shares - (m - 1) / m * left_out, 0, 1)
        goes = float(shares @ chances) if on else 0.0
        for i, x in enumerate(blocks):
            law[x] += probability * (goes if i == goes_on else (1 - goes) * own[i] / (rest or 1))
    return law


def future_law(
    sampler: ScalablePower, model: TabularModel, horizon: int, until: int, exact: bool
) -> tuple[np.ndarray, np.ndarray]:
    """exp((alpha - 1) log p) of M rollouts after the block that goes on [outcomes, M], and their chances."""
    if until == horizon:
        return np.ones((1, 1)), np.ones(1)
    start: Tokens = (1,) * horizon
    every = responses(model, until, start)
    p = np.exp([loglikelihood(model, x) - loglikelihood(model, start) for x in every])
    if exact:
        return np.array([[(p**sampler.alpha).sum()]]), np.ones(1)
    m = sampler.rollouts
    drawn = np.array(list(combinations_with_replacement(range(len(p)), m)))
    counts = np.stack([(drawn == i).sum(axis=1) for i in range(len(p))], axis=1)
    orders = [math.factorial(m) / math.prod(map(math.factorial, row)) for row in counts.tolist()]
    return p[drawn] ** (sampler.alpha - 1), np.array(orders) * (p**counts).prod(axis=1)


def distinct(q: list[float], draws: int, most: int) -> Iterator[tuple[list[int], float]]:
    """Which of the blocks, likeliest first, are kept, and how likely that is: sets, by inclusion-exclusion."""
    mass = np.zeros(1)
    for each in q:
        mass = np.concatenate([mass, mass + each])  # of each subset, by its bits
    exactly = mass**draws
    for i in range(len(q)):
        halves = exactly.reshape(-1, 2, 2**i)
        halves[:, 1] -= halves[:, 0]
    for subset in np.flatnonzero(exactly > 0):
        bits, room, counts = int(subset), most, []
        for i in range(len(q)):
            counts.append(bits >> i & 1 if room else 0)
            room -= counts[-1]
        yield counts, float(exactly[subset])


def counted(q: list[float], draws: int, most: int) -> Iterator[tuple[list[int], float]]:
    """How many copies of each of the blocks, likeliest first, are kept: binomial after binomial."""

    def of(i: int, left: int, room: int, mass: float) -> Iterator[tuple[list[int], float]]:
        if room == 0 or left == 0:
            yield [0] * (len(q) - i), 1.0
            return
        share = 1.0 if i == len(q) - 1 else min(q[i] / mass, 1.0)
        chances = [
            math.comb(left, n) * share**n * (1 - share) ** (left - n) for n in range(left + 1)
        ]
        for n in range(min(left, room) + 1):
            chance = chances[n] if n < room else sum(chances[n:])
            if chance > 0:
                for rest, probability in of(i + 1, left - n, room - n, mass - q[i]):
                    yield [n, *rest], chance * probability

    yield from of(0, draws, most, 1.0)


# -- the sampler has this law ---------------------------------------------------------------------

CASES = [
    small(weights="distinct", candidates=3, kept=3, rollouts=3, max_tokens=2),
    small(weights="distinct", candidates=3, kept=1),
    small(weights="distinct", candidates=2, kept=2, max_tokens=4, jackknife=False, rollouts=1),
    small(weights="distinct", candidates=2, kept=2, proposal_temperature=1.0, alpha=3.0),
    small(
        weights="distinct", candidates=2, kept=2, max_tokens=3, blocks=3, lookahead=1, rollouts=1
    ),
    small(weights="published", candidates=4, kept=2, blocks=1),
    small(weights="published", candidates=3, kept=3, blocks=1),
    small(weights="importance", candidates=3, kept=3, blocks=1, proposal_temperature=0.8),
    small(weights="importance", candidates=3, kept=2, blocks=1),
]


@pytest.mark.parametrize(
    "sampler", CASES, ids=lambda s: f"{s.weights}{s.candidates}{s.kept}{s.rollouts}"
)
def test_the_sampler_has_the_law_that_is_written_down(sampler: ScalablePower) -> None:
    assert total_variation(chain_law(sampler, MODEL), written(sampler, MODEL)) < 1e-12


def test_copies_have_rollouts_of_their_own() -> None:
    """Where copies are weighed and go on, the law is not written down; with one rollout it still is by hand."""
    sampler = small(candidates=2, kept=2, rollouts=1, weights="published")
    q, p = 0.4**2 / (0.4**2 + 0.6**2), (0.6, 0.4)
    stop, futures = p[0] ** 2, [(p[1] ** 2 * v, v) for v in MODEL.p((1,))]
    goes_on = q * q + 2 * q * (1 - q) * sum(v * w / (w + stop) for w, v in futures)
    assert chain_law(sampler, MODEL)[(0,)] == pytest.approx(1 - goes_on, abs=1e-12)


# -- what it tends to -----------------------------------------------------------------------------


def distance(sampler: ScalablePower, exact: bool = False) -> float:
    return total_variation(
        written(sampler, MODEL, exact), power_law(MODEL, sampler.alpha, sampler.max_tokens)
    )


def test_distinct_candidates_tend_to_the_power_distribution() -> None:
    """As L, K and M grow together, if the rollouts reach to the end."""
    many = partial(small, weights="distinct", max_tokens=4, lookahead=2)
    found = [
        distance(many(candidates=n, kept=min(n, 3), rollouts=m))
        for n, m in ((1, 1), (4, 2), (32, 8), (512, 32))
    ]
    assert found == sorted(found, reverse=True)
    assert found[-1] < 2e-4 < 0.1 < found[0]
    assert distance(many(candidates=10_000, kept=3), exact=True) < 1e-9
    assert distance(many(candidates=10_000, kept=2), exact=True) > 0.01
    assert distance(many(candidates=10_000, kept=3, lookahead=1), exact=True) > 0.01


def test_importance_weights_tend_to_it_with_a_single_rollout() -> None:
    """Each weight is unbiased, whatever M: candidates alone make the law."""
    target = power_law(MODEL, 2.0, 2)
    sampler = small(weights="importance", rollouts=1, proposal_temperature=1.0)
    found = [
        total_variation(chain_law(replace(sampler, candidates=n, kept=n), MODEL), target)
        for n in (1, 2, 3)
    ]
    assert found == sorted(found, reverse=True)
    many = (replace(sampler, blocks=1, candidates=n, kept=n) for n in (1, 10, 100))
    found = [distance(each) for each in many]  # a last block, without rollouts
    assert found == sorted(found, reverse=True)
    assert found[-1] < 0.02 < 0.1 < found[0]


def test_published_weights_count_what_is_likely_twice() -> None:
    """As L = K grows, a last block tends to q p^alpha, not to p^alpha; its K likeliest, to the mode."""
    sampler = small(blocks=1, max_tokens=2, candidates=50, kept=50)
    twice = {x: m * m for x, m in power_law(MODEL, 2.0, 2).items()}
    low = dict.fromkeys(twice, 0.0)
    for x in low:
        rows = [MODEL.p(x[:i]) ** 2 for i in range(len(x))]
        low[x] = math.prod(row[t] / row.sum() for row, t in zip(rows, x, strict=True))
    tilted = {x: low[x] * math.exp(2 * loglikelihood(MODEL, x)) for x in low}
    tilted = {x: m / sum(tilted.values()) for x, m in tilted.items()}
    assert total_variation(written(sampler, MODEL), tilted) < 0.01
    assert distance(sampler) > 0.1
    mode = written(replace(sampler, kept=2), MODEL)
    assert mode[max(mode, key=lambda x: loglikelihood(MODEL, x))] > 1 - 1e-9


@pytest.mark.parametrize("tau", [None, 0.8, 1.0, 1.7])
def test_zeta_is_unbiased_at_any_temperature_of_the_rollouts(tau: float | None) -> None:
    """So that the law without the jackknife's small M, which needs many candidates, tends to the same."""
    model, alpha, until, prefix = TabularModel(seed=3), 2.5, 3, (1,)

    def program() -> Generator[Request, Any, float]:
        x = state(model, prefix, 1.0)
        ((a, b), none) = yield from futures(
            (x, state(model, (0,), 1.0)),
            ("rollout",),
            until,
            context_of(model),
            count=2,
            alpha=alpha,
            tau=tau or 1 / alpha,
        )
        assert none == (0.0, 0.0)
        return (math.exp(a) + math.exp(b)) / 2

    mean = math.fsum(z * chance for z, chance in law(program, model).items())
    start = loglikelihood(model, prefix)
    zeta = sum(
        math.exp(alpha * (loglikelihood(model, x) - start)) for x in responses(model, until, prefix)
    )
    assert mean == pytest.approx(zeta, abs=1e-12)


def test_the_sampler_reads_the_temperature_of_its_rollouts() -> None:
    """With one token to come whose zeta does not depend on the draw, as q ~ p^alpha, the law is exact in M."""
    sampler = small(weights="distinct", candidates=3, kept=3, rollouts=1, rollout_temperature=None)
    found = chain_law(sampler, MODEL)
    assert total_variation(found, written(sampler, MODEL, exact=True)) < 1e-12
    drawn_at_one = chain_law(replace(sampler, rollout_temperature=1.0), MODEL)
    assert total_variation(drawn_at_one, found) > 0.002


# -- the jackknife --------------------------------------------------------------------------------


@pytest.mark.parametrize(("weigh", "order"), [(plain, 1), (jackknifed, 2)])
def test_the_jackknife_takes_the_bias_of_order_one(weigh: Any, order: int) -> None:
    """Of the chance of a block with two equally likely futures, beside one that ends: from M to 2 M the bias
    halves without it, and falls to a quarter with it."""

    def bias(m: int) -> float:
        zetas, found = (0.4, 0.8), 0.0
        for n in range(m + 1):
            future = [math.log(zetas[0])] * n + [math.log(zetas[1])] * (m - n)
            chance = math.comb(m, n) / 2**m
            found += chance * weigh([0.0, math.log(0.5)], [future, [0.0] * m])[0]
        return found - 0.6 / (0.6 + 0.5)

    for m in (8, 16, 32):
        assert bias(m) / bias(2 * m) == pytest.approx(2**order, rel=0.1)


def test_jackknifed_weights_are_probabilities() -> None:
    weights = jackknifed([0.0, 0.0], [(0.0, -50.0), (-50.0, -60.0)])
    assert weights == (1.0, 0.0)
    assert jackknifed([0.0, 0.0], [(-1.0,), (-1.0,)]) == (0.5, 0.5)


# -- the bias of the published settings -----------------------------------------------------------

PUBLISHED = ScalablePower(16, alpha=4.0, blocks=2)
LATE = TabularModel(
    table=lambda x: (0.3, 0.7) if len(x) == 2 else (0.1, 0.9) if len(x) < 8 else (0.5, 0.5)
)
"""EOS or on: two blocks of 8 tokens have 9 outcomes each, K = 8 of which are kept. What ends late is likely
only by its future."""


@pytest.mark.parametrize(
    ("tau", "settings", "exact", "bias"),
    [
        (1.0, {"weights": "published"}, True, 0.7699),
        (1.0, {"weights": "published", "candidates": 64}, True, 0.8261),
        (1.0, {"weights": "distinct"}, False, 0.0026),
        (1.0, {"weights": "distinct", "jackknife": False}, False, 0.0046),
        (1.0, {"weights": "distinct"}, True, 0.0026),
        (1.0, {"weights": "distinct", "candidates": 64}, False, 0.0006),
        (1.0, {"weights": "distinct", "candidates": 10**7}, False, 0.0004),
        (1.0, {"weights": "distinct", "candidates": 10**7, "kept": 9}, True, 0.0),
        (None, {"weights": "published"}, True, 0.826),
        (None, {"weights": "published", "candidates": 64}, True, 0.826),
        (None, {"weights": "distinct"}, False, 0.287),
        (None, {"weights": "distinct", "jackknife": False}, False, 0.285),
        (None, {"weights": "distinct"}, True, 0.287),
        (None, {"weights": "distinct", "candidates": 64}, False, 0.105),
        (None, {"weights": "distinct", "candidates": 10**7}, False, 0.0004),
        (None, {"weights": "distinct", "candidates": 10**7, "kept": 9}, True, 0.0),
    ],
)
def test_the_published_settings_are_biased_by_a_known_amount(
    tau: float | None, settings: dict[str, Any], exact: bool, bias: float
) -> None:
    """Counting copies makes all of it; at 1/alpha, candidates that are missed as well. M unlimited (`exact`)
    leaves the same, and K < 9 adds little."""
    sampler = replace(PUBLISHED, proposal_temperature=tau, **settings)
    assert total_variation(
        written(sampler, LATE, exact), power_law(LATE, 4.0, 16)
    ) == pytest.approx(bias, abs=6e-4 if tau is None else 6e-5)


def test_candidates_and_rollouts_are_drawn_from_the_base_model_as_published() -> None:
    sampler = ScalablePower(16)
    assert (sampler.tau, sampler.rollout_temperature, sampler.weights) == (1.0, 1.0, "published")
    assert replace(sampler, proposal_temperature=None).tau == 0.25


def test_low_temperature_is_further_from_the_target_than_distinct_candidates() -> None:
    assert total_variation(
        chain_law(LowTemp(16, alpha=4.0), LATE), power_law(LATE, 4.0, 16)
    ) == pytest.approx(0.781, abs=1e-3)


# -- the chain ------------------------------------------------------------------------------------

TOY = TabularModel(vocabulary=5)
SAMPLER = ScalablePower(12, 2.0, blocks=4, candidates=5, kept=3, rollouts=2, lookahead=4)


def test_it_goes_on_from_every_saved_state() -> None:
    whole, again = resumed(SAMPLER, TOY)
    assert len(again) == 3  # none where nothing is left to do
    assert all(each == whole for each in again)
    assert [(r.block, r.start, len(r.logp)) for r in whole.rounds] == [
        (k, 3 * k, 3) for k in range(4)
    ]


def test_outcomes_do_not_depend_on_the_width() -> None:
    found = [
        {
            key: (each.outcome, each.cost.decoded)
            for key, each in completed(SAMPLER, TOY, width).items()
        }
        for width in (1, 3, 50)
    ]
    assert found[0] == found[1] == found[2]


def test_what_it_costs() -> None:
    """L blocks, and K M rollouts up to the horizon: none after the last block."""
    (done,) = completed(SAMPLER, TOY, count=1, context=ENDLESS).values()
    assert done.cost.decoded == 4 * 5 * 3 + 3 * 2 * (4 + 4 + 3)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"kept": 33}, "sampler.kept must be an integer >= 1 and <= 32, got 33"),
        ({"rollouts": 0}, "sampler.rollouts must be an integer >= 1, got 0"),
        ({"candidates": 0}, "sampler.candidates must be an integer >= 1, got 0"),
        ({"lookahead": 0}, "sampler.lookahead must be an integer >= 1, got 0"),
        ({"blocks": 5}, "sampler.blocks=5 must divide max_tokens=16"),
        ({"weights": "distnct"}, "unknown sampler.weights 'distnct' (did you mean 'distinct'?)"),
        ({"alpha": 0.0}, "sampler.alpha must be > 0"),
        ({"proposal_temperature": 0.0}, "sampler.proposal_temperature must be > 0"),
        ({"rollout_temperature": -1.0}, "sampler.rollout_temperature must be > 0"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as error:
        ScalablePower(**{"max_tokens": 16, **settings})
    assert said in str(error.value)
