"""The check of a device at its first use: it passes where the engine is right, and finds what is put in.

Run: pytest tests/engines/test_self_check.py
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import as_cuda
import pytest
import torch
from tiny import TinyModel
from torch.nn.attention import varlen

from powerbench.engines.hf import HFEngine, remembered_check, self_check
from powerbench.engines.hf.attention_batches import AttentionInputs
from powerbench.engines.hf.decode_cpu import DecodeCPU
from powerbench.engines.hf.model_runner import ModelRunner
from powerbench.engines.hf.slots import Fed, Slots
from powerbench.engines.sampling import Drawn
from powerbench.errors import UserError

ARCHITECTURES = ["llama", "qwen2", "phi3-window", "phi3-longrope"]

Attend = Callable[[DecodeCPU, AttentionInputs], torch.Tensor]


def engine(
    name: str = "qwen2", dtype: torch.dtype = torch.float32, device: str = "cpu", **settings: Any
) -> HFEngine:
    return HFEngine(
        TinyModel(name, dtype), 150, 40, 8, max_prefill_tokens=64, device=device, **settings
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_right_engine_passes_on_the_cpu(name: str, dtype: torch.dtype) -> None:
    found = self_check.self_check(engine(name, dtype))
    assert not found["failures"]
    assert 0 < found["mean"] < 0.05
    json.dumps(found)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_right_engine_passes_with_graphs_and_pages(
    name: str, dtype: torch.dtype, cuda: str
) -> None:
    found = self_check.self_check(engine(name, dtype, "cuda"))
    assert not found["failures"]
    assert found["graphs"]
    assert found["varlen"] == (dtype == torch.bfloat16)


def test_nothing_of_it_stays_at_work() -> None:
    subject = engine()
    self_check.self_check(subject)
    assert not subject.scheduler.by_slot
    assert not subject.scheduler.waiting


# -- faults on the CPU --------------------------------------------------------------------------


def one_short(good: Attend, batch: DecodeCPU, inputs: AttentionInputs) -> torch.Tensor:
    """The last key is not seen."""
    good(batch, inputs)
    keys, values = batch.cache.layer(inputs.layer)
    before = (batch.positions - 1).clamp(min=0)
    key, value = (table[batch.rows, :, before].transpose(0, 1) for table in (keys, values))
    shorter = DecodeCPU(batch.cache, batch.rows, before, batch.offsets)
    return good(shorter, inputs._replace(key=key, value=value))


def neighbours_keys(good: Attend, batch: DecodeCPU, inputs: AttentionInputs) -> torch.Tensor:
    good(batch, inputs)
    return good(DecodeCPU(batch.cache, batch.rows + 1, batch.positions, batch.offsets), inputs)


def heads_grouped_wrongly(good: Attend, batch: DecodeCPU, inputs: AttentionInputs) -> torch.Tensor:
    return good(batch, inputs._replace(query=inputs.query.flip(0)))


def scale_forgotten(good: Attend, batch: DecodeCPU, inputs: AttentionInputs) -> torch.Tensor:
    return good(batch, inputs._replace(scaling=1.0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "fault", [one_short, neighbours_keys, heads_grouped_wrongly, scale_forgotten]
)
def test_wrong_attention_is_found(
    fault: Callable[..., torch.Tensor], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject, good = engine(dtype=dtype), DecodeCPU.attend
    monkeypatch.setattr(DecodeCPU, "attend", lambda self, inputs: fault(good, self, inputs))
    with pytest.raises(UserError, match="log p and entropy differ from a plain pass by"):
        self_check.self_check(subject)


def test_a_step_that_does_nothing_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = engine()
    monkeypatch.setattr(ModelRunner, "decode", lambda *arguments, **options: None)
    with pytest.raises(UserError, match="no response has grown"):
        self_check.self_check(subject)


def test_a_draw_that_is_not_the_inverse_cdf_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    subject, good = engine(), Slots.feed

    def late(self: Slots, *which: Any) -> Fed:
        fed = good(self, *which)
        return fed._replace(uniforms=1 - fed.uniforms)

    monkeypatch.setattr(Slots, "feed", late)
    with pytest.raises(UserError, match=r"outside: at most"):
        self_check.self_check(subject)


@pytest.mark.parametrize("flag", ["stopped", "fell"])
def test_an_end_that_is_not_seen_is_found(flag: str, monkeypatch: pytest.MonkeyPatch) -> None:
    subject, good = engine(), Slots.advance

    def blind(self: Slots, rows: torch.Tensor, drawn: Drawn) -> None:
        self.stop_tokens.fill_(-1)
        if flag == "fell":
            self.floor.fill_(-torch.inf)
        good(self, rows, drawn)

    monkeypatch.setattr(Slots, "advance", blind)
    with pytest.raises(UserError, match="ended by length, where token"):
        self_check.self_check(subject)


# -- faults of what only CUDA has ---------------------------------------------------------------


def kernel(fault: str, good: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """torch's attention over different lengths, with a fault."""

    def varlen(q: Any, k: Any, v: Any, *others: Any, **options: Any) -> torch.Tensor:
        if fault == "seqused_k one short":
            options["seqused_k"] = (options["seqused_k"] - 1).clamp(min=1)
        elif fault == "keys of a neighbouring row":
            options["block_table"] = options["block_table"].roll(1, 0)
        elif fault == "heads grouped wrongly":
            q = q.flip(1)
        else:
            options["scale"] = 1.0
        return good(q, k, v, *others, **options)

    return varlen


@pytest.mark.parametrize(
    "fault",
    [
        "seqused_k one short",
        "keys of a neighbouring row",
        "heads grouped wrongly",
        "scale forgotten",
    ],
)
def test_a_wrong_kernel_is_done_without(
    fault: str, cuda: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    subject = engine(dtype=torch.bfloat16, device="cuda")
    monkeypatch.setattr(varlen, "varlen_attn", kernel(fault, varlen.varlen_attn))
    found = self_check.self_check(subject)
    assert (found["graphs"], found["varlen"]) == (False, False)
    assert len(found["failures"]) == 2
    assert "trying without attention over different lengths" in capsys.readouterr().err


def test_graphs_that_do_nothing_are_done_without(
    cuda: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if cuda != "as_cuda":
        pytest.skip("a real graph replays")
    subject = engine(dtype=torch.bfloat16, device="cuda")
    monkeypatch.setattr(as_cuda.CUDAGraph, "replay", lambda self: None)
    found = self_check.self_check(subject)
    assert (found["graphs"], found["varlen"]) == (False, True)
    assert "no response has grown" in found["failures"][0]


def test_graphs_that_were_asked_for_are_not_given_up(
    cuda: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = engine(device="cuda", graphs=True)
    monkeypatch.setattr(Slots, "advance", lambda *arguments: None)
    with pytest.raises(UserError, match="no response has grown"):
        self_check.self_check(subject)


# -- what is remembered -------------------------------------------------------------------------


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[int]:
    """The checks that are made, not remembered."""
    monkeypatch.setenv("POWERBENCH_CACHE", str(tmp_path))
    made, good = [], self_check.check

    def check(engine: HFEngine, seed: int = 0) -> dict[str, Any]:
        made.append(seed)
        return good(engine, seed)

    monkeypatch.setattr(self_check, "check", check)
    return made


def test_a_check_is_made_once_for_an_architecture_and_dtype(made: list[int]) -> None:
    first = remembered_check.remembered_check(engine())
    assert remembered_check.remembered_check(engine()) == {**first, "remembered": True}
    assert made == [0]
    remembered_check.remembered_check(engine("llama"))
    remembered_check.remembered_check(engine(dtype=torch.bfloat16))
    assert made == [0, 0, 0]


def test_what_was_switched_off_stays_off(
    made: list[int], cuda: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if cuda == "as_cuda":
        monkeypatch.setattr(remembered_check, "device_name", lambda device: "as if")
    with monkeypatch.context() as broken:
        broken.setattr(torch.cuda.CUDAGraph, "replay", lambda self: None)
        remembered_check.remembered_check(engine(device="cuda"))
    later = engine(device="cuda")
    assert remembered_check.remembered_check(later)["failures"]
    assert made == [0, 1]
    assert not later.runner.graphs


def test_a_record_that_is_not_whole_is_made_again(made: list[int], tmp_path: Path) -> None:
    remembered_check.remembered_check(engine())
    (file,) = tmp_path.rglob("*.json")
    file.write_text('{"graphs": tr')
    remembered_check.remembered_check(engine())
    assert made == [0, 0]


def test_the_engine_asks_on_a_gpu_alone(
    made: list[int], cuda: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if cuda == "as_cuda":
        monkeypatch.setattr(remembered_check, "device_name", lambda device: "as if")
    subject = engine(device="cuda", check_device=True)
    assert subject.device_check is not None
    assert subject.device_check["graphs"]
    assert made == [0]
    assert engine(device="cuda").device_check is None
