"""The hf engine on CUDA: graphs, varlen attention and device-side stops, against a plain forward pass.

Each test runs as if there were a GPU (`as_cuda`), and on one for real where it is asked for.

Run: pytest tests/engines/test_cuda.py, or make test-cuda
"""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from histories import Histories
from tiny import CONFIGS, SWITCH, TinyModel, plain_logp, run

from powerbench.engines.hf import HFEngine, kv_cache
from powerbench.engines.hf.model_runner import ModelRunner
from powerbench.engines.hf.slots import Slots
from powerbench.engines.sampling import Drawn
from powerbench.errors import UserError
from powerbench.types import Extend, FinishReason

pytestmark = pytest.mark.usefixtures("cuda")

EXTEND = Extend(("draw",), response=(), keep=0, until=30, stop_tokens=(), tau=0.5)


def engine(
    name: str, dtype: torch.dtype = torch.float32, width: int = 8, draft: int | str = 0
) -> HFEngine:
    model = TinyModel(name, dtype)
    return HFEngine(model, 40, 40, width, max_prefill_tokens=16, device="cuda", draft=draft)


@pytest.mark.parametrize("name", [name for name in CONFIGS if name != "phi3-longrope"])
@pytest.mark.parametrize(
    ("dtype", "off"), [(torch.float32, 1e-3), (torch.bfloat16, 0.3)], ids=["fp32", "bf16"]
)
def test_log_probabilities_are_those_of_a_plain_pass(
    name: str, dtype: torch.dtype, off: float, cuda: str
) -> None:
    """float32 attends by SDPA, bfloat16 by the kernel for different lengths; both in graphs."""
    subject = engine(name, dtype)
    assert subject.runner.varlen == (dtype == torch.bfloat16) or cuda == "cuda"
    prompts = {c: tuple(range(1 + c, 4 + 3 * c)) for c in range(6)}
    u = np.random.default_rng(0).random(40)
    draws = run(subject, {c: (p, EXTEND, u) for c, p in prompts.items()})
    assert subject.runner.recorder.graphs
    for chain, prompt in prompts.items():
        x = prompt + draws[chain].tokens
        rows = plain_logp(name, x)[len(prompt) - 1 : -1]
        expected = rows[range(len(rows)), draws[chain].tokens]
        assert np.abs(expected - draws[chain].logp).max() < off


@pytest.mark.parametrize("name", ["qwen2", "phi3-window"])
def test_pages_are_read_without_the_kernel_too(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompts in chunks, and a recorded step; the kernel switched off while chains are at work."""
    subject, u = engine(name, torch.bfloat16), np.random.default_rng(0).random(40)
    prompts = {c: tuple(range(1 + c, 4 + 6 * c)) for c in range(6)}
    for chain, prompt in prompts.items():
        subject.submit(chain, prompt, EXTEND, u)
    subject.step()
    subject.runner.varlen = False
    monkeypatch.setattr(torch.nn.attention.varlen, "varlen_attn", None)
    draws = run(subject, {6: ((3, 1, 4), EXTEND, u)})
    while len(draws) < 7:
        draws |= {each.chain: each.draw for each in subject.step()}
    assert subject.runner.recorder.graphs
    for chain, prompt in prompts.items():
        x = prompt + draws[chain].tokens
        rows = plain_logp(name, x)[len(prompt) - 1 : -1]
        assert np.abs(rows[range(30), draws[chain].tokens] - draws[chain].logp).max() < 0.3


def test_forks_and_rollbacks_are_exact() -> None:
    subject, u = engine("llama"), np.random.default_rng(0).random(40)
    prompt = (5, 6, 7, 8)
    x = run(subject, {0: (prompt, EXTEND, u)})[0].tokens
    for cut in (5, 20, 10, 25):
        request = replace(EXTEND, key=(cut,), response=x, keep=cut)
        drawn = run(subject, {0: (prompt, request, u[::-1].copy())})[0]
        assert drawn.prefilled == 0
        whole = prompt + x[:cut] + drawn.tokens
        rows = plain_logp("llama", whole)[len(prompt) + cut - 1 : -1]
        expected = rows[range(len(rows)), drawn.tokens]
        assert np.abs(expected - drawn.logp).max() < 1e-3


@pytest.mark.parametrize("name", ["llama", "phi3-window"])
@pytest.mark.parametrize(
    ("dtype", "off"), [(torch.float32, 1e-3), (torch.bfloat16, 0.4)], ids=["fp32", "bf16"]
)
@pytest.mark.parametrize(("width", "look"), [(3, 1), (8, 8)])
def test_exact_after_random_histories(
    name: str, dtype: torch.dtype, off: float, width: int, look: int
) -> None:
    """As on the CPU (see test_hf.py), with 8 tokens between two looks at what is over; bfloat16 in pages."""
    model = TinyModel(name, dtype)
    subject = HFEngine(
        model, 12, 24, width, max_prefill_tokens=7, steps_per_sync=look, device="cuda"
    )
    histories = Histories(name, subject, seed=width + look, off=off)
    histories.play(100)
    assert histories.withdrawn and subject.runner.recorder.graphs


def test_rows_need_not_be_the_first_ones() -> None:
    """Longrope and restricted supports go without graphs: some slots of many, with two sets of factors."""
    subject, u = engine("phi3-longrope"), np.random.default_rng(0).random(40)
    request = replace(EXTEND, until=16)
    prompts = {0: (1, 2, 3), 1: tuple(range(40)), 2: (4, 5), 3: tuple(range(30))}
    subject.max_tokens = 16
    draws = run(subject, {c: (p, request, u) for c, p in prompts.items()})
    for chain, prompt in prompts.items():
        x = prompt + draws[chain].tokens
        pad = SWITCH + 1 if len(prompt) + 16 > SWITCH else 0
        rows = plain_logp("phi3-longrope", x, pad_to=pad)[len(prompt) - 1 : -1]
        assert np.abs(rows[range(16), draws[chain].tokens] - draws[chain].logp).max() < 1e-3
    subject = engine("llama")
    free = run(subject, {c: ((7, c), EXTEND, u) for c in range(3)})
    few = replace(EXTEND, key=("few",), response=free[2].tokens, keep=20, support=(2, 7, 9))
    drawn = run(subject, {2: ((7, 2), few, u)})[2]
    x = (7, 2, *free[2].tokens[:20], *drawn.tokens)
    rows = plain_logp("llama", x)[21:-1]
    assert np.abs(rows[range(10), drawn.tokens] - drawn.logp).max() < 1e-3


def test_stops_and_floors_are_found_on_the_device() -> None:
    subject, u = engine("llama"), np.random.default_rng(3).random(40)
    request = replace(EXTEND, tau=0.25, alpha=4.0)
    free = run(subject, {0: ((3, 1, 4), request, u)})[0]
    stop = free.tokens[4]
    stopped = run(subject, {1: ((3, 1, 4), replace(request, stop_tokens=(stop,)), u)})[1]
    assert stopped.finish_reason is FinishReason.STOP
    assert stopped.tokens == free.tokens[: free.tokens.index(stop) + 1]
    weights = np.cumsum(4 * np.array(free.logp) - np.array(free.logq))
    floor = (weights[4] + weights[5]) / 2
    fallen = run(subject, {2: ((3, 1, 4), replace(request, floor=floor), u)})[2]
    assert fallen.finish_reason is FinishReason.FLOOR
    assert fallen.tokens == free.tokens[: int(np.argmax(weights < floor)) + 1]


def test_no_more_steps_are_made_than_tokens_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    subject, made, decode = engine("llama"), [], ModelRunner.decode

    def counted(runner: ModelRunner, requests: Any, long: bool, steps: int, **options: Any) -> None:
        made.append(steps)
        decode(runner, requests, long, steps, **options)

    monkeypatch.setattr(ModelRunner, "decode", counted)
    u = np.random.default_rng(0).random(40)
    lengths = {0: 1, 1: 3}
    draws = run(
        subject, {c: ((5, 6, 7 + c), replace(EXTEND, until=n), u) for c, n in lengths.items()}
    )
    assert {chain: len(draw.tokens) for chain, draw in draws.items()} == lengths
    assert sum(made) == 3 < subject.steps_per_sync


def test_graphs_survive_a_cache_that_grows() -> None:
    subject, u = engine("llama"), np.random.default_rng(1).random(40)
    run(subject, {0: ((1, 2), EXTEND, u)})
    subject.withdraw(0)  # the next one takes the same slot, and the same graph if it were kept
    prompt = tuple(range(200))
    drawn = run(subject, {1: (prompt, EXTEND, u)})[1]
    rows = plain_logp("llama", prompt + drawn.tokens)[len(prompt) - 1 : -1]
    assert np.abs(rows[range(len(rows)), drawn.tokens] - drawn.logp).max() < 1e-3


def test_graphs_report_the_likeliest_tokens_of_every_request() -> None:
    """Those recorded before a request asked for more are void: what they write to has moved."""
    subject, u = engine("llama"), np.random.default_rng(1).random(40)
    for chain, top in enumerate((0, 3, 0, 20, 5)):
        both = {
            2 * chain: ((1, 2 + chain), replace(EXTEND, top_logprobs=top), u),
            2 * chain + 1: ((5, 6, 7), EXTEND, u),
        }
        draws = run(subject, both)
        assert draws[2 * chain + 1].top_logprobs == ()
        drawn = draws[2 * chain]
        rows = plain_logp("llama", (1, 2 + chain, *drawn.tokens))[1:-1]
        assert np.abs(rows[range(len(rows)), drawn.tokens] - drawn.logp).max() < 1e-3
        for row, ranked in zip(rows, drawn.top_logprobs, strict=top > 0):
            expected = np.sort(row)[::-1][:top]
            assert np.abs(expected - ranked.logp).max() < 1e-3
            assert np.abs(row[list(ranked.tokens)] - ranked.logp).max() < 1e-3
        for each in both:
            subject.withdraw(each)


def test_short_longrope_chains_are_recorded_beside_what_a_long_one_left() -> None:
    """Idle slots keep positions, and the longest position of a call decides the factors of all."""
    subject, u = engine("phi3-longrope"), np.random.default_rng(0).random(40)
    subject.max_tokens = 16
    request = replace(EXTEND, until=16)
    run(subject, {c: (tuple(range(40)), request, u) for c in range(8)})
    for chain in range(1, 8):
        subject.withdraw(chain)
    assert not subject.runner.recorder.graphs  # the long factors are not recorded
    prompts = {c: tuple(range(c, 3 + 2 * c)) for c in range(1, 6)}
    draws = run(subject, {c: (p, request, u) for c, p in prompts.items()})
    assert subject.runner.recorder.graphs
    assert max(subject.slots.position.tolist()) > SWITCH
    for chain, prompt in prompts.items():
        rows = plain_logp("phi3-longrope", prompt + draws[chain].tokens)[len(prompt) - 1 : -1]
        assert np.abs(rows[range(16), draws[chain].tokens] - draws[chain].logp).max() < 1e-3


def test_short_and_long_longrope_chains_at_work_together_are_not_recorded() -> None:
    """A step of the first slots would take in all that are active, with one set of factors."""
    subject = HFEngine(TinyModel("phi3-longrope"), 40, 16, 4, max_prefill_tokens=128, device="cuda")
    request, u = replace(EXTEND, until=16), np.random.default_rng(0).random(40)
    prompts = {0: (1, 2, 3), 1: tuple(range(40)), 2: (4, 5), 3: tuple(range(30))}
    draws = run(subject, {c: (p, request, u) for c, p in prompts.items()})
    for chain, prompt in prompts.items():
        pad = SWITCH + 1 if len(prompt) + 16 > SWITCH else 0
        x = prompt + draws[chain].tokens
        rows = plain_logp("phi3-longrope", x, pad_to=pad)[len(prompt) - 1 : -1]
        assert np.abs(rows[range(16), draws[chain].tokens] - draws[chain].logp).max() < 1e-3


def break_recording(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step does what no recording allows."""
    advance = Slots.advance

    def waiting(slots: Slots, rows: torch.Tensor, drawn: Drawn) -> None:
        if torch.cuda.is_current_stream_capturing():
            torch.cuda.synchronize()
        advance(slots, rows, drawn)

    monkeypatch.setattr(Slots, "advance", waiting)


def test_where_recording_fails_decoding_goes_on_step_by_step_and_says_so_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    u, before = np.random.default_rng(0).random(40), torch.cuda.current_stream()
    requests = {c: ((3, 1, 4 + c), EXTEND, u) for c in range(5)}
    expected = run(engine("llama"), requests)
    assert capsys.readouterr().err == ""
    break_recording(monkeypatch)
    subject = engine("llama")
    draws = run(subject, requests)
    run(subject, {5: ((3, 1), EXTEND, u)})
    assert torch.cuda.current_stream() == before  # not that of the recording
    assert not subject.runner.graphs and not subject.runner.recorder.graphs
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "decoding goes on step by step" in said
    for chain, draw in expected.items():
        assert draws[chain].tokens == draw.tokens
        assert draws[chain].logp == pytest.approx(draw.logp, abs=1e-4)


def test_graphs_are_never_or_always_recorded_where_that_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    u, model = np.random.default_rng(0).random(40), TinyModel("llama")
    subject = HFEngine(model, 40, 40, 2, device="cuda", graphs=False, draft=0)
    run(subject, {0: ((3, 1, 4), EXTEND, u)})
    assert not subject.runner.recorder.graphs
    break_recording(monkeypatch)
    subject = HFEngine(model, 40, 40, 2, device="cuda", graphs=True, draft=0)
    with pytest.raises(UserError, match=r"engine\.graphs=true: a decoding step cannot be recorded"):
        run(subject, {0: ((3, 1, 4), EXTEND, u)})


def test_graphs_share_one_stream_and_one_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or they share no memory (torch.cuda.graph)."""
    graph, seen = torch.cuda.graph, []

    def recording(*given: Any, pool: object, stream: object) -> object:
        seen.append((pool, stream))
        return graph(*given, pool=pool, stream=stream)

    monkeypatch.setattr(torch.cuda, "graph", recording)
    subject, u = engine("llama"), np.random.default_rng(0).random(40)
    for chains in (1, 3, 8):
        run(subject, {c: ((3, 1, 4 + c), EXTEND, u) for c in range(chains)})
        for chain in range(chains):
            subject.withdraw(chain)
    assert len(seen) == len(subject.runner.recorder.graphs) == 3
    assert seen == [seen[0]] * 3


def test_a_graph_that_does_nothing_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda.CUDAGraph, "replay", lambda graph: None)
    u = np.random.default_rng(0).random(40)
    with pytest.raises(UserError, match=r"no response has grown .* set engine\.graphs=false"):
        run(engine("llama"), {c: ((3, 1, 4 + c), EXTEND, u) for c in range(3)})


def test_deterministic_mode_does_not_depend_on_the_batch() -> None:
    u = {c: np.random.default_rng(c).random(40) for c in range(9)}
    wide = HFEngine(TinyModel("llama"), 40, 40, 9, device="cuda", deterministic=True)
    narrow = HFEngine(TinyModel("llama"), 40, 40, 2, device="cuda", deterministic=True)
    requests = {c: ((3, 1, 4 + c), EXTEND, u[c]) for c in u}
    together = run(wide, requests)
    for chain, request in requests.items():
        alone = run(narrow, {chain: request})[chain]
        narrow.withdraw(chain)
        left = {"prefilled": 0, "passes": 0, "rows": 0}
        assert replace(alone, **left) == replace(together[chain], **left)


def test_a_chain_that_fits_nowhere_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kv_cache, "free_bytes", lambda _: 1000)
    with pytest.raises(UserError, match="are free on cuda"):
        engine("llama")
