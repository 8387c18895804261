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
from powerbench.samplers.particles import Particles
from powerbench.samplers.power_smc import PowerSMC
from powerbench.samplers.truncated import nucleus
from powerbench.types import Context, Request, Together, Tokens, TopLogprobs

MODELS = [TabularModel(vocabulary=2, seed=seed) for seed in (0, 4)]
"""EOS and one other token: responses differ in length alone."""
TOY = TabularModel(vocabulary=5)
SMC = PowerSMC(12, alpha=2.0, particles=4, threshold=0.95, interval=2, ramp=0)
SCHEMES = ("systematic", "chopthin")


def mass(model: TabularModel, alpha: float, horizon: int) -> float:
    """sum_x p(x)^alpha over all responses."""
    every = responses(model, horizon)
    return math.fsum(math.exp(alpha * loglikelihood(model, x)) for x in every)


def mean_estimate(sampler: Particles, model: TabularModel, context: Context | None = None) -> float:
    """The expected estimate of that mass, by the law of the estimate."""

    def program() -> Generator[Request, Any, float]:
        end = yield from sampler.population(context or context_of(model))
        return math.exp(end.log_estimate)

    found = law(program, model)
    assert math.fsum(found.values()) == pytest.approx(1, abs=1e-12)
    return math.fsum(z * chance for z, chance in found.items())


@pytest.mark.parametrize("resampling", SCHEMES)
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
    resampling: str,
) -> None:
    model = TabularModel(vocabulary=vocabulary, seed=2)
    for ramp in (0, 2, 3, 100):
        sampler = PowerSMC(horizon, 2.5, particles, tau, threshold, interval, ramp, resampling)
        mean = mean_estimate(sampler, model)
        assert mean == pytest.approx(mass(model, 2.5, horizon), abs=1e-12)


@pytest.mark.parametrize("ramp", [1, 2, 3, 50])
def test_one_particle_has_the_law_of_the_proposal_whose_temperature_falls(ramp: int) -> None:
    model = TabularModel(vocabulary=3, seed=1)
    expected = {}
    for x in responses(model, 4):
        chance = 1.0
        for t, token in enumerate(x):
            q = model.p(x[:t]) ** (1 + 3.0 * min(1, (t + 1) / ramp))
            chance *= q[token] / q.sum()
        expected[x] = chance
    found = chain_law(PowerSMC(4, 4.0, 1, interval=2, ramp=ramp), model)
    assert total_variation(found, expected) < 1e-12
    at_once = chain_law(PowerSMC(4, 4.0, 1, 0.25, interval=2, ramp=ramp), model)
    assert total_variation(at_once, chain_law(LowTemp(4, alpha=4.0), model)) < 1e-12


GOLDEN = [
    (
        SMC,
        [
            (2, 3, 2, 4, 4, 4, 3, 4, 3, 1, 0, 2),
            (2, 0, 3, 4, 4, 0, 1, 2, 4, 1, 0, 2),
            (2, 3, 4, 0, 2, 2, 0, 1, 0, 1, 4, 1),
        ],
    ),
    (
        PowerSMC(12, alpha=2.0, particles=3, threshold=0.7, interval=1, ramp=0),
        [
            (2, 3, 2, 4, 4, 3, 3, 2, 1, 1, 3, 4),
            (2, 3, 4, 0, 3, 1, 0, 1, 3, 3, 3, 4),
            (2, 3, 2, 4, 1, 3, 1, 2, 4, 1, 3, 1),
        ],
    ),
    (
        PowerSMC(12, 4.0, 4, 0.5, 0.9, 3, ramp=0),
        [
            (2, 3, 2, 4, 4, 4, 3, 4, 1, 1, 1, 4),
            (2, 3, 4, 0, 3, 1, 0, 0, 0, 4, 2, 4),
            (2, 1, 0, 0, 2, 2, 1, 1, 4, 0, 0, 0),
        ],
    ),
]
"""Made before there was a ramp."""


@pytest.mark.parametrize(("sampler", "tokens"), GOLDEN)
def test_without_a_ramp_it_is_what_it_was_token_for_token(
    sampler: PowerSMC, tokens: list[Any]
) -> None:
    done = completed(sampler, TOY, count=3, context=ENDLESS)
    assert [each.outcome.tokens for each in done.values()] == tokens


@pytest.mark.parametrize("ramp", [0, 2, 7])
def test_it_looks_at_the_weights_at_multiples_of_the_interval(ramp: int) -> None:
    sampler = replace(SMC, interval=3, ramp=ramp, threshold=1.0, max_tokens=11)
    for done in completed(sampler, TOY, context=ENDLESS).values():
        assert {each.start for each in done.outcome.rounds} <= {0, 3, 6, 9}


# -- what the official code adds -------------------------------------------------------------------


def reached(
    model: TabularModel, horizon: int, tau: float, top_p: float, min_tokens: int
) -> dict[Tokens, float]:
    """q of every response within reach of a truncated proposal, written down a second time."""
    found: dict[Tokens, float] = {}
    open_prefixes: list[tuple[Tokens, float]] = [((), 1.0)]
    while open_prefixes:
        prefix, chance = open_prefixes.pop()
        q = model.p(prefix) ** (1 / tau)
        if len(prefix) + 1 <= min_tokens:
            q[0] = 0.0
        order = (-q).argsort()
        before = q[order].cumsum() - q[order]
        q[order[before >= top_p * q.sum() - 1e-12]] = 0.0
        for token in q.nonzero()[0].tolist():
            x = (*prefix, token)
            share = chance * q[token] / q.sum()
            if token == 0 or len(x) == horizon:
                found[x] = share
            else:
                open_prefixes.append((x, share))
    return found


@pytest.mark.parametrize(("top_p", "min_tokens"), [(0.6, 0), (0.9, 2), (1.0, 0), (1.0, 1)])
def test_a_truncated_proposal_is_weighed_by_itself(top_p: float, min_tokens: int) -> None:
    """One particle has the proposal's law; the mass that is estimated is that of what it reaches."""
    model = TabularModel(vocabulary=4, seed=3)
    within = reached(model, 3, 0.5, top_p, min_tokens)
    assert (len(within) < len(list(responses(model, 3)))) == (top_p < 1 or min_tokens > 0)
    settings = {"top_p": None if top_p == 1 else top_p, "min_tokens": min_tokens, "ramp": 0}
    one = PowerSMC(3, 2.0, 1, **settings)
    assert total_variation(chain_law(one, model), within) < 1e-12
    expected = math.fsum(math.exp(2 * loglikelihood(model, x)) for x in within)
    for ramp in (0, 2):
        sampler = replace(one, particles=2, proposal_temperature=0.5, ramp=ramp)
        assert mean_estimate(sampler, model) == pytest.approx(expected, abs=1e-12)


def test_a_banned_token_is_drawn_if_there_is_no_other() -> None:
    """Of the three tokens that an engine reports, one has no probability."""
    likeliest = TopLogprobs((0, 1, 2), (math.log(0.7), math.log(0.3), -math.inf))
    assert nucleus(likeliest, 1.0, None, (0, 1)) == ([0, 1], pytest.approx((0.7, 0.3)))
    assert nucleus(likeliest, 1.0, 0.5, ()) == ([0], (1.0,))
    assert nucleus(likeliest, 1.0, 0.71, (5,))[0] == [0, 1]
    assert nucleus(likeliest, 0.5, None, (0,)) == ([1], (1.0,))


def answered_by(token: int) -> Any:
    return lambda tokens: str(tokens.index(token)) if token in tokens else None


@pytest.mark.parametrize("interval", [1, 3])
def test_a_particle_ends_with_its_first_answer(interval: int) -> None:
    """As if token 1 stopped a response, as token 0 does, whatever has been decoded past it."""
    model = TabularModel(vocabulary=3, seed=5)
    context = replace(context_of(model), answer=answered_by(1))
    within = [x for x in responses(model, 4) if 1 not in x[:-1]]
    cut = {x[: x.index(1) + 1] for x in responses(model, 4) if 1 in x}
    expected = math.fsum(math.exp(2 * loglikelihood(model, x)) for x in {*within, *cut})
    for ramp, particles in ((0, 2), (2, 1), (4, 2)):
        settings = {"interval": interval, "ramp": ramp, "stop_at_answer": True}
        sampler = PowerSMC(4, 2.0, particles, **settings)
        assert sampler.votes
        assert mean_estimate(sampler, model, context) == pytest.approx(expected, abs=1e-12)
        found = chain_law(sampler, model, context)
        assert set(found) == {*within, *cut}


@pytest.mark.parametrize("resampling", SCHEMES)
@pytest.mark.parametrize("model", MODELS, ids=lambda m: f"model{m.seed}")
@pytest.mark.parametrize("threshold", [0.0, 0.8, 1.0], ids=["never", "adaptive", "always"])
def test_the_law_tends_to_the_power_distribution(
    model: TabularModel, threshold: float, resampling: str
) -> None:
    target = power_law(model, 4.0, 3)
    laws = [
        chain_law(PowerSMC(3, 4.0, n, None, threshold, ramp=0, resampling=resampling), model)
        for n in (1, 2, 3, 4)
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
    _, again = resumed(PowerSMC(330, alpha=2.0, particles=2, interval=2, ramp=0), TOY)
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
        ({"ramp": -1}, "ramp must be an integer >= 0, got -1"),
        ({"min_tokens": -1}, "min_tokens must be an integer >= 0, got -1"),
        ({"top_p": 0.0}, r"top_p must be in \(0, 1\], or null for no truncation, got 0.0"),
        ({"resampling": "chopthn"}, r"unknown sampler.resampling 'chopthn' \(did you mean"),
        ({"alpha": 0.0}, "alpha"),
        ({"proposal_temperature": 0.0}, "proposal_temperature"),
    ],
)
def test_impossible_settings_are_refused(setting: dict[str, Any], named: str) -> None:
    with pytest.raises(UserError, match=named):
        replace(SMC, **setting)
