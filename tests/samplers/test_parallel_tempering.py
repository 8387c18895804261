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
from powerbench.errors import UserError
from powerbench.models import TabularModel
from powerbench.samplers.parallel_tempering import ParallelTempering
from powerbench.samplers.power import Power
from powerbench.samplers.replicas import Replica
from powerbench.types import FinishReason, Request, Tokens

TOY = TabularModel(vocabulary=5)
Rungs = tuple[Tokens, ...]


def ladder(max_tokens: int, *alphas: float, **settings: Any) -> ParallelTempering:
    return ParallelTempering(max_tokens, alphas[-1], blocks=1, alphas=alphas, **settings)


def product_law(model: TabularModel, sampler: ParallelTempering) -> dict[Rungs, float]:
    """prod_k p(x_k)^alpha_k / Z_k over all states of the rungs."""
    laws = [power_law(model, alpha, sampler.max_tokens) for alpha in sampler.ladder]
    states = product(responses(model, sampler.max_tokens), repeat=len(laws))
    return {xs: math.prod(of[x] for of, x in zip(laws, xs, strict=True)) for xs in states}


def transition(
    model: TabularModel, sampler: ParallelTempering, *parts: tuple[str, int], scored: bool = True
) -> np.ndarray:
    """The exact matrix of parts of steps, one after another, over the states of `product_law`.

    parts: "move" or "exchange" of step n. scored: start with every rung's own log q; else with none, as
        after exchanges.
    """
    index = {xs: i for i, xs in enumerate(product_law(model, sampler))}
    matrix = np.zeros((len(index), len(index)))

    def after(xs: Rungs) -> Generator[Request, Any, Rungs]:
        replicas = []
        for sequence, (x, move) in enumerate(zip(xs, sampler.moves, strict=True)):
            known = state(model, x, move.tau)
            unknown = replace(known, logq=(math.nan,) * len(x))
            replicas.append(
                Replica(sequence, known) if scored else Replica(sequence, unknown, len(x))
            )
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
    "three rungs": (TabularModel(vocabulary=2, seed=4), ladder(2, 1.0, 2.0, 4.0)),
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
def test_exchanges_alone_leave_the_product_law_invariant(alphas: tuple[float, ...], n: int) -> None:
    model, sampler = TabularModel(vocabulary=3, seed=1), ladder(2, *alphas)
    matrix, pi = transition(model, sampler, ("exchange", n)), target(model, sampler)
    flow = pi[:, None] * matrix
    assert np.abs(flow - flow.T).max() < 1e-12
    exchanged = n + 2 <= len(alphas)
    assert (np.abs(matrix - np.eye(len(pi))).max() > 0.1) == exchanged


@pytest.mark.parametrize("name", ["branching", "warmer proposal"])
def test_after_an_exchange_responses_move_by_their_new_rungs_proposals(name: str) -> None:
    model, sampler = CASES[name]
    exchange, move = (transition(model, sampler, (part, 0)) for part in ("exchange", "move"))
    both = transition(model, sampler, ("exchange", 0), ("move", 0))
    assert np.abs(both - exchange @ move).max() < 1e-12


@pytest.mark.parametrize("parts", [[("move", 0)], [("move", 0), ("move", 1)]])
def test_what_is_not_known_of_a_proposal_is_scored(parts: list[tuple[str, int]]) -> None:
    """Without any log q of its own rung, a response moves just as with all of it, once and again."""
    sampler = ladder(2, 4.0, proposal_temperature=0.5)
    known = transition(BRANCHING, sampler, ("move", 0))
    again = transition(BRANCHING, sampler, *parts, scored=False)
    assert np.abs(again - np.linalg.matrix_power(known, len(parts))).max() < 1e-12


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


def test_the_record_follows_the_top_rung() -> None:
    """From each step's log-likelihood, by the exchange after every other step, to the next one's."""
    exchanged = 0
    for done in completed(SAMPLER, TOY, context=ENDLESS).values():
        steps, rounds = done.outcome.steps, done.outcome.rounds
        assert [step.block for step in steps] == [k for k in range(3) for _ in range(4)]
        assert [each.block for each in rounds] == [0, 0, 1, 1, 2, 2]
        for i, step in enumerate(steps):
            now = step.proposed if step.accepted else step.current
            if i % 2 == 1:  # the upper pair of three rungs is the odd one
                below, above = rounds[i // 2].logp
                assert now == pytest.approx(above, abs=1e-3)
                now = rounds[i // 2].logp[rounds[i // 2].kept[0]]
                chance = min(1, math.exp((3 - 3**0.5) * (below - above)))
                assert rounds[i // 2].weights == pytest.approx((chance, 1 - chance), abs=1e-2)
                exchanged += rounds[i // 2].kept == (0,)
            if i % 4 < 3:
                assert now == pytest.approx(steps[i + 1].current, abs=1e-3)
        assert now == pytest.approx(done.outcome.logp, abs=1e-3)
    assert exchanged > 10


def test_a_chain_ends_after_the_block_in_which_the_top_rung_holds_eos() -> None:
    model, finish_reason = TabularModel(vocabulary=2, seed=4), set()
    for done in completed(SAMPLER, model, count=60).values():
        x, last = done.outcome, done.outcome.steps[-1].block
        assert x.finish_reason is FinishReason.STOP or len(x.tokens) == SAMPLER.max_tokens
        assert len(x.tokens) <= 4 * (last + 1)
        finish_reason.add(last)
    assert finish_reason == {0, 1}
    on = completed(replace(SAMPLER, stop_at_eos=False), model)
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
    ],
)
def test_impossible_settings_are_refused(setting: dict[str, Any], named: str) -> None:
    with pytest.raises(UserError, match=named):
        ParallelTempering(**{"max_tokens": 12, "blocks": 3, **setting})
