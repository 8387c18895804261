"""The hf engine's cache: exact after any history of forks, rollbacks and reuse, and never a bystander.

Run: pytest tests/engines/test_hf.py
"""

import random
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from histories import Histories, close
from tiny import SWITCH, TinyModel, models, plain_logp, run

from powerbench.chains.runner import ChainSpec, Completed, run_chains
from powerbench.engines.hf import HFEngine, attention_batches, kv_cache
from powerbench.engines.hf.slots import Slots
from powerbench.engines.sampling import draw
from powerbench.errors import UserError
from powerbench.rng import Stream
from powerbench.samplers.power import Power
from powerbench.types import (
    Context,
    Extend,
    Outcome,
    Progress,
    SampleKey,
)

ARCHITECTURES = ["llama", "qwen2", "phi3", "phi3-window"]


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize(
    ("width", "look", "forks"),
    [
        (1, 1, 100),
        (3, 1, 100),
        (8, 1, 200),
        (8, 3, 200),
        pytest.param(3, 1, 500, marks=pytest.mark.faults),
        pytest.param(8, 1, 700, marks=pytest.mark.faults),
        pytest.param(8, 3, 700, marks=pytest.mark.faults),
    ],
)
def test_exact_after_random_histories(name: str, width: int, look: int, forks: int) -> None:
    """Every log p, after any number of forks, rollbacks and withdrawals."""
    engine = HFEngine(TinyModel(name), 12, 24, width, max_prefill_tokens=7, steps_per_sync=look)
    histories = Histories(name, engine, seed=width + look)
    histories.play(forks)
    assert histories.withdrawn > forks / 20 or width == 1


@pytest.mark.parametrize("requests", [1_000, pytest.param(10_000, marks=pytest.mark.faults)])
def test_many_requests_leave_nothing_behind(requests: int) -> None:
    engine = HFEngine(TinyModel("llama"), 12, 24, max_num_seqs=8)
    u, request = np.random.default_rng(0).random(24), Extend((0,), (), 0, 2, stop_tokens=())
    held = []
    for first in range(0, requests, 8):
        prompts = {first + i: ((first + i) % 300, i, 5) for i in range(8)}
        draws = run(engine, {c: (prompt, request, u) for c, prompt in prompts.items()})
        assert len(draws) == 8
        for chain in prompts:
            engine.withdraw(chain)
        if first % (requests // 5) == 0:
            held.append(psutil.Process().memory_info().rss)
    assert engine.step() == []
    assert not (engine.scheduler.waiting or engine.scheduler.by_slot)
    assert not engine.scheduler.prefix_cache.retained
    assert len(engine.scheduler.prefix_cache.rows) == 16
    assert held[-1] - held[1] < 16 * 2**20


def test_a_rejected_proposal_costs_no_recomputation() -> None:
    engine = HFEngine(TinyModel("llama"), 12, 24, max_num_seqs=1)
    prompt, u = (5, 6, 7, 8), np.random.default_rng(0).random(24)
    first = Extend((0,), (), 0, 20, stop_tokens=())
    x = run(engine, {0: (prompt, first, u)})[0]
    assert x.prefilled == len(prompt) - 1  # the last token of a prompt is decoded
    for cut in (5, 15, 10, 18):  # every proposal is rejected: the next one starts from x again
        proposal = Extend((cut,), x.tokens, cut, 20, stop_tokens=())
        assert run(engine, {0: (prompt, proposal, u[::-1].copy())})[0].prefilled == 0


def test_what_prompts_share_is_computed_once() -> None:
    """Replicates of a problem share all of the prompt, problems their few-shot examples."""
    engine = HFEngine(TinyModel("llama"), 24, 24, max_num_seqs=5)
    shared, u = tuple(range(1, 21)), np.random.default_rng(0).random(24)
    prompts = [(*shared, 30), (*shared, 30), (*shared, 40, 41, 42), (*shared, 40, 41, 42)]
    request = Extend((0,), (), 0, 5, stop_tokens=())
    draws = run(engine, {c: (prompt, request, u) for c, prompt in enumerate(prompts)})
    assert [draws[c].prefilled for c in range(4)] == [20, 0, 2, 2]
    for chain, prompt in enumerate(prompts):
        assert close("llama", prompt, (), draws[chain].tokens, draws[chain].logp)


@pytest.mark.parametrize("together", [True, False])
def test_longrope_factors_are_a_chains_own(together: bool) -> None:
    """A chain that may pass the switch uses the long factors from its start; its neighbours do not."""
    engine = HFEngine(TinyModel("phi3-longrope"), 40, 16, max_num_seqs=4)
    u = np.random.default_rng(1).random(16)
    prompts = {0: (1, 2, 3), 1: tuple(range(30)), 2: tuple(range(16)), 3: tuple(range(17))}
    jobs = {c: (p, Extend((0,), (), 0, 16, stop_tokens=()), u) for c, p in prompts.items()}
    batches = [jobs] if together else [{c: job} for c, job in jobs.items()]
    draws = {c: drawn for batch in batches for c, drawn in run(engine, batch).items()}
    for chain, prompt in prompts.items():
        long = len(prompt) + 16 > SWITCH
        x = prompt + draws[chain].tokens
        rows = plain_logp("phi3-longrope", x, pad_to=SWITCH + 1 if long else 0)
        expected = rows[range(len(prompt) - 1, len(x) - 1), draws[chain].tokens]
        assert draws[chain].logp == pytest.approx(expected, abs=1e-4)


def test_a_prompt_longer_than_planned_makes_the_cache_grow() -> None:
    engine = HFEngine(TinyModel("llama"), 4, 8, max_num_seqs=2)
    u = np.random.default_rng(1).random(8)
    request = Extend((0,), (), 0, 8, stop_tokens=())
    short = run(engine, {0: ((1, 2), replace(request, until=3), u)})[0]
    kept = run(engine, {2: ((1, 2), replace(request, until=6), u)})[2]
    prompt = tuple(range(80))
    long = run(engine, {1: (prompt, request, u)})[1]
    assert engine.cache.capacity > 80
    forked = Extend((1,), kept.tokens, 3, 8, stop_tokens=())
    after = run(engine, {2: ((1, 2), forked, u)})[2]
    assert after.prefilled == 0
    assert close("llama", (1, 2), kept.tokens[:3], after.tokens, after.logp)
    assert close("llama", prompt, (), long.tokens, long.logp)
    again = Extend((1,), short.tokens, 3, 8, stop_tokens=())
    more = run(engine, {0: ((1, 2), again, u)})[0]
    assert close("llama", (1, 2), short.tokens, more.tokens, more.logp)


def test_a_token_without_probability_is_never_drawn() -> None:
    logits = torch.full((4, 600), -torch.inf)
    logits[:, 300] = 0.0
    logits[:, 301] = 1.0
    u = torch.tensor([0.0, 0.2, 0.5, 1 - 2**-53], dtype=torch.float64)
    drawn = draw(logits, u, torch.ones(4), torch.zeros(4, dtype=torch.int64))
    assert drawn.token.tolist() == [300, 300, 301, 301]


def test_tokens_far_less_likely_than_their_neighbours_keep_their_share() -> None:
    """The cumulative sums must hold 1 and 1e-8 apart, within a block and across blocks."""
    logits = torch.full((3, 600), -40.0)
    logits[:, 10], logits[:, 20], logits[:, 500] = 0.0, float(np.log(1e-8)), float(np.log(1e-8))
    u = torch.tensor([0.5, 1 - 1.5e-8, 1 - 0.5e-8], dtype=torch.float64)
    drawn = draw(logits, u, torch.ones(3), torch.zeros(3, dtype=torch.int64))
    assert drawn.token.tolist() == [10, 20, 500]


def test_of_equally_likely_tokens_the_lower_id_comes_first_however_many_are_asked_for() -> None:
    logits = torch.zeros(9, 600).to(torch.bfloat16)
    logits[:, 400:550:50] = 1.0
    u, ones, none = torch.full((9,), 0.5).double(), torch.ones(9), torch.zeros(9).long()
    order = [400, 450, 500, *range(400), *range(401, 450)]
    for top in (1, 2, 5, 40, 300):
        drawn = draw(logits, u, ones, none, top=top)
        assert drawn.top.tolist() == [order[:top]] * 9
        expected = logits[0].float().log_softmax(0)[order[:top]]
        assert drawn.top_logp.tolist() == [expected.tolist()] * 9


@pytest.mark.parametrize(("until", "top"), [(12, 7), (30, 7), (30, 1)])
def test_room_made_for_more_likeliest_tokens_or_longer_responses_disturbs_none_at_work(
    until: int, top: int
) -> None:
    u, request = (
        np.random.default_rng(4).random(64),
        Extend((0,), (), 0, 20, stop_tokens=(), top_logprobs=2),
    )
    alone = run(HFEngine(TinyModel("llama"), 12, 24, 3), {0: ((5, 6), request, u)})[0]
    engine = HFEngine(TinyModel("llama"), 12, 24, 3)
    engine.submit(0, (5, 6), request, u)
    for _ in range(8):
        assert engine.step() == []
    more = replace(request, until=until, top_logprobs=top)
    draws = run(engine, {1: ((7, 8), replace(request, top_logprobs=0), u), 2: ((9, 1), more, u)})
    while 0 not in draws:
        draws |= {each.chain: each.draw for each in engine.step()}
    assert draws[0].tokens == alone.tokens
    assert [ranked.tokens for ranked in draws[0].top_logprobs] == [
        ranked.tokens for ranked in alone.top_logprobs
    ]
    for now, before in zip(draws[0].top_logprobs, alone.top_logprobs, strict=True):
        assert now.logp == pytest.approx(before.logp, abs=1e-4)
    rows = plain_logp("llama", (9, 1, *draws[2].tokens))[1:-1]
    for row, ranked in zip(rows, draws[2].top_logprobs, strict=True):
        assert ranked.logp == pytest.approx(np.sort(row)[::-1][:top], abs=1e-4)


@pytest.mark.parametrize(
    "setting",
    [{"max_num_seqs": 0}, {"max_prefill_tokens": 0}, {"graphs": "yes"}, {"graphs": True}],
)
def test_impossible_settings_are_refused(setting: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(setting))):
        HFEngine(TinyModel("llama"), 4, 8, **setting)


def test_no_progress_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = HFEngine(TinyModel("llama"), 12, 24, max_num_seqs=3)
    u, request = np.random.default_rng(2).random(24), Extend((0,), (), 0, 20, stop_tokens=())
    run(engine, {0: ((5, 6, 7), request, u)})
    monkeypatch.setattr(Slots, "advance", lambda slots, rows, drawn: None)
    engine.submit(1, (5, 6, 7), request, u)
    engine.submit(2, (5, 8), request, u)
    with pytest.raises(UserError, match="no response has grown in 1 decoding steps on cpu"):
        for _ in range(3):
            engine.step()


def test_a_response_may_begin_and_end_between_two_looks() -> None:
    """While its long prompt was computed, another one was looked at, and ended."""
    engine = HFEngine(TinyModel("llama"), 30, 24, 2, max_prefill_tokens=7, steps_per_sync=8)
    u, request = np.random.default_rng(2).random(24), Extend((0,), (), 0, 20, stop_tokens=())
    prompts = {0: (5, 6), 1: tuple(range(29))}
    brief = {0: replace(request, until=9), 1: replace(request, until=3)}
    draws = run(engine, {c: (prompts[c], brief[c], u) for c in prompts})
    for chain, prompt in prompts.items():
        assert close("llama", prompt, (), draws[chain].tokens, draws[chain].logp)


def test_a_window_that_hides_nothing_costs_no_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    """Phi-3.5's configuration names one of 262144 tokens."""
    masks, plain = [], attention_batches.causal_mask

    def causal(start: int, stop: int, window: int | None, device: torch.device) -> Any:
        masks.append(window)
        return plain(start, stop, window, device)

    monkeypatch.setattr(attention_batches, "causal_mask", causal)
    u, request = np.random.default_rng(2).random(24), Extend((0,), (), 0, 20, stop_tokens=())
    for name, hidden in (("phi3-window", 6), ("phi3-wide-window", None)):
        engine = HFEngine(TinyModel(name), 12, 24, max_num_seqs=3)
        masks.clear()  # of the check of its architecture
        run(engine, {0: (tuple(range(12)), request, u)})
        assert set(masks) == {hidden}


def test_bfloat16_weights_are_drawn_from_in_float32() -> None:
    engine = HFEngine(TinyModel("llama", torch.bfloat16), 12, 24, max_num_seqs=3)
    u, prompt = np.random.default_rng(2).random(24), (5, 6, 7)
    request = Extend((0,), (), 0, 20, stop_tokens=(), tau=0.5)
    drawn = run(engine, dict.fromkeys(range(3), (prompt, request, u)))[0]
    x = prompt + drawn.tokens
    expected = plain_logp("llama", x)[range(2, len(x) - 1), drawn.tokens]
    assert drawn.logp == pytest.approx(expected, abs=0.3)  # bfloat16 keeps 8 bits of the logits
    assert drawn.logq != pytest.approx(drawn.logp, abs=0.01)


POWER = Power(max_tokens=24, alpha=3.0, blocks=3, steps=5)


def completed(
    engine: HFEngine, chains: Sequence[int], sampler: Power = POWER, speculate: int = 2
) -> dict[int, Completed]:
    """Power sampling, by chain: two replicates of each problem."""
    starts = []
    for chain in chains:
        prompt = (5, 6, 7, *range(chain // 2))
        begin = partial(sampler.chain, Context(prompt, 7, (7,)))
        stream = Stream(0, "task", str(chain // 2), chain % 2)
        starts.append(ChainSpec(SampleKey(str(chain), 0), prompt, begin, stream))
    done = run_chains(starts, engine, Progress(), speculate)
    return {int(each.key.problem): each for each in done if isinstance(each, Completed)}


def power_chains(
    name: str, width: int, chains: Sequence[int], dtype: torch.dtype = torch.float32, **options: int
) -> dict[int, Outcome]:
    engine = HFEngine(TinyModel(name, dtype), 12, 24, width, **options)
    return {chain: each.outcome for chain, each in completed(engine, chains).items()}


@pytest.mark.parametrize(
    ("name", "chains"),
    [
        *((name, 1) for name in ARCHITECTURES),
        ("llama", 6),
        *(pytest.param(name, 6, marks=pytest.mark.faults) for name in ARCHITECTURES[1:]),
    ],
)
def test_chains_are_the_same_with_early_rejection_and_speculation(name: str, chains: int) -> None:
    def sample(early_rejection: bool, speculate: int) -> dict[int, Completed]:
        engine = HFEngine(TinyModel(name), 12, 24, max_num_seqs=8, deterministic=True)
        sampler = replace(POWER, early_rejection=early_rejection)
        return completed(engine, range(chains), sampler, speculate)

    plain = sample(early_rejection=False, speculate=0)
    for early_rejection, speculate in ((True, 0), (False, 3), (True, 3)):
        saving = sample(early_rejection, speculate)
        for chain, each in plain.items():
            assert saving[chain].outcome.tokens == each.outcome.tokens
            assert saving[chain].outcome.logp == each.outcome.logp
        decoded = [sum(c.cost.decoded for c in run.values()) for run in (saving, plain)]
        if early_rejection and chains > 1:  # one chain alone may have nothing to save
            assert decoded[0] < decoded[1]


def test_what_was_drawn_ahead_is_not_computed_again() -> None:
    costs = [
        completed(HFEngine(TinyModel("llama"), 12, 24, max_num_seqs=8), [4], speculate=ahead)[
            4
        ].cost
        for ahead in (0, 3)
    ]
    assert costs[0].prefilled == costs[1].prefilled == len((5, 6, 7, 0, 1)) - 1
    assert costs[1].speculated > 0


@pytest.mark.parametrize(
    "name",
    [
        "llama",
        "phi3-longrope",
        *(pytest.param(name, marks=pytest.mark.faults) for name in ARCHITECTURES[1:]),
    ],
)
def test_deterministic_mode_is_the_same_bit_for_bit_in_any_batch_and_order(name: str) -> None:
    order = list(range(11))
    wide = power_chains(name, 32, order, deterministic=True)
    random.Random(1).shuffle(order)
    assert wide == power_chains(name, 7, order, deterministic=True)
    assert wide == power_chains(name, 7, order[::-1], deterministic=True, max_prefill_tokens=5)
    few = order[:4]
    alone = power_chains(name, 1, few, deterministic=True)
    assert alone == {chain: wide[chain] for chain in few}


def test_deterministic_mode_holds_in_bfloat16() -> None:
    order, half = list(range(12)), torch.bfloat16
    wide = power_chains("llama", 32, order, half, deterministic=True)
    assert wide == power_chains("llama", 7, order[::-1], half, deterministic=True)


def test_deterministic_mode_does_not_depend_on_what_was_cached() -> None:
    """A response that was decoded and one that is prefilled again give the same next tokens."""
    engine = HFEngine(TinyModel("llama"), 12, 24, max_num_seqs=3, deterministic=True)
    u, prompt = np.random.default_rng(0).random(24), (5, 6, 7, 8)
    x = run(engine, {0: (prompt, Extend((0,), (), 0, 20, stop_tokens=()), u)})[0]
    more = Extend((1,), x.tokens, 15, 24, stop_tokens=())
    cached = run(engine, {0: (prompt, more, u)})[0]
    engine = HFEngine(TinyModel("llama"), 12, 24, max_num_seqs=3, deterministic=True)
    fresh = run(engine, {0: (prompt, more, u)})[0]
    assert (cached.prefilled, fresh.prefilled) == (0, 18)
    cached, fresh = (replace(draw, prefilled=0, passes=0) for draw in (cached, fresh))
    assert cached == fresh


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_deterministic_mode_reports_the_same_likeliest_tokens_in_any_batch(
    dtype: torch.dtype,
) -> None:
    """In bfloat16 many tokens are equally likely."""
    u, engines = np.random.default_rng(0).random(24), []
    for width in (5, 1):
        engines.append(HFEngine(TinyModel("llama", dtype), 12, 24, width, deterministic=True))
    requests = {
        c: ((5, 6, c), Extend((0,), (), 0, 24, stop_tokens=(), top_logprobs=top), u)
        for c, top in enumerate((9, 0, 200, 30, 1))
    }
    together = run(engines[0], requests)
    for chain, request in requests.items():
        alone = run(engines[1], {chain: request})[chain]
        assert replace(alone, prefilled=0) == replace(together[chain], prefilled=0)


def test_memory_is_planned_from_what_is_free(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = models("llama")[0].config
    chain = 2 * kv_cache.row_bytes(config, 36, torch.float32)
    monkeypatch.setattr(kv_cache, "free_bytes", lambda _: int(3.5 * chain / kv_cache.SHARE))
    assert HFEngine(TinyModel("llama"), 12, 24, max_num_seqs=32).max_num_seqs == 3
    assert "engine.max_num_seqs=32 does not fit memory; using 3" in capsys.readouterr().err
    monkeypatch.setattr(kv_cache, "free_bytes", lambda _: chain // 2)
    with pytest.raises(UserError, match=r"36 tokens needs .* set a smaller max_tokens"):
        HFEngine(TinyModel("llama"), 12, 24, max_num_seqs=32)
