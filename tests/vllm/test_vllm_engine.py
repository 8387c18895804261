"""What the contract of engines does not say of the vLLM engine: its cache, its records, whole chains.

Run: make test-vllm
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from tiny import run
from vllm_subjects import engine, held, logp, saved

from powerbench.chains.runner import ChainSpec, Completed, run_chains
from powerbench.engines.base import Engine
from powerbench.engines.hf import HFEngine
from powerbench.engines.vllm import VLLMEngine
from powerbench.errors import UserError
from powerbench.rng import Stream
from powerbench.samplers.power import Power
from powerbench.types import Context, Extend, FinishReason, Progress, SampleKey

PROMPT = tuple(3 + i * i % 290 for i in range(40))
EXTEND = Extend(("draw",), response=(), keep=0, until=40, stop_tokens=(), tau=0.5, alpha=2.0)
POWER = Power(max_tokens=24, blocks=3, steps=4, alpha=2.0, proposal_temperature=0.5)


def uniforms(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random(40)


def chains(engine: Engine, sampler: Power = POWER, speculate: int = 0) -> list[Completed]:
    """Six chains of power sampling, in order."""
    starts = (
        ChainSpec(
            SampleKey(f"p{i}", 0),
            PROMPT[: 5 + i],
            partial(sampler.chain, Context(PROMPT[: 5 + i], 0, (0,))),
            Stream(0, "task", f"p{i}", 0),
        )
        for i in range(6)
    )
    done = [
        each
        for each in run_chains(starts, engine, Progress(), speculate)
        if isinstance(each, Completed)
    ]
    return sorted(done, key=lambda each: each.key)


def tokens(done: list[Completed]) -> list[tuple[int, ...]]:
    return [each.outcome.tokens for each in done]


def decoded(done: list[Completed]) -> int:
    return sum(each.cost.decoded for each in done)


def test_chains_are_the_same_with_early_rejection_speculation_and_in_the_hf_engine() -> None:
    vllm = engine(8)
    plain = chains(vllm, replace(POWER, early_rejection=False))
    early, ahead = chains(vllm), chains(vllm, speculate=4)
    assert tokens(early) == tokens(ahead) == tokens(plain)
    assert decoded(early) == decoded(ahead) < decoded(plain)
    assert sum(each.cost.speculated for each in ahead) > 0
    steps = [step for each in plain for step in each.outcome.steps]
    assert 0 < sum(step.accepted for step in steps) < len(steps)
    assert held(vllm) == 0
    hf = HFEngine(saved("llama")[0], 40, 40, max_num_seqs=8)
    assert tokens(chains(hf, replace(POWER, early_rejection=False))) == tokens(plain)


@pytest.mark.parametrize(
    "options",
    [
        {"max_num_batched_tokens": 16, "enable_chunked_prefill": True},
        {"blocks": 6, "enable_prefix_caching": False},
    ],
    ids=["prompts computed in parts", "requests preempted for want of memory"],
)
def test_steps_that_vllm_repeats_leave_no_trace(options: dict[str, int | bool]) -> None:
    alone, requests = engine(1), {}
    for chain in range(12):  # floors lie just below, where the token of a repeated step would fall
        prompt, u = PROMPT[chain:] + PROMPT[:chain], uniforms(chain)
        request = replace(
            EXTEND, until=40 if chain < 4 else 1, alpha=2.0 * (chain % 2), top_logprobs=3
        )
        draw = run(alone, {chain: (prompt, request, u)})[chain]
        weights = np.cumsum(request.alpha * np.array(draw.logp) - np.array(draw.logq))
        requests[chain] = (prompt, replace(request, floor=weights.min() - 1e-3), u)
    crowded = engine(4, **options)
    for chain, draw in run(crowded, requests).items():
        x = requests[chain][0] + draw.tokens
        rows = logp(saved("llama")[1], x)[len(PROMPT) - 1 : -1]
        assert len(x) == len(PROMPT) + requests[chain][1].until
        np.testing.assert_allclose(draw.logp, rows[range(len(rows)), draw.tokens], atol=1e-4)
        reported = [ranked.logp for ranked in draw.top_logprobs]
        np.testing.assert_allclose(reported, np.sort(rows)[:, :-4:-1], atol=1e-4)
    assert held(crowded) == 0


def test_a_request_finds_what_others_have_computed_in_the_cache() -> None:
    vllm = engine(2)
    first = run(vllm, {0: (PROMPT, EXTEND, uniforms(0))})[0]
    assert first.prefilled == len(PROMPT) - 1
    again = replace(EXTEND, response=first.tokens, keep=39, key=("again",))
    second = run(vllm, {0: (PROMPT, again, uniforms(1))})[0]
    whole_blocks = (len(PROMPT) + 39) // 32 * 32
    assert second.prefilled == len(PROMPT) + 39 - 1 - whole_blocks < 32


def test_nothing_is_left_of_requests_that_end_or_are_withdrawn() -> None:
    vllm = engine(2)
    for chain in range(4):
        vllm.submit(chain, PROMPT, EXTEND, uniforms(chain))
    vllm.submit(3, PROMPT, replace(EXTEND, key=("other",), floor=-1e-3), uniforms(3))
    for _ in range(5):
        vllm.step()
    assert held(vllm) == 2
    assert vllm.withdraw(0, ("no such key",)) == 0
    assert vllm.withdraw(0, EXTEND.key) == 5
    assert vllm.withdraw(2) == 0  # it was waiting for its turn
    finish_reason = {}
    while len(finish_reason) < 3:
        finish_reason |= {(each.chain, each.key): each.draw.finish_reason for each in vllm.step()}
    assert finish_reason[1, EXTEND.key] is finish_reason[3, EXTEND.key] is FinishReason.LENGTH
    assert finish_reason[3, ("other",)] is FinishReason.FLOOR
    assert held(vllm) == 0
    assert vllm.withdraw(1) == vllm.withdraw(3) == 0
    assert not vllm.llm.has_unfinished_requests()


def test_a_floor_below_at_the_last_token_counts() -> None:
    vllm, u = engine(1), uniforms(3)
    request = replace(EXTEND, until=6, tau=0.25, alpha=4.0)
    free = run(vllm, {0: (PROMPT, request, u)})[0]
    weights = np.cumsum(4 * np.array(free.logp) - np.array(free.logq))
    between = (weights[-1] + weights[-2]) / 2
    last = run(vllm, {1: (PROMPT, replace(request, floor=between), u)})[1]
    assert (last.finish_reason, last.tokens, last.logp) == (
        FinishReason.FLOOR,
        free.tokens,
        free.logp,
    )


def test_engines_with_the_same_settings_share_one_model() -> None:
    first, second = engine(2), engine(2)
    assert first.llm is second.llm
    assert engine(3).llm is not first.llm


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (partial(engine, 1, max_seq_len=99), r"unknown setting 'engine.options.max_seq_len'"),
        (partial(engine, 1, max_prompt=10**6), "engine=vllm: .*max_model_len"),
        (partial(engine, 0), "engine.max_num_seqs must be an integer >= 1, got 0"),
    ],
)
def test_a_wrong_setting_is_one_line(make: Callable[[], VLLMEngine], said: str) -> None:
    with pytest.raises(UserError, match=said) as error:
        make()
    assert "\n" not in str(error.value)


def test_a_longer_sequence_than_announced_is_refused() -> None:
    vllm = engine(1)  # for 80 tokens, rounded up to 128
    with pytest.raises(UserError, match=r"set \+engine.options.max_model_len=129 or more"):
        vllm.submit(0, (*PROMPT, *range(49)), EXTEND, uniforms(0))
