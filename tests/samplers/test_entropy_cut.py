"""Restarts where entropy rises leave p^alpha invariant, with the correction for where they are drawn.

Run: pytest tests/samplers/test_entropy_cut.py
"""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from toy_chains import (
    ENDLESS,
    completed,
    entropy_of_likeliest,
    resumed,
    state,
    transition,
)

from powerbench.chains.law import power_law, responses
from powerbench.engines.toy import ToyEngine
from powerbench.errors import UserError
from powerbench.models import TabularModel
from powerbench.samplers.common import Response, weight
from powerbench.samplers.entropy_cut import EntropyCut
from powerbench.samplers.restarts import restart_law
from powerbench.types import Tokens

HORIZON = 3
MODELS = [TabularModel(seed=seed) for seed in range(3)]
LATE = TabularModel(
    table=lambda x: [0, 1, 0] if not x else [0.2, 0.5, 0.3] if len(x) == 1 else [0.7, 0.1, 0.2]
)
"""The first token is certain: the first rise is at the second."""
RISING = TabularModel(table=lambda x: [0.2, 0.3, 0.5] if x else [0.04, 0.9, 0.06])
"""Entropy rises at the second token more than at the first."""
LETTERS = TabularModel(vocabulary=5)


@pytest.mark.parametrize(
    "model", [*MODELS, LATE, RISING], ids=["model0", "model1", "model2", "late", "rising"]
)
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"early_rejection": False},
        {"uniform": 0.3},
        {"uniform": 1.0},
        {"alpha": 2.0, "proposal_temperature": 1.0, "uniform": 0.1, "exponent": 1.0},
        {"alpha": 2.0, "proposal_temperature": 0.3},
        {"exponent": 4000.0},  # the way back may be so unlikely that its probability is 0.0
    ],
    ids=str,
)
def test_it_leaves_its_target_invariant_and_converges_to_it(
    model: TabularModel, settings: dict[str, Any]
) -> None:
    sampler = EntropyCut(HORIZON, blocks=1, **settings)
    states, matrix = transition(model, sampler, HORIZON)
    target = np.array(list(power_law(model, sampler.alpha, HORIZON).values()))
    assert matrix.sum(axis=1) == pytest.approx(np.ones(len(states)), abs=1e-12)
    assert np.abs(target @ matrix - target).max() < 1e-12
    flow = target[:, None] * matrix
    assert np.abs(flow - flow.T).max() < 1e-12
    if sampler.exponent < 4000:
        last = np.linalg.matrix_power(matrix, 2**20)
        assert np.abs(last - target).max() < 1e-9  # from every response


@pytest.mark.parametrize("top", [1, 2, 3])
def test_entropies_over_the_likeliest_tokens_leave_the_target_invariant_too(top: int) -> None:
    sampler, model = EntropyCut(HORIZON, blocks=1, top_entropies=top), MODELS[0]
    states, matrix = transition(model, sampler, HORIZON, top=top)
    target = np.array(list(power_law(model, 4.0, HORIZON).values()))
    assert matrix.sum(axis=1) == pytest.approx(np.ones(len(states)), abs=1e-12)
    assert np.abs(target @ matrix - target).max() < 1e-12
    whole = transition(model, replace(sampler, top_entropies=None), HORIZON)[1]
    assert (np.abs(matrix - whole).max() < 1e-12) == (top == 3)  # all of the tokens


def test_a_chain_restarts_by_the_entropies_of_the_likeliest_tokens() -> None:
    sampler = EntropyCut(8, blocks=1, top_entropies=2, steps=0, proposal_temperature=1.0)
    asked = sampler.draft(Response(), 0, 8, ("extend", 0), ENDLESS)
    engine = ToyEngine(LETTERS)
    engine.submit(0, (), asked, np.random.default_rng(0).random(8))
    while not (finished := engine.step()):
        pass
    x = Response().then(finished[0].draw)
    entropy = [entropy_of_likeliest(LETTERS.p(x.tokens[:i]), 2) for i in range(8)]
    assert x.top_entropy == pytest.approx(entropy, abs=1e-12)
    assert sampler.restarts(x) == pytest.approx(restart_law(entropy, 4.0, 0.0), abs=1e-12)
    assert sampler.restarts(x) != pytest.approx(restart_law(x.entropy, 4.0, 0.0), abs=1e-5)


def official_rule(model: TabularModel, sampler: EntropyCut, x: Tokens) -> dict[Tokens, float]:
    """Where the official code's step leads from x: proposals of at most the response's length, the current
    suffix's terms cut to theirs."""
    after = dict[Tokens, float]()
    here = restart_law(state(model, x, sampler.tau).entropy, 4.0, 0.0)
    for m, chance in enumerate(here):
        for y in responses(model, len(x), x[:m]) if chance else ():
            new, old = state(model, y, sampler.tau), state(model, x, sampler.tau)
            back = restart_law(new.entropy, 4.0, 0.0)[m]
            gain = weight(new, 4.0, m) - weight(old, 4.0, m, len(y))
            accept = min(1.0, math.exp(gain) * back / chance)
            drawn = chance * math.exp(sum(new.logq[m:]))
            after[y] = after.get(y, 0.0) + drawn * accept
            after[x] = after.get(x, 0.0) + drawn * (1 - accept)
    return after


@pytest.mark.parametrize("model", MODELS, ids=lambda m: f"model{m.seed}")
def test_within_the_response_it_steps_as_the_official_code_does(model: TabularModel) -> None:
    sampler = EntropyCut(HORIZON, blocks=1, within_response=True)
    shorter = {x for horizon in range(1, HORIZON + 1) for x in responses(model, horizon)}
    states, matrix = transition(model, sampler, HORIZON, sorted(shorter))
    for x, row in zip(states, matrix, strict=True):
        expected = official_rule(model, sampler, x)
        assert row == pytest.approx([expected.get(y, 0.0) for y in states], abs=1e-12)
    law = power_law(model, 4.0, HORIZON)
    target = np.array([law.get(x, 0.0) for x in states])
    assert np.abs(target @ matrix - target).sum() / 2 > 0.01  # not exact: responses only shorten


def test_some_positions_are_never_restarted_from_unless_uniformly() -> None:
    """What the kernel is about: on the toy models, too, entropy falls at some positions."""
    sampler, found = EntropyCut(HORIZON, blocks=1), 0
    for x in responses(MODELS[0], HORIZON):
        response = state(MODELS[0], x, sampler.tau)
        found += sampler.restarts(response).count(0.0)
        assert min(replace(sampler, uniform=0.2).restarts(response)) >= 0.2 / len(x)
    assert found > 0


def with_entropy(*entropy: float) -> Response:
    zeros = (0.0,) * len(entropy)
    return Response((1,) * len(entropy), zeros, zeros, entropy)


@pytest.mark.parametrize(
    ("settings", "entropy", "expected"),
    [
        ({}, (1.0, 3.0, 2.0, 2.5), (1.0, 16.0, 0.0, 0.0625)),
        ({"exponent": 1.0}, (1.0, 3.0, 2.0, 2.5), (1.0, 2.0, 0.0, 0.5)),
        ({}, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
        ({}, (1e-90, 2e-90), (1.0, 1.0)),
        ({"uniform": 1.0}, (1.0, 3.0, 2.0), (1.0, 1.0, 1.0)),
        ({"uniform": 0.25, "exponent": 1.0}, (1.0, 0.5), (0.75 + 0.125, 0.125)),
    ],
)
def test_restarts_are_drawn_by_powers_of_entropy_rises(
    settings: dict[str, Any], entropy: tuple[float, ...], expected: tuple[float, ...]
) -> None:
    found = EntropyCut(12, blocks=1, **settings).restarts(with_entropy(*entropy))
    assert found == pytest.approx(np.array(expected) / sum(expected), abs=1e-12)


@pytest.mark.parametrize("settings", [{}, {"uniform": 0.3}, {"top_k": 3}])
def test_early_rejection_changes_no_chain_and_saves_tokens(settings: dict[str, Any]) -> None:
    early = EntropyCut(12, blocks=3, steps=4, **settings)
    ours = completed(early, LETTERS, count=40)
    theirs = completed(replace(early, early_rejection=False), LETTERS, count=40)
    assert {k: (e.outcome.tokens, e.outcome.logp) for k, e in ours.items()} == {
        k: (e.outcome.tokens, e.outcome.logp) for k, e in theirs.items()
    }
    assert sum(e.cost.decoded for e in ours.values()) < sum(e.cost.decoded for e in theirs.values())


@pytest.mark.parametrize("model", MODELS, ids=lambda m: f"model{m.seed}")
def test_early_rejection_changes_no_transition(model: TabularModel) -> None:
    early = EntropyCut(HORIZON, blocks=1, uniform=0.1)
    late = replace(early, early_rejection=False)
    assert transition(model, early, HORIZON)[1] == pytest.approx(
        transition(model, late, HORIZON)[1], abs=1e-12
    )


def test_no_step_restarts_past_the_end() -> None:
    for each in completed(EntropyCut(12, blocks=3, steps=6), LETTERS, count=10).values():
        assert all(step.decoded > 0 for step in each.outcome.steps)


def test_outcomes_do_not_depend_on_width_or_speculation() -> None:
    sampler = EntropyCut(12, blocks=3, steps=4)
    plain = {k: e.outcome for k, e in completed(sampler, LETTERS, 3).items()}
    for width, speculate in ((1, 0), (50, 0), (50, 8)):
        ran = completed(sampler, LETTERS, width, speculate=speculate)
        assert {k: e.outcome for k, e in ran.items()} == plain


def test_a_chain_goes_on_from_every_saved_state() -> None:
    whole, again = resumed(EntropyCut(12, blocks=4, steps=3), LETTERS, ENDLESS)
    assert again == [whole] * 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"exponent": 0.0}, "sampler.exponent must be > 0"),
        ({"uniform": 1.5}, "sampler.uniform, a share, must be from 0 to 1, got 1.5"),
        ({"uniform": -0.1}, "sampler.uniform, a share, must be from 0 to 1, got -0.1"),
        ({"top_entropies": 0}, "sampler.top_entropies must be an integer >= 1, got 0"),
        ({"blocks": 5}, "sampler.blocks=5 must divide"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        EntropyCut(48, **settings)
