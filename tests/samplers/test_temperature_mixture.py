"""Proposals at one of several temperatures leave p^alpha invariant: q is their mean, whichever was drawn.

Run: pytest tests/samplers/test_temperature_mixture.py
"""

from typing import Any

import numpy as np
import pytest
from toy_chains import ENDLESS, chain_law, require_same_in_any_width, resumed, transition

from powerbench.chains.law import power_law, total_variation
from powerbench.engines.toy import ToyEngine
from powerbench.errors import UserError
from powerbench.models import TabularModel
from powerbench.samplers.multiple_try import MultipleTry
from powerbench.samplers.temperature_mixture import TemperatureMixture
from powerbench.types import Draw, Extend

LETTERS = TabularModel(vocabulary=5)
THREE = (0.25, 0.5, 1.0)


def matrix_of(
    model: TabularModel, sampler: TemperatureMixture, horizon: int
) -> tuple[list[Any], np.ndarray]:
    return transition(model, sampler, horizon, exponents=[1 / tau for tau in sampler.temperatures])


@pytest.mark.parametrize(
    ("vocabulary", "seed", "horizon", "tries", "temperatures"),
    [
        (3, 0, 3, 1, THREE),
        (3, 1, 3, 1, (0.3, 2.0)),
        (2, 0, 3, 2, THREE),
        (2, 1, 2, 3, (0.3, 2.0)),
        (3, 1, 2, 2, (1.0, 0.25)),
    ],
)
@pytest.mark.parametrize("alpha", [2.0, 4.0])
def test_it_leaves_its_target_invariant_and_converges_to_it(
    vocabulary: int,
    seed: int,
    horizon: int,
    tries: int,
    temperatures: tuple[float, ...],
    alpha: float,
) -> None:
    model = TabularModel(vocabulary=vocabulary, seed=seed)
    sampler = TemperatureMixture(horizon, alpha, 1, tries=tries, temperatures=temperatures)
    states, matrix = matrix_of(model, sampler, horizon)
    target = np.array(list(power_law(model, alpha, horizon).values()))
    assert matrix.sum(axis=1) == pytest.approx(np.ones(len(states)), abs=1e-12)
    assert np.abs(target @ matrix - target).max() < 1e-12
    flow = target[:, None] * matrix
    assert np.abs(flow - flow.T).max() < 1e-12
    last = np.linalg.matrix_power(matrix, 2**16)
    assert np.abs(last - target).max() < 1e-9


@pytest.mark.parametrize("tries", [1, 2])
@pytest.mark.parametrize("tau", [0.25, 0.7])
def test_with_one_temperature_it_is_multiple_try(tau: float, tries: int) -> None:
    """Also named twice: the draw of a temperature is integrated out."""
    model = TabularModel(vocabulary=2, seed=2)
    plain = MultipleTry(3, blocks=1, tries=tries, proposal_temperature=tau)
    expected = transition(model, plain, 3)[1]
    for temperatures in ((tau,), (tau, tau)):
        ours = TemperatureMixture(3, blocks=1, tries=tries, temperatures=temperatures)
        assert matrix_of(model, ours, 3)[1] == pytest.approx(expected, abs=1e-12)


def test_a_chain_has_the_law_of_its_own_steps() -> None:
    """What draws and drafts bring is what steps need: two of them, from the draft's law at 1/alpha."""
    model = TabularModel(vocabulary=2, seed=0)
    sampler = TemperatureMixture(2, blocks=1, steps=2, tries=1)
    states, matrix = matrix_of(model, sampler, 2)
    draft = chain_law(TemperatureMixture(2, blocks=1, steps=0), model)
    after = np.array([draft[x] for x in states]) @ np.linalg.matrix_power(matrix, 2)
    assert total_variation(chain_law(sampler, model), dict(zip(states, after, strict=True))) < 1e-12


def test_each_candidate_has_one_temperature_for_its_whole_suffix() -> None:
    """And q is told at all of them."""
    chain = TemperatureMixture(12, blocks=3, steps=4, tries=3).chain(ENDLESS)
    request = chain.send(drawn(next(chain)))
    assert request.key == ("restart", 0, 0)
    request = chain.send(1)
    for i, chosen in enumerate((2, 0, 2)):
        assert request.key == ("temperature", 0, 0, i)
        assert request.probabilities == pytest.approx((1 / 3,) * 3)
        request = chain.send(chosen)
    assert [each.tau for each in request.requests] == [1.0, 0.25, 1.0]
    assert {each.exponents for each in request.requests} == {(4.0, 2.0, 1.0)}


def drawn(request: Extend) -> Draw:
    engine = ToyEngine(LETTERS)
    engine.submit(0, (), request, np.random.default_rng(0).random(12))
    while not (finished := engine.step()):
        pass
    return finished[0].draw


@pytest.mark.parametrize("top_k", [None, 3])
def test_outcomes_do_not_depend_on_the_width(top_k: int | None) -> None:
    sampler = TemperatureMixture(12, blocks=3, steps=3, tries=3, top_k=top_k)
    require_same_in_any_width(sampler, LETTERS)


def test_a_chain_goes_on_from_every_saved_state() -> None:
    whole, again = resumed(TemperatureMixture(12, blocks=4, steps=3, tries=2), LETTERS, ENDLESS)
    assert again == [whole] * 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperatures": ()}, "sampler.temperatures must name at least one"),
        ({"temperatures": (0.5, 0.0)}, "sampler.temperatures must be > 0"),
        ({"tries": 0}, "sampler.tries must be an integer >= 1, got 0"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        TemperatureMixture(48, **settings)
