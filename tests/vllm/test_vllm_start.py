"""How engine=vllm starts its engines one after the other, with a stand-in for vLLM; these run without it.

Run: pytest tests/vllm/test_vllm_start.py
"""

import gc
import sys
import weakref
from dataclasses import make_dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from transformers import Phi3Config

from powerbench.engines import vllm
from powerbench.engines.vllm import VLLMEngine
from powerbench.errors import UserError
from powerbench.models import HubModel
from powerbench.types import Extend

ARGUMENTS = """
    model revision dtype skip_tokenizer_init generation_config max_model_len max_num_seqs
    tensor_parallel_size distributed_executor_backend gpu_memory_utilization enforce_eager
    enable_prefix_caching async_scheduling logits_processors worker_extension_cls
    disable_log_stats use_tqdm_on_load block_size kv_cache_memory_bytes
"""
REQUEST = Extend(("draw",), response=(), keep=0, until=4, stop_tokens=())


class Made:
    """What the stand-in has seen."""

    def __init__(self) -> None:
        self.engines: list[weakref.ref[Any]] = []
        self.arguments: list[Any] = []
        self.alive: list[int] = []
        """How many engines there were when each was made."""
        self.shut_down = 0
        self.failure: Exception | None = None


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Made:
    seen = Made()

    def shutdown() -> None:
        seen.shut_down += 1

    class LLMEngine:
        def __init__(self) -> None:
            self.engine_core = SimpleNamespace(shutdown=shutdown)
            self.model_config = SimpleNamespace(get_vocab_size=lambda: 300, max_model_len=64)

        @classmethod
        def from_engine_args(cls, arguments: Any) -> "LLMEngine":
            if seen.failure is not None:
                raise seen.failure
            seen.alive.append(sum(each() is not None for each in seen.engines))
            made = cls()
            seen.engines.append(weakref.ref(made))
            seen.arguments.append(arguments)
            return made

        def add_request(self, *what: object) -> None:
            pass

        def step(self) -> list[object]:
            raise RuntimeError("Worker failed with error\n 'CUDA out of memory.'")

    module, inputs = ModuleType("vllm"), ModuleType("vllm.inputs")
    platforms = ModuleType("vllm.platforms")
    module.LLMEngine = LLMEngine  # type: ignore[attr-defined]
    module.EngineArgs = make_dataclass("EngineArgs", [(a, Any, None) for a in ARGUMENTS.split()])  # type: ignore[attr-defined]
    module.SamplingParams = lambda **settings: settings  # type: ignore[attr-defined]
    inputs.tokens_input = list  # type: ignore[attr-defined]
    platforms.current_platform = SimpleNamespace(is_cpu=lambda: False)  # type: ignore[attr-defined]
    worker = ModuleType(vllm.WORKER)
    worker.ORDER, worker.Order = "order", dict  # type: ignore[attr-defined]
    for stand_in in (module, inputs, platforms, worker):
        monkeypatch.setitem(sys.modules, stand_in.__name__, stand_in)
    monkeypatch.setattr(vllm, "_started", {})
    return seen


def model(folder: Path, name: str = "llama", config: Any = None, **settings: Any) -> HubModel:
    (config or tiny.CONFIGS[name]()).save_pretrained(folder / name)
    return HubModel(name, str(folder / name), **settings)


def test_no_engine_is_left_when_another_is_made(made: Made, tmp_path: Path) -> None:
    """vLLM gives the memory of a model back when its engine is collected."""
    gc.collect()
    gc.disable()  # a reference that only the collector finds may live for long
    try:
        for name in ("llama", "qwen2", "llama"):
            VLLMEngine(model(tmp_path, name), 40, 40)
    finally:
        gc.enable()
    assert made.alive == [0, 0, 0]
    assert made.shut_down == 2


def test_the_tasks_of_a_model_share_one_engine_whose_worker_is_a_process(
    made: Made, tmp_path: Path
) -> None:
    ours = model(tmp_path)
    for max_prompt in (30, 45, 88):
        VLLMEngine(ours, max_prompt, 40)
    assert [each.max_model_len for each in made.arguments] == [128]
    assert made.arguments[0].distributed_executor_backend == "mp"


@pytest.mark.parametrize(
    ("needed", "started"),
    [(3888, 4096), (3500, 4096), (4096, 4096), (4097, 8192), (70_000, 131_072), (140_000, 140_000)],
)
def test_phi_keeps_its_short_factors_while_all_sequences_are_short(
    needed: int, started: int, made: Made, tmp_path: Path
) -> None:
    factors = {"short_factor": [1.0] * 8, "long_factor": [2.0] * 8, "rope_type": "longrope"}
    config = Phi3Config(
        **{**tiny.SHAPE, "max_position_embeddings": 131072},
        original_max_position_embeddings=4096,
        rope_parameters={"rope_theta": 1e4, "original_max_position_embeddings": 4096, **factors},
    )
    VLLMEngine(model(tmp_path, "phi", config), needed - 3072, 3072)
    assert made.arguments[0].max_model_len == started


def test_rounding_stops_at_an_original_length_of_any_size_and_at_the_context(
    made: Made, tmp_path: Path
) -> None:
    original = model(tmp_path, "phi3-longrope", tiny.CONFIGS["phi3-longrope"]())
    assert vllm._max_model_len(original, 20) == tiny.SWITCH == 32
    assert vllm._max_model_len(model(tmp_path), 300) == 512
    assert vllm._max_model_len(model(tmp_path), 600) == 600  # refused by vLLM, in its words


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (torch.OutOfMemoryError("CUDA out of memory.\nTried 2 GiB"), "out of memory. Tried 2 GiB"),
        (RuntimeError("NCCL error"), "engine=vllm: NCCL error"),
        (Exception("WorkerProc initialization failed"), "engine=vllm: WorkerProc initialization"),
        (ValueError("Free memory on device (62/79 GiB) is less than desired"), "set a smaller"),
        (AssertionError(), "engine=vllm: AssertionError"),
    ],
)
def test_an_engine_that_does_not_start_is_one_line(
    failure: Exception, said: str, made: Made, tmp_path: Path
) -> None:
    made.failure = failure
    with pytest.raises(UserError) as error:
        VLLMEngine(model(tmp_path), 40, 40)
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    made.failure = None
    VLLMEngine(model(tmp_path), 40, 40)
    assert made.alive == [0]


def test_a_worker_that_fails_is_one_line_and_the_next_run_has_another_engine(
    made: Made, tmp_path: Path
) -> None:
    engine = VLLMEngine(model(tmp_path), 40, 40)
    engine.submit(0, (1, 2), REQUEST, np.zeros(4))
    with pytest.raises(UserError, match=r"^engine=vllm: Worker failed with .* \[set a smaller "):
        engine.step()
    assert made.shut_down == 1
    del engine
    gc.collect()
    VLLMEngine(model(tmp_path), 40, 40)
    assert made.alive == [0, 0]
