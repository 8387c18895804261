"""Parallel tempering: every step leaves the product of the rungs' laws invariant; one rung alone is `power`.

Run: pytest tests/samplers/test_parallel_tempering.py
"""

import math
from collections.abc import Generator
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from toy_chains import ENDLESS, chain_law, completed, resumed, state

from powerbench.chains.law import context_of, law, power_law, responses, total_variation
from powerbench.chains.runner import run_one
from powerbench.engines.toy import ToyEngine, proposal
from powerbench.errors import UserError
from powerbench.models import TabularModel
from powerbench.rng import Stream
from powerbench.samplers.common import Response
from powerbench.samplers.parallel_tempering import ParallelTempering
from powerbench.samplers.power import Power
from powerbench.samplers.replicas import Replica
from powerbench.stats.replica_exchange import accepted
from powerbench.types import Chain, Extend, FinishReason, Request, Save, Together, Tokens

TOY = TabularModel(vocabulary=5)
Rungs = tuple[Tokens, ...]


def ladder(max_tokens: int, *alphas: float, **settings: Any) -> ParallelTempering:
    return ParallelTempering(max_tokens, alphas[-1], blocks=1, alphas=alphas, **settings)


def product_law(model: TabularModel, sampler: ParallelTempering) -> dict[Rungs, float]:
    """prod_k p(x_k)^alpha_k / Z_k over all states of the rungs."""
    laws = [power_law(model, alpha, sampler.max_tokens) for alpha in sampler.ladder]
    states = product(responses(model, sampler.max_tokens), repeat=len(laws))
    return {xs: math.prod(of[x] for of, x in zip(laws, xs, strict=True)) for xs in states}


def on_rung(model: TabularModel, sampler: ParallelTempering, x: Tokens, r: int) -> Response:
    """The response x as rung r holds it."""
    return state(model, x, sampler.moves[r].tau, [1 / move.tau for move in sampler.moves])


def transition(
    model: TabularModel, sampler: ParallelTempering, *parts: tuple[str, int]
) -> np.ndarray:
    """The exact matrix of parts of steps, one after another, over the states of `product_law`.

    parts: "move" or "exchange" of step n.
    """
    index = {xs: i for i, xs in enumerate(product_law(model, sampler))}
    matrix = np.zeros((len(index), len(index)))

    def after(xs: Rungs) -> Generator[Request, Any, Rungs]:
        replicas = [Replica(r, on_rung(model, sampler, x, r)) for r, x in enumerate(xs)]
        for part, n in parts:
            if part == "move":
                context = context_of(model)
                replicas, _ = yield from sampler.move(replicas, sampler.max_tokens, 0, n, context)
            else:
                replicas, _ = yield from sampler.exchange(replicas, 0, n)
        return tuple(each.x.tokens for each in replicas)

    for xs, i in index.items():
        for ys, chance in law(lambda xs=xs: after(xs), model).items():
            matrix[i, index[ys]] += chance
    return matrix


def target(model: TabularModel, sampler: ParallelTempering) -> np.ndarray:
    return np.array(list(product_law(model, sampler).values()))


BRANCHING = TabularModel(
    table=lambda x: [[0, 0.6, 0.4], [0.3, 0.7, 0], [0.5, 0, 0.5]][x[0] if x else 0]
)
"""Four responses of two tokens."""
CASES = {
    "two rungs": (TabularModel(vocabulary=2, seed=4), ladder(3, 1.0, 4.0)),
    "branching": (BRANCHING, ladder(2, 1.3, 2.5)),
    "warmer proposal": (BRANCHING, ladder(2, 1.0, 4.0, proposal_temperature=0.5)),
    "no early rejection": (BRANCHING, ladder(2, 0.5, 2.0, early_rejection=False)),
    "even and odd": (BRANCHING, ladder(2, 1.0, 4.0, schedule="even_odd")),
    "three rungs": (TabularModel(vocabulary=2, seed=4), ladder(2, 1.0, 2.0, 4.0)),
    "three rungs, even and odd": (
        TabularModel(vocabulary=2, seed=4),
        ladder(2, 1.0, 2.0, 4.0, schedule="even_odd"),
    ),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("n", [0, 1])
def test_a_step_leaves_the_product_law_invariant(name: str, n: int) -> None:
    """A move of every replica, then exchanges."""
    model, sampler = CASES[name]
    matrix = transition(model, sampler, ("move", n), ("exchange", n))
    pi = target(model, sampler)
    assert matrix.sum(axis=1) == pytest.approx(np.ones(len(pi)), abs=1e-12)
    assert np.abs(pi @ matrix - pi).max() < 1e-12


@pytest.mark.parametrize("n", [0, 1])
@pytest.mark.parametrize("alphas", [(1.0, 4.0), (0.7, 1.0, 3.0)])
@pytest.mark.parametrize("schedule", ["ordered", "even_odd"])
def test_exchanges_alone_leave_the_product_law_invariant(
    schedule: str, alphas: tuple[float, ...], n: int
) -> None:
    model, sampler = TabularModel(vocabulary=3, seed=1), ladder(2, *alphas, schedule=schedule)
    matrix, pi = transition(model, sampler, ("exchange", n)), target(model, sampler)
    assert np.abs(pi @ matrix - pi).max() < 1e-12
    exchanged = schedule == "ordered" or n + 2 <= len(alphas)
    assert (np.abs(matrix - np.eye(len(pi))).max() > 0.1) == exchanged
    if (
        schedule == "even_odd"
    ):  # pairs that are tried one after the other are not reversible together
        flow = pi[:, None] * matrix
        assert np.abs(flow - flow.T).max() < 1e-12


def test_an_ordered_sweep_is_its_pairs_exchanges_one_after_the_other() -> None:
    """Each is committed before the next: a response may climb the whole ladder in one sweep."""
    model, alphas = TabularModel(vocabulary=2, seed=4), (1.0, 2.0, 4.0)
    swept = transition(model, ladder(2, *alphas), ("exchange", 0))
    pairs = ladder(2, *alphas, schedule="even_odd")
    one, two = (transition(model, pairs, ("exchange", n)) for n in (0, 1))
    assert np.abs(swept - one @ two).max() < 1e-12
    assert np.abs(swept - two @ one).max() > 0.01


@pytest.mark.parametrize("name", ["branching", "warmer proposal", "three rungs"])
def test_after_an_exchange_responses_move_by_their_new_rungs_proposals(name: str) -> None:
    model, sampler = CASES[name]
    exchange, move = (transition(model, sampler, (part, 0)) for part in ("exchange", "move"))
    both = transition(model, sampler, ("exchange", 0), ("move", 0))
    assert np.abs(both - exchange @ move).max() < 1e-12


@pytest.mark.parametrize("top_k", [None, 3])
def test_an_exchange_decodes_nothing_and_leaves_each_rung_its_own_log_q(top_k: int | None) -> None:
    """All along chains whose responses change rungs again and again."""
    sampler = replace(SAMPLER, top_k=top_k)
    engine, seen = ToyEngine(TOY), set()

    def watched() -> Chain:
        chain, answer = sampler.chain(ENDLESS), None
        while True:
            try:
                request = chain.send(answer)
            except StopIteration as end:
                return end.value
            if isinstance(request, Save):
                for r, (_, saved) in enumerate(request.state["replicas"]):
                    x = Response.of_state(saved)
                    asked = Extend((), (), 0, 1, (), tau=sampler.moves[r].tau, top_k=top_k)
                    expected = [
                        math.log(proposal(TOY.p(x.tokens[:i]), asked)[token])
                        for i, token in enumerate(x.tokens)
                    ]
                    assert x.logq == pytest.approx(expected, abs=1e-9)
            asked = request.requests if isinstance(request, Together) else (request,)
            seen.update(each.key[0] for each in asked if isinstance(each, Extend))
            answer = yield request

    outcome = run_one(watched, (), Stream(0, "task", "p", 0), engine)
    assert any(each.kept != (0, 1, 2) for each in outcome.rounds)
    assert seen == {"extend", "propose"}


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_a_fixed_horizon_has_the_published_distance_after_each_step(steps: int) -> None:
    """PPT's example: {a, EOS} at 1/2 each, T = 2, alpha = 2, from (a, EOS): TV = (2/3) (5/8)^N."""
    model = TabularModel(table=lambda x: [0.5, 0.5])
    sampler = ladder(2, 2.0)
    matrix, index = transition(model, sampler, ("move", 0)), list(product_law(model, sampler))
    start = np.eye(len(index))[index.index(((1, 0),))]
    after = start @ np.linalg.matrix_power(matrix, steps)
    assert np.abs(after - target(model, sampler)).sum() / 2 == pytest.approx(
        2 / 3 * (5 / 8) ** steps
    )


def test_the_top_rung_tends_to_the_power_distribution() -> None:
    model, sampler = CASES["branching"]
    step = transition(model, sampler, ("move", 0)) @ transition(model, sampler, ("exchange", 0))
    start = np.eye(len(step))[0] @ np.linalg.matrix_power(step, 2**16)
    assert np.abs(start - target(model, sampler)).max() < 1e-9


@pytest.mark.parametrize("stop_at_eos", [True, False])
def test_one_rung_alone_is_power(stop_at_eos: bool) -> None:
    model = TabularModel(vocabulary=2, seed=4)
    alone = ParallelTempering(3, blocks=3, steps=1, replicas=1, stop_at_eos=stop_at_eos)
    power = Power(3, blocks=3, steps=1, stop_at_eos=stop_at_eos)
    assert total_variation(chain_law(alone, model), chain_law(power, model)) < 1e-12


SAMPLER = ParallelTempering(12, alpha=3.0, blocks=3, steps=4, replicas=3)


@pytest.mark.parametrize("context", [None, ENDLESS])
def test_outcomes_do_not_depend_on_the_width_or_on_early_rejection(context: Any) -> None:
    whole = completed(SAMPLER, TOY, 3, context=context)
    for width in (1, 50):
        again = completed(SAMPLER, TOY, width, context=context)
        assert {k: (c.outcome, c.cost.decoded) for k, c in again.items()} == {
            k: (c.outcome, c.cost.decoded) for k, c in whole.items()
        }
    late = completed(replace(SAMPLER, early_rejection=False), TOY, 50, context=context)
    assert {k: (c.outcome.tokens, c.outcome.logp) for k, c in late.items()} == {
        k: (c.outcome.tokens, c.outcome.logp) for k, c in whole.items()
    }
    assert sum(c.cost.decoded for c in late.values()) > sum(c.cost.decoded for c in whole.values())


def test_a_chain_goes_on_from_a_saved_state_as_if_never_stopped() -> None:
    whole, again = resumed(SAMPLER, TOY)
    assert again == [whole] * 3


@pytest.mark.parametrize("schedule", ["ordered", "even_odd"])
def test_the_record_follows_the_rungs(schedule: str) -> None:
    """From each step's log-likelihood, by the sweep after it, to the next one's."""
    sampler, exchanged = replace(SAMPLER, schedule=schedule), 0
    for done in completed(sampler, TOY, context=ENDLESS).values():
        steps, rounds = done.outcome.steps, done.outcome.rounds
        assert [step.block for step in steps] == [k for k in range(3) for _ in range(4)]
        assert [each.block for each in rounds] == [step.block for step in steps]
        for i, (step, sweep) in enumerate(zip(steps, rounds, strict=True)):
            now = step.proposed if step.accepted else step.current
            assert now == pytest.approx(sweep.logp[-1], abs=1e-3)
            logp = list(sweep.logp)
            for r, exchanges in enumerate(accepted(sweep.kept)):
                gap = sampler.ladder[r + 1] - sampler.ladder[r]
                chance = min(1, math.exp(gap * (logp[r] - logp[r + 1])))
                tried = schedule == "ordered" or r % 2 == i % 4 % 2
                assert sweep.weights[r] == pytest.approx(chance if tried else 0, abs=1e-2)
                if exchanges:
                    logp[r : r + 2] = logp[r + 1], logp[r]
            assert [sweep.logp[origin] for origin in sweep.kept] == logp
            exchanged += logp[-1] != sweep.logp[-1]
            now = logp[-1]
            if i % 4 < 3:
                assert now == pytest.approx(steps[i + 1].current, abs=1e-3)
        assert now == pytest.approx(done.outcome.logp, abs=1e-3)
    assert exchanged > 10


def test_a_chain_ends_after_the_block_in_which_the_top_rung_holds_eos() -> None:
    model, finish_reason = TabularModel(vocabulary=2, seed=4), set()
    for done in completed(replace(SAMPLER, stop_at_eos=True), model, count=60).values():
        x, last = done.outcome, done.outcome.steps[-1].block
        assert x.finish_reason is FinishReason.STOP or len(x.tokens) == SAMPLER.max_tokens
        assert len(x.tokens) <= 4 * (last + 1)
        finish_reason.add(last)
    assert finish_reason == {0, 1}
    on = completed(SAMPLER, model)  # as published
    assert all(each.outcome.steps[-1].block == 2 for each in on.values())


def test_the_ladder_rises_by_equal_ratios_unless_it_is_given() -> None:
    assert ParallelTempering(4, 8.0, blocks=1).ladder == pytest.approx((1, 2, 4, 8))
    assert ParallelTempering(4, 8.0, blocks=1).ladder[-1] == 8.0
    taus = [move.tau for move in ladder(4, 1.0, 2.0, 4.0, proposal_temperature=0.5).moves]
    assert taus == [1.0, 0.5, 0.5]


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ({"replicas": 0}, "replicas must be an integer >= 1, got 0"),
        (
            {"alphas": (1.0, 2.0)},
            r"alphas must rise from above 0 to sampler.alpha=4.0, got \[1.0, 2",
        ),
        ({"alphas": (2.0, 2.0, 4.0)}, "alphas must rise"),
        ({"alphas": (0.0, 4.0)}, "alphas must rise"),
        ({"alphas": ()}, "alphas must rise"),
        ({"alpha": 1.0}, "alphas must rise"),
        ({"blocks": 5}, "blocks"),
        ({"schedule": "DEO"}, "schedule must be one of ordered, even_odd, got 'DEO'"),
    ],
)
def test_impossible_settings_are_refused(setting: dict[str, Any], named: str) -> None:
    with pytest.raises(UserError, match=named):
        ParallelTempering(**{"max_tokens": 12, "blocks": 3, **setting})
