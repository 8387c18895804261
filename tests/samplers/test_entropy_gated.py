"""Several tries at restarts that depend on the response leave p^alpha invariant; the draft decides the gate.

Run: pytest tests/samplers/test_entropy_gated.py
"""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from toy_chains import (
    ENDLESS,
    chain_law,
    completed,
    require_same_in_any_width,
    resumed,
    state,
    transition,
)

from powerbench.chains.law import power_law, responses
from powerbench.errors import UserError
from powerbench.models import TabularModel
from powerbench.samplers.entropy_cut import EntropyCut
from powerbench.samplers.entropy_gated import EntropyGated

LETTERS = TabularModel(vocabulary=5)
SETTINGS = [
    {},
    {"uniform": 0.3},
    {"alpha": 2.0, "proposal_temperature": 1.0, "exponent": 1.0},
    {"alpha": 2.0, "proposal_temperature": 0.3, "uniform": 0.1},
]


@pytest.mark.parametrize(
    ("vocabulary", "seed", "horizon", "tries"),
    [(2, 0, 3, 2), (2, 1, 3, 3), (3, 0, 2, 2), (3, 1, 2, 3)],
)
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_a_step_leaves_its_target_invariant_and_converges_to_it(
    vocabulary: int, seed: int, horizon: int, tries: int, settings: dict[str, Any]
) -> None:
    model = TabularModel(vocabulary=vocabulary, seed=seed)
    sampler = EntropyGated(horizon, blocks=1, tries=tries, **settings)
    states, matrix = transition(model, sampler, horizon)
    target = np.array(list(power_law(model, sampler.alpha, horizon).values()))
    assert matrix.sum(axis=1) == pytest.approx(np.ones(len(states)), abs=1e-12)
    assert np.abs(target @ matrix - target).max() < 1e-12
    flow = target[:, None] * matrix
    assert np.abs(flow - flow.T).max() < 1e-12
    last = np.linalg.matrix_power(matrix, 2**16)
    assert np.abs(last - target).max() < 1e-9


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_with_one_try_its_step_is_that_of_entropy_cut(settings: dict[str, Any]) -> None:
    model = TabularModel(seed=2)
    ours, theirs = (
        EntropyGated(3, blocks=1, tries=1, **settings),
        EntropyCut(3, blocks=1, **settings),
    )
    assert transition(model, ours, 3)[1] == pytest.approx(
        transition(model, theirs, 3)[1], abs=1e-12
    )


def test_a_step_whose_tries_cannot_lead_back_stays() -> None:
    """Restarts at positions so unlikely in every try that their probability is 0.0."""
    sampler = EntropyGated(3, blocks=1, tries=2, exponent=4000.0)
    model = TabularModel(seed=0)
    states, matrix = transition(model, sampler, 3)
    target = np.array(list(power_law(model, 4.0, 3).values()))
    assert matrix.sum(axis=1) == pytest.approx(np.ones(len(states)), abs=1e-12)
    assert np.abs(target @ matrix - target).max() < 1e-12


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 1.0])
def test_the_gate_is_decided_once_from_the_draft(share: float, steps: int) -> None:
    """The law of a block is that of its drafts, moved on by all of its steps, or by none."""
    model = TabularModel(vocabulary=2, seed=1)
    states = list(responses(model, 3))
    held = {x: state(model, x, 0.25) for x in states}
    means = {x: math.fsum(r.entropy) / len(x) for x, r in held.items()}
    among = sorted(means.values())
    gate = 0.0 if share == 0 else math.inf if share == 1 else among[int(share * len(among))]
    sampler = EntropyGated(3, blocks=1, steps=steps, tries=2, gate=min(gate, 100.0))
    moved = np.linalg.matrix_power(transition(model, sampler, 3)[1], steps)
    expected = np.zeros(len(states))
    for i, x in enumerate(states):
        draft = math.exp(sum(held[x].logq))
        expected += draft * (np.eye(len(states))[i] if means[x] < gate else moved[i])
    refined = [x for x in states if means[x] >= gate]
    assert (len(refined) == len(states), len(refined) == 0) == (share == 0, share == 1)
    law = chain_law(sampler, model)
    assert [law.get(x, 0.0) for x in states] == pytest.approx(expected, abs=1e-12)


def test_each_block_has_a_gate_of_its_own_and_later_ones_refine_what_was_not() -> None:
    """One of two blocks is sure: the first or the second."""
    sure, unsure = [0.01, 0.99, 0], [0.1, 0.45, 0.45]
    late = TabularModel(table=lambda x: sure if len(x) < 4 else unsure)
    early = TabularModel(table=lambda x: unsure if len(x) < 4 else sure)
    sampler = EntropyGated(8, blocks=2, steps=3, tries=2, gate=0.2, stop_at_eos=False)

    def refined(model: TabularModel, gate: float) -> set[int]:
        chains = completed(replace(sampler, gate=gate), model, context=ENDLESS).values()
        return {step.block for each in chains for step in each.outcome.steps}

    assert (refined(late, 0.2), refined(early, 0.2)) == ({1}, {0})
    assert refined(late, 0.0) == refined(early, 0.0) == {0, 1}


def test_a_finished_response_is_not_refined_again_behind_a_gate() -> None:
    sure = TabularModel(table=lambda x: [0.999, 0.001])
    sampler = EntropyGated(6, blocks=3, steps=2, tries=2, gate=0.05, stop_at_eos=False)
    assert all(not each.outcome.steps for each in completed(sampler, sure).values())


def test_outcomes_do_not_depend_on_the_width() -> None:
    sampler = EntropyGated(12, blocks=3, steps=3, tries=3, gate=1.0)
    require_same_in_any_width(sampler, LETTERS)


def test_a_chain_goes_on_from_every_saved_state() -> None:
    whole, again = resumed(EntropyGated(12, blocks=4, steps=3, tries=2), LETTERS, ENDLESS)
    assert again == [whole] * 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gate": -1.0}, "sampler.gate must be from 0 to 100 nats per token, got -1.0"),
        ({"gate": math.inf}, "sampler.gate must be from 0 to 100"),
        ({"exponent": 0.0}, "sampler.exponent must be > 0"),
        ({"tries": 0}, "sampler.tries must be an integer >= 1, got 0"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        EntropyGated(48, **settings)
