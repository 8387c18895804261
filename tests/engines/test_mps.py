"""Apple GPUs as if: the same tokens as on the CPU, on a device that has no float64.

Run: pytest tests/engines/test_mps.py
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from as_mps import DEVICE, AppleModel, OnApple, pretend
from test_contract import PROMPT, SETTINGS
from tiny import TinyModel, models, run

from powerbench.engines.hf import HFEngine
from powerbench.engines.sampling import draw
from powerbench.models.token_logprobs import Text, score_texts
from powerbench.types import Draw, Extend, FinishReason, Tokens


@pytest.fixture(autouse=True)
def mps(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    pretend(monkeypatch)
    with OnApple():
        yield


def test_the_stand_in_refuses_what_the_device_lacks() -> None:
    here = torch.ones(3, device=DEVICE)
    with pytest.raises(TypeError, match="float64"):
        here.double()
    with pytest.raises(TypeError, match="float64"):
        torch.zeros(2, dtype=torch.float64, device=DEVICE)
    with pytest.raises(TypeError, match="float64"):
        here.sum(0, dtype=torch.float64)
    with pytest.raises(RuntimeError, match="on the CPU"):
        here + torch.ones(3)
    with pytest.raises(RuntimeError, match="int64"):
        here.long().topk(1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("vocabulary", [5, 256, 300, 5000])
@pytest.mark.parametrize("restricted", [False, True])
def test_a_draw_is_the_cpus_bit_for_bit(
    dtype: torch.dtype, vocabulary: int, restricted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("powerbench.engines.sampling.ROWS_AT_ONCE", 40)  # its products round alike
    rows, numbers = 40, torch.Generator().manual_seed(vocabulary)
    logits = (8 * torch.randn(rows, vocabulary, generator=numbers)).to(dtype)
    uniforms = torch.rand(rows, generator=numbers, dtype=torch.float64)
    uniforms[:4] = torch.tensor([0.0, 1 - 2**-53, 1 - 2**-40, 2**-60], dtype=torch.float64)
    tau = torch.tensor([0.0, 0.25, 1.0, 1.7]).repeat_interleave(rows // 4)
    top_k = torch.tensor([0] * 4 if restricted else [0, 1, 3, 5]).repeat(rows // 4)
    support = torch.rand(rows, vocabulary, generator=numbers) < 0.5
    support[:, 0] = True
    allowed = support if restricted else None
    here = draw(logits, uniforms, tau, top_k, allowed, top=4)
    moved = (x.to(DEVICE) for x in (tau, top_k))
    there = draw(
        logits.to(DEVICE),
        uniforms,
        *moved,
        None if allowed is None else allowed.to(DEVICE),
        top=4,
    )
    for cpu, apple in zip(here, there, strict=True):
        assert apple.device == DEVICE
        torch.testing.assert_close(apple.cpu(), cpu, rtol=0, atol=0)


def both(
    name: str, requests: dict[int, tuple[Tokens, Extend, np.ndarray]], deterministic: bool = False
) -> tuple[dict[int, Draw], dict[int, Draw]]:
    """The draws of the requests on the device, and on the CPU."""
    options = {"max_num_seqs": 3, "max_prefill_tokens": 16, "deterministic": deterministic}
    there = HFEngine(AppleModel(name), 40, 40, **options)  # type: ignore[arg-type]
    assert there.slots.position.device == DEVICE
    with pytest.MonkeyPatch.context() as patch:
        patch.delattr(HFEngine, "device")
        here = HFEngine(TinyModel(name), 40, 40, device="cpu", **options)  # type: ignore[arg-type]
        expected = run(here, requests)
    return run(there, requests), expected


@pytest.mark.parametrize(
    ("name", "deterministic"),
    [
        ("phi3-window", False),
        ("phi3-longrope", True),
        *(pytest.param(name, True, marks=pytest.mark.faults) for name in ("qwen2", "phi3-window")),
        *(
            pytest.param(name, False, marks=pytest.mark.faults)
            for name in ("qwen2", "phi3-longrope")
        ),
    ],
)
def test_an_engine_draws_the_same_tokens(name: str, deterministic: bool) -> None:
    numbers = np.random.default_rng(5)
    requests = {
        chain: (PROMPT[: 1 + chain % 4], replace(request, top_logprobs=3), numbers.random(64))
        for chain, request in enumerate(SETTINGS.values())
    }
    there, here = both(name, requests, deterministic)
    for chain, drawn in here.items():
        assert there[chain].tokens == drawn.tokens
        assert there[chain].logp == pytest.approx(drawn.logp, abs=1e-4)
        assert there[chain].logq == pytest.approx(drawn.logq, abs=1e-4)
        assert [top.tokens for top in there[chain].top_logprobs] == [
            top.tokens for top in drawn.top_logprobs
        ]


def test_texts_are_scored_as_on_the_cpu() -> None:
    texts = [Text(PROMPT, (6, 2, 8)), Text(PROMPT[:2], (5, 3, 5, 8, 9))]
    there = score_texts(AppleModel("qwen2").load("mps", "sdpa"), texts)
    here = score_texts(models("qwen2")[1], texts)
    for apple, cpu in zip(there, here, strict=True):
        assert apple.logp == pytest.approx(cpu.logp, abs=1e-4)
        assert apple.entropy == pytest.approx(cpu.entropy, abs=1e-4)


def test_a_floor_and_a_stop_token_end_a_response_where_they_do_on_the_cpu() -> None:
    numbers = np.random.default_rng(6)
    ask = Extend(("draw",), response=(), keep=0, until=30, stop_tokens=(), tau=0.5)
    free = both("llama", {0: (PROMPT, ask, numbers.random(64))})[1][0]
    u = np.random.default_rng(6).random(64)
    gains = np.cumsum(2.0 * np.array(free.logp) - np.array(free.logq))
    fifth = float(gains[:6].min()) + 1e-3  # not by a hair
    falls = replace(ask, alpha=2.0, floor=fifth)
    stops = replace(ask, stop_tokens=(free.tokens[4],))
    there, here = both("llama", {0: (PROMPT, falls, u), 1: (PROMPT, stops, u)})
    assert {there[0].finish_reason, there[1].finish_reason} == {
        FinishReason.FLOOR,
        FinishReason.STOP,
    }
    assert {c: (d.tokens, d.finish_reason) for c, d in there.items()} == {
        c: (d.tokens, d.finish_reason) for c, d in here.items()
    }
