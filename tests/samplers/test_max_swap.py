"""Max swap climbs, and is what power sampling tends to as alpha grows.

Run: pytest tests/samplers/test_max_swap.py
"""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from toy_chains import ENDLESS, completed, resumed, transition

from powerbench.chains.law import loglikelihood
from powerbench.errors import UserError
from powerbench.models import TabularModel
from powerbench.samplers.max_swap import MaxSwap
from powerbench.samplers.power import Power

HORIZON = 3
MODELS = [TabularModel(seed=seed) for seed in range(3)]
LETTERS = TabularModel(vocabulary=5)


@pytest.mark.parametrize("model", MODELS, ids=lambda m: f"model{m.seed}")
def test_the_likelihood_never_falls_and_ends_at_the_top(model: TabularModel) -> None:
    states, matrix = transition(model, MaxSwap(HORIZON, blocks=1), HORIZON)
    assert matrix.sum(axis=1) == pytest.approx(np.ones(len(states)), abs=1e-12)
    logp = np.array([loglikelihood(model, x) for x in states])
    moves = (matrix > 0) & ~np.eye(len(states), dtype=bool)
    assert (logp[None, :] - logp[:, None])[moves].min() > 0
    last = np.linalg.matrix_power(matrix, 2**16)
    assert last[:, logp.argmax()] == pytest.approx(np.ones(len(states)), abs=1e-9)


@pytest.mark.parametrize("model", MODELS, ids=lambda m: f"model{m.seed}")
@pytest.mark.parametrize("tau", [0.25, 1.0])
def test_it_is_the_limit_of_power_as_alpha_grows(model: TabularModel, tau: float) -> None:
    states, limit = transition(model, MaxSwap(HORIZON, blocks=1, proposal_temperature=tau), HORIZON)
    logp = np.sort([loglikelihood(model, x) for x in states])
    assert np.diff(logp).min() > 1e-4  # no ties

    def distance(alpha: float) -> float:
        """In total variation, of the rows that are farthest apart."""
        power = Power(HORIZON, alpha, blocks=1, proposal_temperature=tau)
        return 0.5 * np.abs(transition(model, power, HORIZON)[1] - limit).sum(axis=1).max()

    shrinking = [distance(alpha) for alpha in (4.0, 16.0, 64.0, 256.0)]
    assert shrinking[0] > 0.05
    assert all(b < a or a < 1e-9 for a, b in pairwise(shrinking))
    assert distance(1e6) < 1e-9


@pytest.mark.parametrize("settings", [{}, {"top_k": 3}, {"proposal_temperature": 1.0}])
def test_early_rejection_changes_no_chain_and_saves_tokens(settings: dict[str, Any]) -> None:
    early = MaxSwap(12, blocks=3, steps=4, **settings)
    ours = completed(early, LETTERS, count=40)
    theirs = completed(replace(early, early_rejection=False), LETTERS, count=40)
    assert {k: (e.outcome.tokens, e.outcome.logp) for k, e in ours.items()} == {
        k: (e.outcome.tokens, e.outcome.logp) for k, e in theirs.items()
    }
    assert sum(e.cost.decoded for e in ours.values()) < sum(e.cost.decoded for e in theirs.values())


def test_early_rejection_changes_no_transition() -> None:
    model, early = MODELS[0], MaxSwap(HORIZON, blocks=1)
    late = replace(early, early_rejection=False)
    assert np.array_equal(
        transition(model, early, HORIZON)[1] > 0, transition(model, late, HORIZON)[1] > 0
    )
    assert transition(model, early, HORIZON)[1] == pytest.approx(
        transition(model, late, HORIZON)[1], abs=1e-12
    )


def test_steps_say_what_the_likelihood_did() -> None:
    for each in completed(MaxSwap(12, blocks=3, steps=6), LETTERS, count=10).values():
        for step in each.outcome.steps:
            if step.proposed is not None:
                assert step.accepted == (step.proposed > step.current)


def test_outcomes_do_not_depend_on_width_or_speculation() -> None:
    sampler = MaxSwap(12, blocks=3, steps=4)
    plain = {k: e.outcome for k, e in completed(sampler, LETTERS, 3).items()}
    for width, speculate in ((1, 0), (50, 0), (50, 8)):
        ran = completed(sampler, LETTERS, width, speculate=speculate)
        assert {k: e.outcome for k, e in ran.items()} == plain


def test_a_chain_goes_on_from_every_saved_state() -> None:
    whole, again = resumed(MaxSwap(12, blocks=4, steps=3), LETTERS, ENDLESS)
    assert again == [whole] * 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"alpha": 0.0}, "sampler.alpha must be > 0"),
        ({"blocks": 5}, "sampler.blocks=5 must divide"),
        ({"steps": -1}, "sampler.steps must be an integer >= 0"),
        ({"proposal_temperature": -1.0}, "sampler.proposal_temperature must be > 0"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        MaxSwap(48, **settings)
