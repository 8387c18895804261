"""Exchanges between prefixes of several lengths leave the product of p^alpha on all horizons invariant.

Run: pytest tests/samplers/test_prefix_exchange.py
"""

import math
from collections.abc import Generator
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from toy_chains import ENDLESS, completed, resumed, state, transition

from powerbench.chains.law import context_of, law, power_law
from powerbench.models import TabularModel
from powerbench.samplers.power import Power
from powerbench.samplers.prefix_exchange import PrefixExchange, cut
from powerbench.types import Request, Tokens

TOY = TabularModel(vocabulary=5)
Replicas = tuple[Tokens, ...]


def product_law(model: TabularModel, sampler: PrefixExchange) -> dict[Replicas, float]:
    laws = [power_law(model, sampler.alpha, sampler.horizon(r)) for r in range(sampler.blocks)]
    return {xs: math.prod(of[x] for of, x in zip(laws, xs, strict=True)) for xs in product(*laws)}


def matrix_of(model: TabularModel, sampler: PrefixExchange, part: str, n: int) -> np.ndarray:
    """The exact matrix of the moves or the exchanges of step n over the states of `product_law`."""
    index = {xs: i for i, xs in enumerate(product_law(model, sampler))}
    matrix = np.zeros((len(index), len(index)))

    def after(xs: Replicas) -> Generator[Request, Any, Replicas]:
        held = [state(model, x, sampler.tau) for x in xs]
        ys, _ = yield from getattr(sampler, part)(held, n, context_of(model))
        return tuple(y.tokens for y in ys)

    for xs, i in index.items():
        for ys, chance in law(lambda xs=xs: after(xs), model).items():
            matrix[i, index[ys]] += chance
    return matrix


CASES = {
    "two lengths": (TabularModel(seed=0), PrefixExchange(2, blocks=2)),
    "three lengths": (TabularModel(vocabulary=2, seed=1), PrefixExchange(3, blocks=3)),
    "longer chunks": (TabularModel(vocabulary=2, seed=4), PrefixExchange(4, blocks=2)),
    "warmer": (TabularModel(seed=1), PrefixExchange(2, 2.0, 2, proposal_temperature=1.0)),
    "late": (TabularModel(seed=2), PrefixExchange(2, blocks=2, early_rejection=False)),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("n", [0, 1])
@pytest.mark.parametrize("part", ["move", "exchange"])
def test_a_part_of_a_step_leaves_the_product_law_invariant(name: str, n: int, part: str) -> None:
    model, sampler = CASES[name]
    matrix, pi = matrix_of(model, sampler, part, n), np.array([*product_law(*CASES[name]).values()])
    assert matrix.sum(axis=1) == pytest.approx(np.ones(len(pi)), abs=1e-12)
    flow = pi[:, None] * matrix
    assert np.abs(flow - flow.T).max() < 1e-12
    exchanges = part == "move" or n + 2 <= sampler.blocks
    assert (np.abs(matrix - np.eye(len(pi))).max() > 0.1) == exchanges


def test_the_longest_tends_to_the_power_distribution() -> None:
    model, sampler = CASES["three lengths"]
    step = np.eye(len(product_law(model, sampler)))
    for n in (0, 1):
        step = (
            step @ matrix_of(model, sampler, "move", n) @ matrix_of(model, sampler, "exchange", n)
        )
    pi = np.array([*product_law(model, sampler).values()])
    assert np.abs(np.eye(len(pi))[0] @ np.linalg.matrix_power(step, 2**14) - pi).max() < 1e-9


def test_of_one_length_a_step_is_powers() -> None:
    model = TabularModel(seed=2)
    ours = matrix_of(model, PrefixExchange(3, blocks=1), "move", 0)
    theirs = transition(model, Power(3, blocks=1), 3)[1]
    assert ours == pytest.approx(theirs, abs=1e-12)


def test_exchanges_alone_bring_what_the_shorter_holds_to_the_longer() -> None:
    """Their prefixes are exchanged, whatever they are, and nothing else is drawn anew than the chunk."""
    even = TabularModel(table=lambda x: [0.0, 0.5, 0.5])
    sampler = PrefixExchange(4, blocks=2)
    short, long = state(even, (1, 1), 0.25), state(even, (2, 2, 2, 1), 0.25)

    def after() -> Generator[Request, Any, Replicas]:
        xs, _ = yield from sampler.exchange([short, long], 0, context_of(even))
        return tuple(x.tokens for x in xs)

    found = law(after, even)
    assert {xs[0] for xs in found} == {(2, 2)}  # all weights are equal: each is accepted
    assert {xs[1][:2] for xs in found} == {(1, 1)}
    assert found == pytest.approx(dict.fromkeys(found, 0.25))


def test_a_cut_response_is_not_finished() -> None:
    whole = state(TOY, (1, 2, 0), 0.25)
    assert cut(whole, 3) == cut(whole, 9) == whole
    assert cut(whole, 2) == state(TOY, (1, 2), 0.25)


SAMPLER = PrefixExchange(12, alpha=3.0, blocks=3, steps=4)


@pytest.mark.parametrize("context", [None, ENDLESS])
def test_outcomes_do_not_depend_on_the_width_or_on_early_rejection(context: Any) -> None:
    whole = {k: c.outcome for k, c in completed(SAMPLER, TOY, 3, context=context).items()}
    for width in (1, 50):
        again = completed(SAMPLER, TOY, width, context=context)
        assert {k: c.outcome for k, c in again.items()} == whole
    late = completed(replace(SAMPLER, early_rejection=False), TOY, 50, context=context)
    assert {k: c.outcome.tokens for k, c in late.items()} == {k: x.tokens for k, x in whole.items()}


def test_the_record_follows_the_longest() -> None:
    exchanged = 0
    for done in completed(SAMPLER, TOY, context=ENDLESS).values():
        steps = done.outcome.steps
        assert [step.block for step in steps] == [2] * 6  # a move each, and the odd pair's exchange
        for before, after in zip(steps, (*steps[1:], None), strict=True):
            now = before.proposed if before.accepted else before.current
            assert now == pytest.approx(after.current if after else done.outcome.logp)
        exchanged += sum(step.accepted for step in (steps[2], steps[5]))
    assert exchanged > 10


def test_a_chain_goes_on_from_a_saved_state_as_if_never_stopped() -> None:
    whole, again = resumed(SAMPLER, TOY)
    assert again == [whole] * 4
