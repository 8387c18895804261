"""The best of n has the law of a maximum of n draws.

Run: pytest tests/samplers/test_best_of_n.py
"""

import math
from collections.abc import Generator
from typing import Any

import pytest
from toy_chains import chain_law, completed

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
from powerbench.samplers.best_of_n import BestOfN
from powerbench.samplers.population import record
from powerbench.types import Request, Round, Tokens

PAIR = TabularModel(vocabulary=2, seed=3)
LETTERS = TabularModel(vocabulary=3, seed=1)
TIES = TabularModel(table=lambda x: [0.5, 0.25, 0.25] if not x else [0.5, 0.5, 0.0])
"""Responses of at most two tokens: one of 1/2, four of 1/8."""


def plain(model: TabularModel, horizon: int, tau: float) -> dict[Tokens, float]:
    """The law of one response: every conditional sharpened on its own."""
    result = {}
    for x in responses(model, horizon):
        rows = [model.p(x[:i]) ** (1 / tau) for i in range(len(x))]
        result[x] = math.prod(row[t] / row.sum() for row, t in zip(rows, x, strict=True))
    return result


def maximum(
    model: TabularModel, horizon: int, n: int, tau: float, per_token: bool
) -> dict[Tokens, float]:
    """The law of the best of n, from the distribution function of the score: among equals, as p has it."""
    p = plain(model, horizon, tau)
    score = {x: round(loglikelihood(model, x) / (len(x) if per_token else 1), 9) for x in p}
    result = {}
    for x in p:
        below = math.fsum(p[y] for y in p if score[y] < score[x])
        equal = math.fsum(p[y] for y in p if score[y] == score[x])
        result[x] = ((below + equal) ** n - below**n) * p[x] / equal
    return result


@pytest.mark.parametrize("score", ["total", "per_token"])
@pytest.mark.parametrize(
    ("model", "horizon", "n", "tau"),
    [
        (PAIR, 3, 4, 1.0),
        (PAIR, 3, 3, 0.5),
        (LETTERS, 2, 3, 1.0),
        (LETTERS, 3, 2, 2.0),
        (TIES, 2, 3, 1.0),
    ],
)
def test_its_law_is_that_of_the_maximum(
    model: TabularModel, horizon: int, n: int, tau: float, score: str
) -> None:
    found = chain_law(BestOfN(horizon, n=n, score=score, temperature=tau), model)
    expected = maximum(model, horizon, n, tau, score == "per_token")
    assert math.fsum(expected.values()) == pytest.approx(1, abs=1e-12)
    assert total_variation(found, expected) < 1e-12


def test_of_one_it_is_the_model_itself() -> None:
    assert total_variation(chain_law(BestOfN(3, n=1), LETTERS), power_law(LETTERS, 1.0, 3)) < 1e-12


def test_the_score_decides() -> None:
    """Total log-likelihood prefers the short response that ends at once; per token, the long one."""
    model = TabularModel(table=lambda x: [0.4, 0.6] if not x else [0.3, 0.7])
    total = chain_law(BestOfN(3, n=4, score="total"), model)
    per_token = chain_law(BestOfN(3, n=4, score="per_token"), model)
    assert max(total, key=lambda x: total[x]) == (0,)
    assert max(per_token, key=lambda x: per_token[x]) == (1, 1, 1)


@pytest.mark.parametrize("score", ["total", "per_token"])
def test_of_equals_it_is_the_first_and_the_round_says_which(score: str) -> None:
    def program() -> Generator[Request, Any, tuple[float, tuple[Round, ...]]]:
        outcome = yield from BestOfN(2, n=3, score=score).chain(context_of(TIES))
        return outcome.logp, outcome.rounds

    for logp, (only,) in law(program, TIES):
        (kept,) = only.kept
        assert only.weights[kept] == max(only.weights)
        assert only.weights.index(max(only.weights)) == kept
        assert only == record(0, 0, [], only.weights, only.kept)._replace(logp=only.logp)
        assert only.logp[kept] == pytest.approx(logp, abs=1e-3)
        assert len(only.logp) == 3


def test_outcomes_do_not_depend_on_the_width_and_cost_is_that_of_all_draws() -> None:
    sampler, model = BestOfN(8, n=5), TabularModel(vocabulary=5)
    narrow, middle, wide = (completed(sampler, model, width) for width in (1, 3, 50))
    outcomes = {k: e.outcome for k, e in narrow.items()}
    assert outcomes == {k: e.outcome for k, e in middle.items()}
    assert outcomes == {k: e.outcome for k, e in wide.items()}
    for each in wide.values():
        assert 5 <= each.cost.decoded <= 40
        assert not each.outcome.steps and len(each.outcome.rounds) == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n": 0}, "sampler.n must be an integer >= 1, got 0"),
        ({"score": "mean"}, "sampler.score must be one of total, per_token, got mean"),
        ({"temperature": 0.0}, "sampler.temperature must be > 0, got 0.0"),
        ({"top_k": 0}, "sampler.top_k must be an integer >= 1, got 0"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        BestOfN(8, **settings)
