"""APPS: unbiased for any guide that is divided out, and Power-SMC without one.

Run: pytest tests/samplers/test_apps.py
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
from powerbench.errors import UserError
from powerbench.models import TabularModel
from powerbench.samplers.apps import APPS
from powerbench.samplers.low_temp import LowTemp
from powerbench.samplers.population import log_mean
from powerbench.samplers.power_smc import PowerSMC
from powerbench.types import Request

TWO = TabularModel(vocabulary=2, seed=4)
TOY = TabularModel(vocabulary=5)
SMALL = APPS(12, 2.0, particles=4, threshold=0.95, interval=3, rollouts=2, lookahead=4)


def mass(model: TabularModel, alpha: float, horizon: int) -> float:
    """sum_x p(x)^alpha over all responses."""
    return math.fsum(math.exp(alpha * loglikelihood(model, x)) for x in responses(model, horizon))


def mean_estimate(sampler: APPS, model: TabularModel) -> float:
    def program() -> Generator[Request, Any, float]:
        end = yield from sampler.population(context_of(model))
        return math.exp(end.log_estimate)

    return math.fsum(z * chance for z, chance in law(program, model).items())


@pytest.mark.parametrize("resampling", ["systematic", "chopthin"])
@pytest.mark.parametrize("threshold", [0.8, 1.0], ids=["adaptive", "always"])
@pytest.mark.parametrize(
    ("particles", "rollouts", "lookahead", "interval", "vocabulary", "horizon"),
    [
        (1, 2, 2, 1, 3, 3),
        (2, 1, 1, 1, 2, 3),
        (2, 1, 2, 1, 2, 3),
        (2, 2, 1, 2, 2, 3),
        (2, 1, 1, 2, 2, 4),
        (2, 1, 9, 1, 3, 2),
        (3, 1, 1, 2, 2, 3),
    ],
)
def test_the_estimate_of_the_mass_is_unbiased(
    particles: int,
    rollouts: int,
    lookahead: int,
    interval: int,
    vocabulary: int,
    horizon: int,
    threshold: float,
    resampling: str,
) -> None:
    model = TabularModel(vocabulary=vocabulary, seed=2)
    sampler = APPS(
        horizon,
        2.5,
        particles,
        threshold=threshold,
        interval=interval,
        rollouts=rollouts,
        lookahead=lookahead,
        resampling=resampling,
    )
    assert mean_estimate(sampler, model) == pytest.approx(mass(model, 2.5, horizon), abs=1e-12)


def test_a_guide_that_is_left_in_moves_the_target() -> None:
    sampler = APPS(3, 2.5, 2, threshold=1.0, interval=1, rollouts=1, lookahead=2)
    left_in = mean_estimate(replace(sampler, divide=False), TWO)
    assert abs(left_in / mass(TWO, 2.5, 3) - 1) > 0.1


@pytest.mark.parametrize("rollouts", [1, 2])
def test_rollouts_to_the_end_estimate_the_mass_after_the_first_block(rollouts: int) -> None:
    """The mean of w * zeta of the particles, before anything is resampled."""
    sampler = APPS(4, 2.5, 2, threshold=0.0, interval=2, rollouts=rollouts, lookahead=2)

    class First(APPS):
        def guide(self, now: Any, until: int, context: Any) -> Any:
            zeta = yield from super().guide(now, until, context)
            seen.append(
                math.exp(log_mean([w + v for w, v in zip(now.log_weights, zeta, strict=True)]))
            )
            return zeta

    seen: list[float] = []
    first = First(**vars(sampler))

    def program() -> Generator[Request, Any, float]:
        seen.clear()
        yield from first.population(context_of(TWO))
        return seen[0] if seen else math.nan

    model = TabularModel(vocabulary=2, table=lambda x: (0.0, 1.0) if len(x) < 2 else (0.3, 0.7))
    found = law(program, model)
    mean = math.fsum(z * chance for z, chance in found.items())
    assert mean == pytest.approx(mass(model, 2.5, 4), abs=1e-12)


def test_the_law_tends_to_the_power_distribution() -> None:
    target = power_law(TWO, 4.0, 2)
    sampler = APPS(2, 4.0, 1, threshold=1.0, interval=1, rollouts=1, lookahead=1)
    laws = [chain_law(replace(sampler, particles=n), TWO) for n in (1, 2, 3)]
    far = [total_variation(each, target) for each in laws]
    assert far == sorted(far, reverse=True)
    assert far[2] < 0.6 * far[0]
    assert total_variation(laws[0], chain_law(LowTemp(2, alpha=4.0), TWO)) < 1e-12


@pytest.mark.parametrize("resampling", ["systematic", "chopthin"])
@pytest.mark.parametrize("divide", [True, False])
def test_without_a_guide_it_is_power_smc_token_for_token(divide: bool, resampling: str) -> None:
    """At the block's interval and without a ramp."""
    settings = {"threshold": 0.95, "interval": 3, "ramp": 0, "resampling": resampling}
    plain = PowerSMC(12, 2.0, 4, **settings)
    guided = APPS(12, 2.0, 4, **settings, rollouts=0, divide=divide)
    for context in (None, ENDLESS):
        expected = completed(plain, TOY, context=context)
        for key, each in completed(guided, TOY, context=context).items():
            assert each.outcome == expected[key].outcome
            assert each.cost.decoded == expected[key].cost.decoded


def test_what_it_costs() -> None:
    """N responses, and N M rollouts of H tokens after each block but the last."""
    (done,) = completed(SMALL, TOY, count=1, context=ENDLESS).values()
    assert done.cost.decoded == 4 * 12 + 4 * 2 * (4 + 4 + 3)


def test_it_goes_on_from_every_saved_state() -> None:
    whole, again = resumed(SMALL, TOY)
    assert len(again) == 3
    assert all(each == whole for each in again)


@pytest.mark.parametrize(("name", "least"), [("rollouts", 0), ("lookahead", 1)])
def test_impossible_settings_are_refused(name: str, least: int) -> None:
    with pytest.raises(UserError, match=f"sampler.{name} must be an integer >= {least}, got -1"):
        APPS(16, **{name: -1})
