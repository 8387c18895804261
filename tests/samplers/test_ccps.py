"""CCPS: its vote, and that it draws as Power-SMC where it does not vote.

Run: pytest tests/samplers/test_ccps.py
"""

import math
from collections.abc import Generator
from dataclasses import replace
from typing import Any

import pytest
from toy_chains import ENDLESS, chain_law, completed, resumed

from powerbench.chains.law import context_of, law, loglikelihood, responses, total_variation
from powerbench.errors import UserError
from powerbench.models import TabularModel
from powerbench.samplers.ccps import CCPS, consensus
from powerbench.samplers.common import Response
from powerbench.samplers.population import normalised
from powerbench.samplers.power_smc import PowerSMC
from powerbench.types import Context, Request, Tokens

TOY = TabularModel(vocabulary=5)
METHOD = {"top_p": None, "min_tokens": 0, "stop_at_answer": False}
SMALL = CCPS(12, 2.0, 4, threshold=0.95, interval=3, ramp=2, **METHOD)


def of(*tokens: Tokens) -> list[Response]:
    return [Response(each) for each in tokens]


@pytest.mark.parametrize(
    ("tokens", "weights", "given", "chosen"),
    [
        (((1,), (2,), (3,)), (0.2, 0.2, 0.6), ("a", "a", "b"), 0),
        (((1,), (1,), (3,)), (0.2, 0.2, 0.6), ("a", "a", "b"), 2),  # one lineage each: weight
        (((1,), (1,), (3,)), (0.4, 0.3, 0.3), ("a", "a", "b"), 0),
        (((1,), (2,), (1,)), (0.2, 0.3, 0.2), ("a", "a", "a"), 0),  # pooled: 0.4
        (((1,), (2,), (3,)), (0.1, 0.2, 0.7), ("a", "a", None), 1),
        (((1,), (2,), (1,)), (0.3, 0.4, 0.3), (None, None, None), 0),
        (((1,), (2,), (3,), (4,)), (0.1, 0.4, 0.3, 0.2), ("a", "b", "a", "b"), 1),
        (((1,), (2,)), (0.5, 0.5), ("a", "b"), 0),
    ],
)
def test_the_answer_of_most_lineages_wins(
    tokens: Any, weights: Any, given: Any, chosen: int
) -> None:
    assert consensus(of(*tokens), weights, given) == chosen


def first_token(tokens: Tokens) -> str | None:
    """The answer of a toy response; one that begins with 0 has none."""
    return str(tokens[0]) if tokens and tokens[0] else None


@pytest.mark.parametrize("resampling", ["chopthin", "systematic"])
def test_what_is_returned_has_the_law_of_the_vote(resampling: str) -> None:
    """By the exact law of the particles and their weights, and a vote written down a second time."""
    model = TabularModel(vocabulary=3, seed=1)
    sampler = CCPS(2, 2.0, 3, threshold=0.9, interval=1, ramp=2, resampling=resampling, **METHOD)

    def program() -> Generator[Request, Any, tuple[Any, ...]]:
        end = yield from sampler.population(context_of(model))
        return tuple(x.tokens for x in end.particles), normalised(end.log_weights)

    expected: dict[Tokens, float] = {}
    for (tokens, weights), chance in law(program, model).items():
        pooled = {x: sum(w for y, w in zip(tokens, weights, strict=True) if x == y) for x in tokens}
        votes = {a: [x for x in pooled if first_token(x) == a] for a in map(first_token, tokens)}
        votes.pop(None, None)
        rank = {a: (len(xs), math.fsum(pooled[x] for x in xs)) for a, xs in votes.items()}
        among = votes[max(rank, key=rank.__getitem__)] if rank else list(pooled)
        best = max(among, key=pooled.__getitem__)
        expected[best] = expected.get(best, 0.0) + chance
    context = replace(context_of(model), answer=first_token)
    assert total_variation(chain_law(sampler, model, context), expected) < 1e-12
    assert len(expected) > 3


@pytest.mark.parametrize("context", [None, ENDLESS])
def test_drawn_by_weight_it_is_power_smc_token_for_token(context: Context | None) -> None:
    settings = {"threshold": 0.95, "interval": 3, "ramp": 2, "resampling": "chopthin"}
    expected = completed(PowerSMC(12, 2.0, 4, **settings), TOY, context=context)
    drawn = replace(SMALL, select="draw")
    assert not drawn.votes
    for key, each in completed(drawn, TOY, context=context).items():
        assert each.outcome == expected[key].outcome


def test_the_published_settings_estimate_the_mass_within_their_reach() -> None:
    """Nucleus, least length, end at the answer, ramp and chopthin together: no bias but the target's."""
    model = TabularModel(vocabulary=4, seed=3)
    context = replace(context_of(model), answer=lambda x: str(len(x)) if 2 in x else None)
    sampler = CCPS(
        3, 2.0, 2, proposal_temperature=1.0, threshold=0.99, interval=1, top_p=0.9, min_tokens=2
    )

    def within(prefix: Tokens) -> Generator[Tokens, None, None]:
        if prefix and (prefix[-1] in (0, 2) or len(prefix) == 3):
            yield prefix
            return
        p = model.p(prefix).copy()
        if len(prefix) < 2:
            p[0] = 0
        order = sorted(range(4), key=lambda t: -p[t])
        while len(order) > 1 and sum(p[t] for t in order[:-1]) >= 0.9 * p.sum():
            order.pop()
        for token in order:
            if p[token] > 0:
                yield from within((*prefix, token))

    def program() -> Generator[Request, Any, float]:
        end = yield from sampler.population(context)
        return math.exp(end.log_estimate)

    reach = list(within(()))
    assert 3 < len(reach) < len(list(responses(model, 3)))
    expected = math.fsum(math.exp(2 * loglikelihood(model, x)) for x in reach)
    mean = math.fsum(z * chance for z, chance in law(program, model).items())
    assert mean == pytest.approx(expected, abs=1e-12)


def test_it_goes_on_from_every_saved_state() -> None:
    context = replace(ENDLESS, answer=first_token)
    whole, again = resumed(SMALL, TOY, context)
    assert len(again) == 3
    assert all(each == whole for each in again)


def test_an_unknown_selection_is_refused() -> None:
    with pytest.raises(UserError, match=r"unknown sampler\.select 'vot' \(did you mean 'vote'\?\)"):
        CCPS(16, select="vot")
