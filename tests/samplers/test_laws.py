"""The exact laws of the paper's samplers and of the official code's, by enumeration on toy models.

Run: pytest tests/samplers/test_laws.py
"""

import math
from collections.abc import Generator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from toy_chains import ENDLESS, chain_law, completed, transition

from powerbench.chains.law import (
    context_of,
    law,
    loglikelihood,
    power_law,
    responses,
    total_variation,
)
from powerbench.models import TabularModel
from powerbench.samplers.base import Base
from powerbench.samplers.greedy import Greedy
from powerbench.samplers.low_temp import LowTemp
from powerbench.samplers.power import Power
from powerbench.samplers.power_official import PowerOfficial
from powerbench.types import Extend, Request, Tokens, TopLogprobs

HORIZON = 3
MODELS = [TabularModel(seed=seed) for seed in range(3)]
CLEAN = {  # power_official without a single departure
    "within_response": False,
    "cut_current_terms": False,
    "extend_by_block": False,
    "top_k": None,
    "shared_positions": False,
    "alpha_from_temperature": False,
    "eos_only": False,
    "eos_in_prompt": False,
}


@pytest.mark.parametrize("model", MODELS, ids=lambda m: f"model{m.seed}")
@pytest.mark.parametrize("early", [True, False], ids=["early", "late"])
@pytest.mark.parametrize(
    ("alpha", "tau"), [(4.0, None), (4.0, 0.5), (2.0, None), (2.0, 1.0), (1.67, None), (2.0, 0.3)]
)
def test_power_leaves_its_target_invariant_and_converges_to_it(
    model: TabularModel, alpha: float, tau: float | None, early: bool
) -> None:
    sampler = Power(HORIZON, alpha, blocks=1, proposal_temperature=tau, early_rejection=early)
    states, matrix = transition(model, sampler, HORIZON)
    target = np.array(list(power_law(model, alpha, HORIZON).values()))
    assert matrix.sum(axis=1) == pytest.approx(np.ones(len(states)), abs=1e-12)
    assert np.abs(target @ matrix - target).max() < 1e-12
    start = np.eye(len(states))[0]
    assert np.abs(start @ np.linalg.matrix_power(matrix, 2**16) - target).max() < 1e-9


@pytest.mark.parametrize("model", MODELS, ids=lambda m: f"model{m.seed}")
def test_power_satisfies_detailed_balance(model: TabularModel) -> None:
    _, matrix = transition(model, Power(HORIZON, 4.0, blocks=1), HORIZON)
    target = np.array(list(power_law(model, 4.0, HORIZON).values()))
    flow = target[:, None] * matrix
    assert np.abs(flow - flow.T).max() < 1e-12


@pytest.mark.parametrize("alpha", [2.0, 4.0])
def test_early_rejection_changes_no_chain(alpha: float) -> None:
    model = MODELS[0]
    early = Power(3, alpha, blocks=3, steps=1)
    assert total_variation(
        chain_law(early, model), chain_law(replace(early, early_rejection=False), model)
    ) == pytest.approx(0, abs=1e-12)


def composed_law(sampler: Power, model: TabularModel) -> dict[Tokens, float]:
    """Algorithm 1 rebuilt from the kernel's matrices: per block, extend, then `steps` transitions."""
    block = sampler.max_tokens // sampler.blocks
    mass: dict[Tokens, float] = {(): 1.0}
    done: dict[Tokens, float] = {}
    for horizon in range(block, sampler.max_tokens + 1, block):
        for _ in range(block):
            mass = extended_by_a_token(mass, model, sampler.tau)
        states, matrix = transition(model, sampler, horizon)
        start = np.array([mass.get(x, 0.0) for x in states])
        mass = dict(zip(states, start @ np.linalg.matrix_power(matrix, sampler.steps), strict=True))
        for x in states:
            if horizon == sampler.max_tokens or (sampler.stop_at_eos and x[-1] == 0):
                done[x] = done.get(x, 0.0) + mass.pop(x)
    return done


def extended_by_a_token(
    mass: dict[Tokens, float], model: TabularModel, tau: float
) -> dict[Tokens, float]:
    longer: dict[Tokens, float] = {}
    for x, m in mass.items():
        if x and x[-1] == 0:
            longer[x] = longer.get(x, 0.0) + m
            continue
        q = model.p(x) ** (1 / tau)
        for token, chance in enumerate(q / q.sum()):
            longer[(*x, token)] = longer.get((*x, token), 0.0) + m * chance
    return longer


@pytest.mark.parametrize("stop_at_eos", [True, False])
def test_the_chain_is_algorithm_1(stop_at_eos: bool) -> None:
    model = MODELS[1]
    sampler = Power(3, 4.0, blocks=3, steps=1, stop_at_eos=stop_at_eos)
    assert total_variation(chain_law(sampler, model), composed_law(sampler, model)) < 1e-12


def test_each_step_tells_its_block() -> None:
    sampler = Power(6, blocks=3, steps=2)
    for done in completed(sampler, TabularModel(vocabulary=5), context=ENDLESS).values():
        assert [step.block for step in done.outcome.steps] == [0, 0, 1, 1, 2, 2]


def test_the_whole_chain_tends_to_the_power_distribution() -> None:
    """Only without the early exit at EOS: with it, what ends early keeps a shorter horizon's weight."""
    model = MODELS[0]
    target = power_law(model, 4.0, 4)

    def distance(steps: int, stop_at_eos: bool) -> float:
        sampler = Power(4, 4.0, blocks=2, steps=steps, stop_at_eos=stop_at_eos)
        return total_variation(composed_law(sampler, model), target)

    assert distance(10, stop_at_eos=False) < 0.6 * distance(0, stop_at_eos=False)
    assert distance(2000, stop_at_eos=False) < 1e-9
    assert distance(2000, stop_at_eos=True) > 0.001


@pytest.mark.parametrize(("model", "bias"), [*zip(MODELS, (0.776, 0.788, 0.064), strict=True)])
def test_the_official_kernel_is_biased_by_a_known_amount(model: TabularModel, bias: float) -> None:
    """One step away from p^alpha it is `bias` off in total variation; in the long run it only shortens."""
    states = list(
        responses(model, HORIZON)
    )  # and those cut short without EOS, which only it reaches
    states += [x for h in range(1, HORIZON) for x in responses(model, h) if x[-1] != 0]
    official = PowerOfficial(HORIZON, 4.0, blocks=1)
    states, matrix = transition(model, official, HORIZON, dict.fromkeys(states))
    law_of = power_law(model, 4.0, HORIZON)
    target = np.array([law_of.get(x, 0.0) for x in states])
    assert 0.5 * np.abs(target @ matrix - target).sum() == pytest.approx(bias, abs=1e-3)
    lengths = np.array([len(x) for x in states])
    assert target @ np.linalg.matrix_power(matrix, 2**16) @ lengths == pytest.approx(1)


@pytest.mark.faults  # tests/samplers/test_official.py holds it on one model with each change
@pytest.mark.parametrize("model", MODELS[:2], ids=lambda m: f"model{m.seed}")
def test_the_official_chain_without_its_departures_is_power(model: TabularModel) -> None:
    ours = Power(3, 4.0, blocks=3, steps=1)
    theirs = PowerOfficial(3, 4.0, blocks=3, steps=1, **CLEAN)
    assert total_variation(chain_law(ours, model), chain_law(theirs, model)) < 1e-12


@pytest.mark.parametrize("model", MODELS, ids=lambda m: f"model{m.seed}")
def test_base_and_low_temperature_have_their_laws(model: TabularModel) -> None:
    base = chain_law(Base(HORIZON), model)
    assert total_variation(base, power_law(model, 1.0, HORIZON)) < 1e-12
    low = chain_law(LowTemp(HORIZON, alpha=4.0), model)
    for x, probability in low.items():
        conditionals = [
            model.p(x[:i])[t] ** 4 / (model.p(x[:i]) ** 4).sum() for i, t in enumerate(x)
        ]
        assert probability == pytest.approx(math.prod(conditionals), rel=1e-12)
    assert total_variation(low, power_law(model, 4.0, HORIZON)) > 0.01


def test_greedy_takes_the_likeliest_token_each_time() -> None:
    model = MODELS[2]
    ((x, probability),) = chain_law(Greedy(HORIZON), model).items()
    assert probability == 1
    assert all(token == model.p(x[:i]).argmax() for i, token in enumerate(x))


def test_base_with_top_k_renormalises_on_its_support() -> None:
    model = MODELS[0]
    for token, probability in chain_law(Base(1, top_k=2), model).items():
        kept = np.sort(model.p(()))[-2:]
        assert probability == pytest.approx(model.p(())[token[0]] / kept.sum())


PAPER_EXAMPLE = TabularModel(
    table=lambda x: [[0, 4 / 9, 5 / 9], [0, 0, 1], [0, 0.5, 0.5]][x[0] if x else 0]
)
"""p(aa) = 0, p(ab) = .40, p(ba) = p(bb) = .25, scaled to sum to one."""


def test_the_papers_two_token_example() -> None:
    """Low temperature prefers `b` first, for its two continuations; the power distribution `a`."""

    def starts_with_a(distribution: dict[Tokens, float]) -> float:
        return sum(m for x, m in distribution.items() if x[0] == 1)

    model = PAPER_EXAMPLE
    low = chain_law(LowTemp(2, alpha=4.0), model)
    assert starts_with_a(low) < 0.5 < starts_with_a(power_law(model, 4.0, 2))
    power = chain_law(Power(2, 4.0, blocks=1, steps=3), model)
    assert starts_with_a(power) > 0.5


def test_eos_in_the_prompt_empties_the_official_response() -> None:
    model = MODELS[0]
    context = replace(context_of(model), prompt=(0, 1))

    def program(sampler: PowerOfficial) -> Generator[Request, Any, Tokens]:
        outcome = yield from sampler.chain(context)
        return outcome.tokens

    official = PowerOfficial(2, 4.0, blocks=1, steps=1)
    assert law(lambda: program(official), model).keys() == {()}
    assert () not in law(lambda: program(replace(official, eos_in_prompt=False)), model)


def test_loglikelihood_is_that_of_the_table() -> None:
    assert loglikelihood(PAPER_EXAMPLE, (1, 2)) == pytest.approx(math.log(4 / 9))


@pytest.mark.parametrize("top", [0, 2, 9])
def test_an_enumerated_draw_reports_the_tables_likeliest_tokens(top: int) -> None:
    model = TabularModel(vocabulary=4, seed=1)

    def program() -> Generator[Request, Any, tuple[Tokens, tuple[TopLogprobs, ...]]]:
        draw = yield Extend(("draw",), (), keep=0, until=3, stop_tokens=(0,), top_logprobs=top)
        return draw.tokens, draw.top_logprobs

    for tokens, reported in law(program, model):
        assert len(reported) == (len(tokens) if top else 0)
        for i, ranked in enumerate(reported):
            p = model.p(tokens[:i])
            best = sorted(range(4), key=lambda token: -p[token])[:top]
            assert ranked.tokens == tuple(best)
            assert ranked.logp == pytest.approx(np.log(p[best]))
