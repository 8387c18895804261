"""Power-SMC: unbiased for any number of particles, p^alpha in the limit, and no request too many.

Run: pytest tests/samplers/test_power_smc.py
"""

import math
from collections.abc import Generator
from dataclasses import replace
from typing import Any

import pytest
from toy_chains import ENDLESS, chain_law, completed, resumed

from powerbench.chains.law import (
    context_of,
    law,
    loglikelihood,
    power_law,
    responses,
    total_variation,
)
from powerbench.chains.runner import run_one
from powerbench.engines.toy import ToyEngine
from powerbench.errors import UserError
from powerbench.models import TabularModel
from powerbench.rng import Stream
from powerbench.samplers.low_temp import LowTemp
from powerbench.samplers.power_smc import PowerSMC
from powerbench.types import Request, Together

MODELS = [TabularModel(vocabulary=2, seed=seed) for seed in (0, 4)]
"""EOS and one other token: responses differ in length alone."""
TOY = TabularModel(vocabulary=5)
SMC = PowerSMC(12, alpha=2.0, particles=4, threshold=0.95, interval=2)


def mass(model: TabularModel, alpha: float, horizon: int) -> float:
    """sum_x p(x)^alpha over all responses."""
    every = responses(model, horizon)
    return math.fsum(math.exp(alpha * loglikelihood(model, x)) for x in every)


def estimates(sampler: PowerSMC, model: TabularModel) -> dict[float, float]:
    """The law of the estimate of that mass."""

    def program() -> Generator[Request, Any, float]:
        end = yield from sampler.population(context_of(model))
        return math.exp(end.log_estimate)

    return law(program, model)


@pytest.mark.parametrize("threshold", [0.0, 0.8, 1.0], ids=["never", "adaptive", "always"])
@pytest.mark.parametrize(
    ("particles", "horizon", "vocabulary", "interval", "tau"),
    [
        (1, 3, 3, 1, None),
        (2, 3, 3, 1, None),
        (2, 2, 3, 1, 0.9),
        (2, 4, 2, 3, None),
        (3, 3, 2, 1, 0.4),
        (3, 4, 2, 1, None),
        (4, 3, 2, 1, None),
    ],
)
def test_the_estimate_of_the_mass_is_unbiased(
    particles: int,
    horizon: int,
    vocabulary: int,
    interval: int,
    tau: float | None,
    threshold: float,
) -> None:
    model = TabularModel(vocabulary=vocabulary, seed=2)
    sampler = PowerSMC(horizon, 2.5, particles, tau, threshold, interval)
    found = estimates(sampler, model)
    assert math.fsum(found.values()) == pytest.approx(1, abs=1e-12)
    mean = math.fsum(z * chance for z, chance in found.items())
    assert mean == pytest.approx(mass(model, 2.5, horizon), abs=1e-12)


@pytest.mark.parametrize("model", MODELS, ids=lambda m: f"model{m.seed}")
@pytest.mark.parametrize("threshold", [0.0, 0.8, 1.0], ids=["never", "adaptive", "always"])
def test_the_law_tends_to_the_power_distribution(model: TabularModel, threshold: float) -> None:
    target = power_law(model, 4.0, 3)
    laws = [
        chain_law(PowerSMC(3, 4.0, n, None, threshold, interval=1), model) for n in (1, 2, 3, 4)
    ]
    far = [total_variation(each, target) for each in laws]
    assert far == sorted(far, reverse=True)
    assert far[3] < 0.55 * far[0]
    assert total_variation(laws[0], chain_law(LowTemp(3, alpha=4.0), model)) < 1e-12


@pytest.mark.parametrize("seed", range(5))
def test_only_particles_that_are_not_finished_are_extended(seed: int) -> None:
    """A request for each, once a check, in the order of their slots."""
    asked: list[Together] = []

    def watched(state: Any = None) -> Generator[Request, Any, Any]:
        chain, answer = SMC.chain(context_of(TOY)), None
        while True:
            try:
                request = chain.send(answer)
            except StopIteration as end:
                return end.value
            if isinstance(request, Together):
                asked.append(request)
            answer = yield request

    run_one(watched, (), Stream(0, "task", str(seed), 0), ToyEngine(TOY))
    assert 1 <= len(asked) <= 6
    for check, together in enumerate(asked):
        slots = [request.key[-1] for request in together.requests]
        assert slots == sorted(set(slots)) and len(slots) <= SMC.particles
        for request in together.requests:
            assert request.keep == len(request.response) == check * SMC.interval
            assert 0 not in request.response
            assert request.until == request.keep + SMC.interval


@pytest.mark.parametrize("context", [None, ENDLESS])
def test_outcomes_do_not_depend_on_the_width(context: Any) -> None:
    def outcomes(width: int) -> dict[Any, Any]:
        done = completed(SMC, TOY, width, context=context)
        return {key: (each.outcome, each.cost.decoded) for key, each in done.items()}

    assert outcomes(1) == outcomes(3) == outcomes(50)


def test_a_chain_goes_on_from_a_saved_state_as_if_never_stopped() -> None:
    whole, again = resumed(SMC, TOY)
    assert again == [whole] * 5
    assert len(whole.rounds) > 2


def test_states_are_saved_a_limited_number_of_times() -> None:
    _, again = resumed(PowerSMC(330, alpha=2.0, particles=2, interval=2), TOY)
    assert len(again) == 16


def test_rounds_tell_from_where_their_weights_count_and_who_went_on() -> None:
    """The last one draws the response; those before resample, each from where the last one did."""
    for done in completed(SMC, TOY, context=ENDLESS).values():
        *resamplings, last = done.outcome.rounds
        starts = [0, *((each.block + 1) * SMC.interval for each in resamplings)]
        assert [each.start for each in done.outcome.rounds] == starts
        assert all(len(each.kept) == len(each.logp) == SMC.particles for each in resamplings)
        (chosen,) = last.kept
        assert last.logp[chosen] == pytest.approx(done.outcome.logp, abs=1e-3)
        assert math.fsum(last.weights) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ({"particles": 0}, "particles must be an integer >= 1, got 0"),
        ({"threshold": 1.5}, r"threshold must be a share of the particles, in \[0, 1\], got 1.5"),
        ({"threshold": -0.1}, "threshold must be"),
        ({"interval": 0}, "interval must be an integer >= 1, got 0"),
        ({"alpha": 0.0}, "alpha"),
        ({"proposal_temperature": 0.0}, "proposal_temperature"),
    ],
)
def test_impossible_settings_are_refused(setting: dict[str, Any], named: str) -> None:
    with pytest.raises(UserError, match=named):
        replace(SMC, **setting)
