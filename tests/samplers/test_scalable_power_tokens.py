"""Scalable Power Sampling token by token: its exact law, written down a second time, and what it tends to.

Run: pytest tests/samplers/test_scalable_power_tokens.py
"""

import math
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
from toy_chains import ENDLESS, chain_law, completed, resumed

from powerbench.chains.law import loglikelihood, power_law, responses, total_variation
from powerbench.errors import UserError
from powerbench.models import TabularModel
from powerbench.samplers import scalable_power_tokens
from powerbench.samplers.jackknife import jackknifed, plain
from powerbench.samplers.scalable_power_tokens import ScalablePowerTokens
from powerbench.types import Tokens

MODEL = TabularModel(vocabulary=3, seed=2)
TWO = TabularModel(vocabulary=2, seed=4)


def written(sampler: ScalablePowerTokens, model: TabularModel) -> dict[Tokens, float]:
    """The law, from the model's probabilities alone: every outcome of the rollouts after every token."""
    found: dict[Tokens, float] = {}
    open_prefixes: list[tuple[Tokens, float]] = [((), 1.0)]
    while open_prefixes:
        prefix, reached = open_prefixes.pop()
        for token, chance in token_law(sampler, model, prefix).items():
            x = (*prefix, token)
            if token == 0 or len(x) == sampler.max_tokens:
                found[x] = found.get(x, 0.0) + reached * chance
            else:
                open_prefixes.append((x, reached * chance))
    return found


def token_law(
    sampler: ScalablePowerTokens, model: TabularModel, prefix: Tokens
) -> dict[int, float]:
    p = model.p(prefix)
    kept = sorted(range(len(p)), key=lambda t: -p[t])[: sampler.kept]
    until = min(len(prefix) + 1 + sampler.lookahead, sampler.max_tokens)
    outcomes: list[list[tuple[tuple[float, ...], float]]] = []
    for token in kept:
        x = (*prefix, token)
        start = loglikelihood(model, x)
        ends = list(responses(model, until, x))
        rollouts = [loglikelihood(model, y) - start for y in ends]
        outcomes.append(
            [
                (
                    tuple((sampler.alpha - 1) * each for each in drawn),
                    math.exp(math.fsum(drawn)),
                )
                for drawn in product(rollouts, repeat=sampler.rollouts)
            ]
        )
    law = dict.fromkeys(kept, 0.0)
    weigh = jackknifed if sampler.jackknife else plain
    tokens = [sampler.alpha * math.log(p[token]) for token in kept]
    for each in product(*outcomes):
        chance = math.prod(probability for _, probability in each)
        for token, share in zip(kept, weigh(tokens, [f for f, _ in each]), strict=True):
            law[token] += chance * share
    return law


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"kept": 2},
        {"jackknife": False},
        {"lookahead": 1, "rollouts": 2},
        {"kept": 2, "rollouts": 2, "jackknife": True},
    ],
    ids=str,
)
def test_the_sampler_has_the_law_that_is_written_down(settings: dict[str, Any]) -> None:
    model = TWO if settings.get("rollouts") == 2 else MODEL
    sampler = ScalablePowerTokens(
        3 if model is TWO else 2, **{"alpha": 2.5, "kept": 3, "rollouts": 1, **settings}
    )
    assert total_variation(chain_law(sampler, model), written(sampler, model)) < 1e-12


def test_it_tends_to_the_power_distribution_with_rollouts_alone() -> None:
    """Candidates are enumerated: with K the vocabulary and H to the end, M is all that is left; zeta at 1/alpha
    has no variance where one token is to come."""
    target = power_law(TWO, 2.5, 3)
    sampler = ScalablePowerTokens(3, 2.5, kept=2, rollouts=1, lookahead=2)
    far = [total_variation(written(replace(sampler, rollouts=m), TWO), target) for m in (1, 2, 4)]
    assert far == sorted(far, reverse=True)
    assert far[2] < 0.3 * far[0]
    exact = ScalablePowerTokens(2, 2.5, kept=3, rollouts=1, rollout_temperature=None)
    assert total_variation(chain_law(exact, MODEL), power_law(MODEL, 2.5, 2)) < 1e-12
    short = replace(sampler, rollouts=4, lookahead=1)
    assert total_variation(written(short, TWO), target) > far[2]


def test_one_candidate_is_greedy() -> None:
    found = chain_law(ScalablePowerTokens(3, kept=1, rollouts=1, lookahead=1), MODEL)
    (likeliest,) = {x for x, chance in found.items() if chance > 0}
    assert all(MODEL.p(likeliest[:i]).argmax() == t for i, t in enumerate(likeliest))


def test_it_goes_on_from_every_saved_state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scalable_power_tokens, "SAVED_EVERY", 3)
    sampler = ScalablePowerTokens(12, 2.0, kept=3, rollouts=2, lookahead=4)
    whole, again = resumed(sampler, TabularModel(vocabulary=5))
    assert len(again) == 3  # none where nothing is left to do
    assert all(each == whole for each in again)
    assert [(r.block, r.start, len(r.logp)) for r in whole.rounds] == [(t, t, 3) for t in range(12)]


def test_what_it_costs() -> None:
    """A token that reports the candidates, and K M rollouts as far as the horizon."""
    sampler = ScalablePowerTokens(6, 2.0, kept=3, rollouts=2, lookahead=2)
    (done,) = completed(sampler, TabularModel(vocabulary=5), count=1, context=ENDLESS).values()
    assert done.cost.decoded == 6 + 3 * 2 * (2 + 2 + 2 + 2 + 1 + 0)


@pytest.mark.parametrize("name", ["kept", "rollouts", "lookahead"])
def test_impossible_settings_are_refused(name: str) -> None:
    with pytest.raises(UserError, match=f"sampler.{name} must be an integer >= 1, got 0"):
        ScalablePowerTokens(16, **{name: 0})
    with pytest.raises(UserError, match=r"sampler\.rollout_temperature must be > 0"):
        ScalablePowerTokens(16, rollout_temperature=0.0)
