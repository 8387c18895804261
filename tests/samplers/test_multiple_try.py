"""Multiple-try Metropolis leaves p^alpha invariant for any number of tries, and is `power` with one.

Run: pytest tests/samplers/test_multiple_try.py
"""

from typing import Any

import numpy as np
import pytest
from toy_chains import ENDLESS, completed, require_same_in_any_width, resumed, transition

from powerbench.chains.law import power_law
from powerbench.errors import UserError
from powerbench.models import TabularModel
from powerbench.samplers.multiple_try import MultipleTry
from powerbench.samplers.power import Power

LETTERS = TabularModel(vocabulary=5)


@pytest.mark.parametrize(
    ("vocabulary", "seed", "horizon", "tries"),
    [(2, 0, 3, 2), (2, 1, 3, 3), (3, 0, 2, 2), (3, 1, 2, 3), (2, 2, 2, 4)],
)
@pytest.mark.parametrize(("alpha", "tau"), [(4.0, None), (2.0, 1.0), (2.0, 0.3)])
def test_it_leaves_its_target_invariant_and_converges_to_it(
    vocabulary: int, seed: int, horizon: int, tries: int, alpha: float, tau: float | None
) -> None:
    model = TabularModel(vocabulary=vocabulary, seed=seed)
    sampler = MultipleTry(horizon, alpha, blocks=1, tries=tries, proposal_temperature=tau)
    states, matrix = transition(model, sampler, horizon)
    target = np.array(list(power_law(model, alpha, horizon).values()))
    assert matrix.sum(axis=1) == pytest.approx(np.ones(len(states)), abs=1e-12)
    assert np.abs(target @ matrix - target).max() < 1e-12
    flow = target[:, None] * matrix
    assert np.abs(flow - flow.T).max() < 1e-12
    last = np.linalg.matrix_power(matrix, 2**16)
    assert np.abs(last - target).max() < 1e-9


@pytest.mark.parametrize(("alpha", "tau"), [(4.0, None), (2.0, 1.0)])
def test_with_one_try_it_is_power(alpha: float, tau: float | None) -> None:
    model = TabularModel(seed=2)
    ours = MultipleTry(3, alpha, blocks=1, tries=1, proposal_temperature=tau)
    theirs = Power(3, alpha, blocks=1, proposal_temperature=tau)
    assert transition(model, ours, 3)[1] == pytest.approx(
        transition(model, theirs, 3)[1], abs=1e-12
    )


def test_more_tries_mix_faster() -> None:
    model = TabularModel(vocabulary=2, seed=0)

    def second_eigenvalue(tries: int) -> float:
        matrix = transition(model, MultipleTry(3, blocks=1, tries=tries), 3)[1]
        return np.sort(np.abs(np.linalg.eigvals(matrix)))[-2]

    one, two, three = (second_eigenvalue(tries) for tries in (1, 2, 3))
    assert three < two < one


def test_weights_below_the_smallest_float_decide_all_the_same() -> None:
    """400 tokens of 1/2 each at alpha = 4, tau = 1 weigh e^-832: all weigh the same, so all are accepted."""
    even = TabularModel(table=lambda x: [0.5, 0.5])
    sampler = MultipleTry(400, blocks=1, steps=3, tries=3, proposal_temperature=1.0)
    (only,) = completed(sampler, even, count=1, context=ENDLESS).values()
    assert only.outcome.logp == pytest.approx(400 * np.log(0.5))
    assert [step.accepted for step in only.outcome.steps] == [True] * 3


def test_a_step_counts_the_tokens_of_all_tries() -> None:
    sampler = MultipleTry(12, blocks=3, steps=4, tries=3)
    for each in completed(sampler, LETTERS, context=ENDLESS).values():
        for step in each.outcome.steps:
            assert step.decoded == 3 * (4 * (step.block + 1) - step.restart)
        assert each.cost.decoded == 12 + sum(step.decoded for step in each.outcome.steps)


def test_outcomes_do_not_depend_on_the_width() -> None:
    sampler = MultipleTry(12, blocks=3, steps=3, tries=3)
    require_same_in_any_width(sampler, LETTERS)


def test_a_chain_goes_on_from_every_saved_state() -> None:
    whole, again = resumed(MultipleTry(12, blocks=4, steps=3, tries=2), LETTERS, ENDLESS)
    assert again == [whole] * 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tries": 0}, "sampler.tries must be an integer >= 1, got 0"),
        ({"tries": 2.5}, "sampler.tries must be an integer >= 1, got 2.5"),
        ({"blocks": 5}, "sampler.blocks=5 must divide"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        MultipleTry(48, **settings)
