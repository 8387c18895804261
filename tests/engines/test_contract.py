"""The contract that every engine keeps, checked against a plain forward pass of the same model.

Run: pytest tests/engines/test_contract.py
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from tiny import Subject, run, subject

from powerbench.engines.toy import proposal
from powerbench.types import Extend, FinishReason

PROMPT = (3, 1, 4, 1, 5)
EXTEND = Extend(("draw",), response=(), keep=0, until=12, stop_tokens=())
SETTINGS = {
    "base": EXTEND,
    "sharp": replace(EXTEND, tau=0.25),
    "flat": replace(EXTEND, tau=1.7),
    "top_k": replace(EXTEND, tau=0.5, top_k=5),
    "greedy": replace(EXTEND, tau=0.0),
    "support": replace(EXTEND, support=(2, 7, 9)),
    "continued": replace(EXTEND, response=(6, 2, 8, 5, 3), keep=3, tau=0.5),
}


SUBJECTS = [(name, "cpu") for name in ("toy", "llama", "qwen2", "phi3", "phi3-window")]
SUBJECTS += [(name, kind) for kind in ("as_cuda", "cuda") for name in ("llama", "phi3-window")]


@pytest.fixture(
    params=[
        pytest.param(each, id="-".join(each), marks=[pytest.mark.cuda] * (each[1] == "cuda"))
        for each in SUBJECTS
    ]
)
def engine_under_test(
    request: pytest.FixtureRequest, prepare_cuda: Callable[[str], None]
) -> Subject:
    name, kind = request.param
    if kind == "cpu":
        return subject(name, "cpu")
    prepare_cuda(kind)
    return subject(name, "cuda")


def uniforms(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random(64)


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_draw_is_what_the_plain_model_says(engine_under_test: Subject, setting: str) -> None:
    request, u = SETTINGS[setting], uniforms(1)
    draw = run(engine_under_test.make(2), {0: (PROMPT, request, u)})[0]
    x = PROMPT + request.prefix + draw.tokens
    first = len(PROMPT) + request.keep
    logp = engine_under_test.logp(x)[first - 1 : -1]
    assert draw.finish_reason is FinishReason.LENGTH
    assert request.keep + len(draw.tokens) == request.until
    assert 1 <= draw.passes <= len(draw.tokens) <= draw.rows
    for i, (row, token) in enumerate(zip(logp, draw.tokens, strict=True)):
        q = proposal(np.exp(row), request)
        assert draw.logp[i] == pytest.approx(row[token], abs=1e-4)
        assert draw.logq[i] == pytest.approx(np.log(q[token]), abs=1e-4)
        assert draw.entropy[i] == pytest.approx(-(np.exp(row) * row).sum(), abs=1e-4)
        below, cdf = q[:token].sum(), q[: token + 1].sum()
        if request.tau > 0:  # the token is the inverse CDF at this position's uniform
            assert below - 1e-4 <= u[request.keep + i] <= cdf + 1e-4


@pytest.mark.parametrize("setting", SETTINGS)
def test_the_likeliest_tokens_are_the_plain_models_at_temperature_1(
    engine_under_test: Subject, setting: str
) -> None:
    request = replace(SETTINGS[setting], top_logprobs=5)
    draw = run(engine_under_test.make(2), {0: (PROMPT, request, uniforms(1))})[0]
    first = len(PROMPT) + request.keep
    logp = engine_under_test.logp(PROMPT + request.prefix + draw.tokens)[first - 1 : -1]
    assert len(draw.top_logprobs) == len(draw.tokens)
    for row, ranked in zip(logp, draw.top_logprobs, strict=True):
        assert len(set(ranked.tokens)) == 5
        assert list(ranked.logp) == sorted(ranked.logp, reverse=True)
        assert ranked.logp == pytest.approx(row[list(ranked.tokens)], abs=1e-4)
        assert ranked.logp == pytest.approx(np.sort(row)[::-1][:5], abs=1e-4)


def test_each_request_is_told_as_many_of_the_likeliest_tokens_as_it_asks_for(
    engine_under_test: Subject,
) -> None:
    whole = engine_under_test.vocabulary
    tops = [0, 1, 3, 0, 10**6]
    plain = {c: (PROMPT[c:], replace(EXTEND, until=5 + c), uniforms(c)) for c in range(len(tops))}
    asking = {c: (p, replace(e, top_logprobs=tops[c]), u) for c, (p, e, u) in plain.items()}
    expected = run(engine_under_test.make(5), plain)
    together = run(engine_under_test.make(5), asking)
    for chain, top in enumerate(tops):
        draw = together[chain]
        assert draw.tokens == expected[chain].tokens
        assert draw.logp == pytest.approx(expected[chain].logp, abs=1e-4)
        assert len(draw.top_logprobs) == (len(draw.tokens) if top else 0)
        assert all(len(ranked.tokens) == len(ranked.logp) for ranked in draw.top_logprobs)
        assert {len(ranked.tokens) for ranked in draw.top_logprobs} == (
            {min(top, whole)} if top else set()
        )
        for ranked, token, logp in zip(draw.top_logprobs, draw.tokens, draw.logp, strict=top > 0):
            assert top < whole or sorted(ranked.tokens) == list(range(whole))
            if token in ranked.tokens:
                assert ranked.logp[ranked.tokens.index(token)] == pytest.approx(logp, abs=1e-6)


EXPONENTS = (4.0, 1.0, 0.25)


@pytest.mark.parametrize("setting", SETTINGS)
def test_log_normalisers_are_those_of_the_plain_models_powers_on_the_support(
    engine_under_test: Subject, setting: str
) -> None:
    request, u = SETTINGS[setting], uniforms(1)
    asked = (*EXPONENTS, 1 / request.tau) if request.tau > 0 else EXPONENTS
    draw = run(engine_under_test.make(2), {0: (PROMPT, replace(request, exponents=asked), u)})[0]
    plain = run(engine_under_test.make(2), {0: (PROMPT, request, u)})[0]
    assert (draw.tokens, plain.log_normalisers) == (plain.tokens, ())
    assert len(draw.log_normalisers) == len(draw.tokens)
    first = len(PROMPT) + request.keep
    logp = engine_under_test.logp(PROMPT + request.prefix + draw.tokens)[first - 1 : -1]
    for i, (row, found) in enumerate(zip(logp, draw.log_normalisers, strict=True)):
        on_support = row[proposal(np.exp(row), replace(request, tau=1.0)) > 0]
        expected = [np.log(np.exp(a * on_support).sum()) for a in asked]
        assert found == pytest.approx(expected, abs=1e-4)
        if request.tau > 0:  # log q at its temperature
            logq = draw.logp[i] / request.tau - found[-1]
            assert logq == pytest.approx(draw.logq[i], abs=1e-4)


def test_each_request_is_told_the_log_normalisers_that_it_asks_for(
    engine_under_test: Subject,
) -> None:
    """Beside others that ask for more, fewer or none, and end before it or after."""
    lists = [(), (2.0,), (0.5, 3.0, 1.0), (), (3.0, 0.5)]
    asking = {
        c: (PROMPT, replace(EXTEND, until=5 + 3 * c, tau=0.5, exponents=lists[c]), uniforms(c))
        for c in range(len(lists))
    }
    together = run(engine_under_test.make(5), asking)
    engine = engine_under_test.make(1)  # whose slot is used for one after the other
    engine.submit(9, *asking[2])  # makes room for the most, so that what is recorded later stays
    engine.withdraw(9)
    for chain, exponents in enumerate(lists):
        draw = run(engine, {chain: asking[chain]})[chain]
        engine.withdraw(chain)
        assert together[chain].tokens == draw.tokens
        assert len(draw.log_normalisers) == (len(draw.tokens) if exponents else 0)
        pairs = zip(together[chain].log_normalisers, draw.log_normalisers, strict=True)
        for beside, alone in pairs:
            assert len(alone) == len(exponents)
            assert beside == pytest.approx(alone, abs=1e-4)
            if 1.0 in exponents:
                assert alone[exponents.index(1.0)] == pytest.approx(0, abs=1e-5)


def test_the_likeliest_tokens_end_where_the_draw_does(engine_under_test: Subject) -> None:
    engine, u = engine_under_test.make(2), uniforms(2)
    free = run(engine, {0: (PROMPT, replace(EXTEND, top_logprobs=2), u)})[0]
    engine.withdraw(0)
    stopped = replace(EXTEND, top_logprobs=2, stop_tokens=(free.tokens[4],))
    fallen = replace(EXTEND, top_logprobs=2, tau=0.25, alpha=4.0, floor=-1.0)
    for draw in run(engine, {1: (PROMPT, stopped, u), 2: (PROMPT, fallen, u)}).values():
        assert draw.finish_reason is not FinishReason.LENGTH
        assert len(draw.top_logprobs) == len(draw.tokens) < len(free.tokens)


def test_a_stop_token_ends_a_draw_and_belongs_to_it(engine_under_test: Subject) -> None:
    engine, u = engine_under_test.make(1), uniforms(2)
    free = run(engine, {0: (PROMPT, EXTEND, u)})[0]
    engine.withdraw(0)
    stop = free.tokens[4]
    stopped = run(engine, {1: (PROMPT, replace(EXTEND, stop_tokens=(stop, 10**6)), u)})[1]
    assert stopped.finish_reason is FinishReason.STOP
    assert stopped.tokens == free.tokens[: free.tokens.index(stop) + 1]


def test_a_floor_ends_a_draw_where_the_weight_falls_below_it(engine_under_test: Subject) -> None:
    engine, u = engine_under_test.make(1), uniforms(3)
    request = replace(EXTEND, tau=0.25, alpha=4.0)
    free = run(engine, {0: (PROMPT, request, u)})[0]
    engine.withdraw(0)
    weights = np.cumsum(4 * np.array(free.logp) - np.array(free.logq))
    floor = (weights[4] + weights[5]) / 2
    fallen = run(engine, {1: (PROMPT, replace(request, floor=floor), u)})[1]
    assert fallen.finish_reason is FinishReason.FLOOR
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
    request = replace(EXTEND, until=40)  # several tokens may be decoded in a step
    expected = run(engine, {0: (PROMPT, request, u)})[0]
    engine.withdraw(0)
    engine.submit(1, PROMPT, request, u)
    engine.submit(2, (9, 9, 2), request, u)
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
