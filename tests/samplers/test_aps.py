"""Adaptive Power Sampling: its theorems on a toy, its rule, its vote, and that its chains are `power`'s.

Run: pytest tests/samplers/test_aps.py
"""

import math
from collections.abc import Generator
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from toy_chains import ENDLESS, chain_law, completed, resumed

from powerbench.chains.law import (
    context_of,
    law,
    loglikelihood,
    power_law,
    total_variation,
)
from powerbench.errors import UserError
from powerbench.models import TabularModel
from powerbench.samplers.aps import APS
from powerbench.samplers.nested import gradient, side_by_side
from powerbench.samplers.power import Power
from powerbench.samplers.voting import agreement
from powerbench.types import Context, Request, Round, Tokens

TOY = TabularModel(vocabulary=5)
HORIZON, STEP = 3, 1e-4


def first(tokens: Tokens) -> str | None:
    """A response's answer: its first token, unless that ends it."""
    return str(tokens[0]) if tokens[0] else None


ANSWERED = replace(ENDLESS, answer=first)


class Exact:
    """p^alpha on a toy where the responses that begin with token 1 are right."""

    def __init__(self, seed: int, alpha: float) -> None:
        model = TabularModel(seed=seed)
        mass = power_law(model, alpha, HORIZON)
        self.p = np.array(list(mass.values()))
        self.logp = np.array([loglikelihood(model, x) for x in mass])
        self.right = np.array([float(x[0] == 1) for x in mass])

    @property
    def share(self) -> float:
        return float(self.p @ self.right)

    def mean(self, values: np.ndarray, right: float) -> float:
        among = self.p * (self.right == right)
        return float(among @ values / among.sum())

    @property
    def delta(self) -> float:
        """Mean log p of right responses, less that of wrong ones."""
        return self.mean(self.logp, 1.0) - self.mean(self.logp, 0.0)

    def variance(self, right: float) -> float:
        return self.mean((self.logp - self.mean(self.logp, right)) ** 2, right)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("alpha", [1.0, 2.5, 4.0])
def test_accuracy_moves_with_the_covariance_of_being_right_and_log_p(
    seed: int, alpha: float
) -> None:
    """dP/dalpha = Cov(right, log p) = P (1 - P) delta; d delta/dalpha = the difference of the variances."""
    at, less, more = (Exact(seed, alpha + h) for h in (0.0, -STEP, STEP))
    slope = (more.share - less.share) / (2 * STEP)
    covariance = float(at.p @ (at.right * at.logp) - at.share * (at.p @ at.logp))
    assert covariance == pytest.approx(at.share * (1 - at.share) * at.delta, rel=1e-12)
    assert slope == pytest.approx(covariance, abs=1e-6)
    bend = (more.delta - less.delta) / (2 * STEP)
    assert bend == pytest.approx(at.variance(1.0) - at.variance(0.0), abs=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_the_gradient_is_that_slope_over_the_spread_of_log_p(seed: int) -> None:
    """Of a population that has each response as often as p^alpha says, all of whose answers are known."""
    exact = Exact(seed, 2.0)
    copies = np.round(exact.p * 20_000).astype(int)
    right, logp = (np.repeat(column, copies).tolist() for column in (exact.right, exact.logp))
    slope = exact.share * (1 - exact.share) * exact.delta
    spread = math.sqrt(exact.p @ exact.logp**2 - (exact.p @ exact.logp) ** 2)
    assert gradient(right, logp) == pytest.approx(slope / spread, abs=2e-3)
    assert gradient([1.0, 0.0], [-3.0, -3.0]) == 0.0


def test_agreement_is_the_share_of_the_others_with_the_same_answer() -> None:
    found = agreement(["a", "b", "a", None, "a", None])
    assert found == pytest.approx([2 / 5, 0, 2 / 5, 0, 2 / 5, 0])
    assert agreement(["a", "a"]) == [1, 1]


@pytest.mark.parametrize(
    ("v", "logp", "expected"),
    [
        ((1.0, 1.0, 1.0, 1.0), (-1.0, -2.0, -3.0, -4.0), None),  # all agree
        ((0.0, 0.0, 0.0, 0.0), (-1.0, -2.0, -3.0, -4.0), 4.0),  # none agrees: more at the same one
        ((0.5, 0.5, 0.0, 0.0), (-1.0, -1.0, -3.0, -3.0), 4 + 2 * 0.25),
        ((0.0, 0.0, 0.5, 0.5), (-1.0, -1.0, -3.0, -3.0), 4 - 2 * 0.25),
        ((0.5, 0.5, 0.4, 0.4), (-1.0, -1.0, -3.0, -3.0), None),  # |g| = .05
        ((0.5, 0.0, 0.5, 0.0), (-1.0, -1.0, -3.0, -3.0), None),  # g = 0
    ],
)
def test_the_exponent_moves_as_published(
    v: tuple[float, ...], logp: tuple[float, ...], expected: float | None
) -> None:
    told = Round(0, 0, logp, v, (0, 1, 2, 3))
    assert APS(12, blocks=3).following(4.0, told) == (expected and pytest.approx(expected))
    assert APS(12, blocks=3).following(4.0, told._replace(kept=())) is None


def test_the_exponent_stays_within_its_bounds() -> None:
    up = Round(0, 0, (-1.0, -1.0, -3.0, -3.0), (0.5, 0.5, 0.0, 0.0), (0, 1, 2, 3))
    sampler = APS(12, blocks=3, highest=4.2, lowest=3.9)
    assert sampler.following(4.0, up) == 4.2
    assert sampler.following(4.2, up) is None
    assert sampler.following(4.0, up._replace(weights=up.weights[::-1])) == 3.9


def test_chains_side_by_side_have_the_law_of_chains_of_their_own() -> None:
    model = TabularModel(vocabulary=2, seed=1)
    power = Power(2, blocks=2, steps=1, stop_at_eos=False)

    def both() -> Generator[Request, Any, tuple[Tokens, ...]]:
        chains = {i: power.chain(context_of(model)) for i in (3, 5)}
        outcomes = yield from side_by_side(chains)
        return tuple(outcomes[i].tokens for i in (3, 5))

    alone = chain_law(power, model)
    independent = {(x, y): alone[x] * alone[y] for x, y in product(alone, alone)}
    assert total_variation(law(both, model), independent) < 1e-12


def test_two_chains_whose_answers_differ_tie_and_the_likelier_wins() -> None:
    model = TabularModel(vocabulary=4, seed=1)
    settings = {"blocks": 1, "steps": 0}
    sampler = APS(1, n=2, together=2, **settings)
    alone = chain_law(Power(1, **settings), model)
    expected: dict[Tokens, float] = {}
    for x, y in product(alone, alone):
        # One without an answer has no vote; of two that have one, as of two that have none, the likelier wins.
        best = max((x, y), key=lambda z: (first(z) is not None, round(loglikelihood(model, z), 12)))
        expected[best] = expected.get(best, 0.0) + alone[x] * alone[y]
    context = replace(context_of(model), answer=first)
    assert total_variation(chain_law(sampler, model, context), expected) < 1e-12


SAMPLER = APS(8, blocks=2, steps=3, epsilon=0.001)


def test_a_search_spends_its_chains_and_votes_at_the_last_exponent_kept() -> None:
    seen = set()
    for done in completed(SAMPLER, TOY, count=40, context=ANSWERED).values():
        *batches, vote = done.outcome.rounds
        exponents = SAMPLER.exponents(done.outcome.rounds)
        assert len(exponents) == len(batches) <= 3
        assert exponents[0] == 4.0
        assert len(vote.logp) == 12 - 4 * sum(a != exponents[-1] for a in exponents)
        assert vote.logp[: len(batches[-1].logp)] == batches[-1].logp
        (best,) = vote.kept
        assert done.outcome.logp == pytest.approx(vote.logp[best], abs=1e-3)
        assert done.cost.decoded >= 12 * 8
        seen |= set(exponents)
    assert len(seen) > 10
    assert all(1 <= alpha <= 8 for alpha in seen)


def test_each_batch_is_drawn_at_the_exponent_that_its_record_tells() -> None:
    context, asked = ANSWERED, []

    class Seen(APS):
        def drawn(self, now: Any, alpha: float, count: int, context: Context) -> Any:
            asked.append((alpha, count))
            return super().drawn(now, alpha, count, context)

    sampler = Seen(8, blocks=2, steps=3, epsilon=0.001)
    for done in completed(sampler, TOY, count=10, context=context).values():
        assert done.outcome.rounds
    # Chains run beside each other: sorted, what was asked for is what the records tell.
    told = []
    for done in completed(SAMPLER, TOY, count=10, context=context).values():
        exponents = SAMPLER.exponents(done.outcome.rounds)
        told += [(alpha, 4) for alpha in exponents]
        if len(exponents) < 3:
            told.append((exponents[-1], 12 - 4 * len(exponents)))
    assert sorted(asked) == sorted(told)


def test_an_exponent_with_too_few_acceptances_is_given_up_for_the_lowest() -> None:
    sampler = replace(SAMPLER, least_acceptance=1.0, lowest=1.5)
    for done in completed(sampler, TOY, context=ANSWERED).values():
        given_up, vote = done.outcome.rounds
        assert (given_up.kept, len(given_up.logp), len(vote.logp)) == ((), 4, 8)
        assert sampler.exponents(done.outcome.rounds) == [4.0]
    alone = replace(sampler, n=4)  # none is left for it
    for done in completed(alone, TOY, context=ANSWERED).values():
        given_up, vote = done.outcome.rounds
        assert vote.logp == given_up.logp


@pytest.mark.parametrize("width", [1, 50])
def test_outcomes_do_not_depend_on_the_width(width: int) -> None:
    expected = {k: e.outcome for k, e in completed(SAMPLER, TOY, 3, 10, ANSWERED).items()}
    ours = completed(SAMPLER, TOY, width, 10, ANSWERED)
    assert {k: e.outcome for k, e in ours.items()} == expected


def test_a_chain_goes_on_from_every_saved_state() -> None:
    whole, again = resumed(SAMPLER, TOY, ANSWERED)
    assert len(again) > 0
    assert all(each == whole for each in again)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"together": 1}, "sampler.together must be an integer >= 2, got 1"),
        ({"n": 3}, "sampler.n must be an integer >= 4, got 3"),
        ({"alpha": 9.0}, "sampler.alpha=9.0 must be from sampler.lowest=1.0, above 0, to "),
        ({"blocks": 5}, "sampler.blocks=5 must divide"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        APS(48, **settings)
