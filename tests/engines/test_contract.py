"""The contract that every engine keeps, checked against a plain forward pass of the same model.

Run: pytest tests/engines/test_contract.py
"""

from dataclasses import replace

import numpy as np
import pytest
from tiny import Subject, run, subject

from powerbench.engines.toy import proposal
from powerbench.types import Ended, Extend

PROMPT = (3, 1, 4, 1, 5)
EXTEND = Extend(("draw",), response=(), keep=0, until=12, stops=())
SETTINGS = {
    "base": EXTEND,
    "sharp": replace(EXTEND, tau=0.25),
    "flat": replace(EXTEND, tau=1.7),
    "top_k": replace(EXTEND, tau=0.5, top_k=5),
    "greedy": replace(EXTEND, tau=0.0),
    "support": replace(EXTEND, support=(2, 7, 9)),
    "continued": replace(EXTEND, response=(6, 2, 8, 5, 3), keep=3, tau=0.5),
}


@pytest.fixture(params=["toy", "llama", "qwen2", "phi3", "phi3-window"])
def engine_under_test(request: pytest.FixtureRequest) -> Subject:
    return subject(request.param)


def uniforms(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random(64)


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_draw_is_what_the_plain_model_says(engine_under_test: Subject, setting: str) -> None:
    request, u = SETTINGS[setting], uniforms(1)
    draw = run(engine_under_test.make(2), {0: (PROMPT, request, u)})[0]
    x = PROMPT + request.prefix + draw.tokens
    first = len(PROMPT) + request.keep
    logp = engine_under_test.logp(x)[first - 1 : -1]
    assert draw.ended is Ended.LENGTH
    assert request.keep + len(draw.tokens) == request.until
    for i, (row, token) in enumerate(zip(logp, draw.tokens, strict=True)):
        q = proposal(np.exp(row), request)
        assert draw.logp[i] == pytest.approx(row[token], abs=1e-4)
        assert draw.logq[i] == pytest.approx(np.log(q[token]), abs=1e-4)
        assert draw.entropy[i] == pytest.approx(-(np.exp(row) * row).sum(), abs=1e-4)
        below, cdf = q[:token].sum(), q[: token + 1].sum()
        if request.tau > 0:  # the token is the inverse CDF at this position's uniform
            assert below - 1e-4 <= u[request.keep + i] <= cdf + 1e-4


def test_a_stop_token_ends_a_draw_and_belongs_to_it(engine_under_test: Subject) -> None:
    engine, u = engine_under_test.make(1), uniforms(2)
    free = run(engine, {0: (PROMPT, EXTEND, u)})[0]
    engine.withdraw(0)
    stop = free.tokens[4]
    stopped = run(engine, {1: (PROMPT, replace(EXTEND, stops=(stop, 10**6)), u)})[1]
    assert stopped.ended is Ended.STOP
    assert stopped.tokens == free.tokens[: free.tokens.index(stop) + 1]


def test_a_floor_ends_a_draw_where_the_weight_falls_below_it(engine_under_test: Subject) -> None:
    engine, u = engine_under_test.make(1), uniforms(3)
    request = replace(EXTEND, tau=0.25, alpha=4.0)
    free = run(engine, {0: (PROMPT, request, u)})[0]
    engine.withdraw(0)
    weights = np.cumsum(4 * np.array(free.logp) - np.array(free.logq))
    floor = (weights[4] + weights[5]) / 2
    fallen = run(engine, {1: (PROMPT, replace(request, floor=floor), u)})[1]
    assert fallen.ended is Ended.FLOOR
    assert fallen.tokens == free.tokens[: int(np.argmax(weights < floor)) + 1]


def test_a_draw_does_not_depend_on_what_else_runs(engine_under_test: Subject) -> None:
    requests = {
        chain: (PROMPT[: 1 + chain % 5], replace(EXTEND, tau=0.5, until=4 + chain), uniforms(chain))
        for chain in range(9)
    }
    alone = {c: run(engine_under_test.make(1), {c: requests[c]})[c] for c in requests}
    engine = engine_under_test.make(9)
    together = run(engine, dict(reversed(requests.items())))
    for chain, draw in alone.items():
        assert together[chain].tokens == draw.tokens
        assert together[chain].logp == pytest.approx(draw.logp, abs=1e-4)


def test_a_withdrawn_chain_is_forgotten_and_disturbs_no_other(engine_under_test: Subject) -> None:
    engine, u = engine_under_test.make(2), uniforms(5)
    expected = run(engine, {0: (PROMPT, EXTEND, u)})[0]
    engine.withdraw(0)
    engine.submit(1, PROMPT, EXTEND, u)
    engine.submit(2, (9, 9, 2), EXTEND, u)
    for _ in range(3):
        assert engine.step() == []
    engine.withdraw(2)
    answered = []
    while not answered:
        answered = engine.step()
    assert [finished.chain for finished in answered] == [1]
    assert answered[0].draw.tokens == expected.tokens
    engine.withdraw(1)
    assert engine.step() == []
