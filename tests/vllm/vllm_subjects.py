"""Tiny random models that vLLM's CPU kernels can run, and engines over them.

Importing this skips a test module where vLLM is not installed.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel, Qwen2Config

from powerbench.engines.vllm import VLLMEngine
from powerbench.models import HubModel
from powerbench.types import Tokens

# `vllm.v1`, for without vLLM this very folder would pass for a package of that name
pytest.importorskip("vllm.v1", reason="vLLM is not installed; `make test-vllm` runs these")

SHAPE = {
    **tiny.SHAPE,
    "num_attention_heads": 2,  # of size 32, the smallest that vLLM has on the CPU
    "num_key_value_heads": 1,
}
CONFIGS = {"llama": lambda: LlamaConfig(**SHAPE), "qwen2": lambda: Qwen2Config(**SHAPE)}
BLOCK_BYTES = 2 * 2 * 32 * 32 * 4
"""Keys and values of a block of 32 tokens: two layers, one head of size 32, float32."""

FOLDER = TemporaryDirectory()


@cache
def saved(name: str) -> tuple[HubModel, PreTrainedModel]:
    """A checkpoint for vLLM to load, and the library's own model with the same weights."""
    torch.manual_seed(0)
    plain = AutoModelForCausalLM.from_config(CONFIGS[name](), attn_implementation="eager")
    folder = Path(FOLDER.name) / name
    plain.save_pretrained(folder)
    return HubModel(name, str(folder), dtype="auto"), plain.float().eval()


def logp(plain: PreTrainedModel, tokens: Tokens) -> np.ndarray:
    """Next-token log-probabilities [N, V] of one plain forward pass over N tokens."""
    with torch.inference_mode():
        logits = plain(torch.tensor([tokens])).logits[0]
    return logits.log_softmax(-1).double().numpy()


def engine(
    width: int, name: str = "llama", max_prompt: int = 40, blocks: int = 256, **options: Any
) -> VLLMEngine:
    """An engine for responses of up to 40 tokens, with a KV cache of so many blocks."""
    options = {"kv_cache_memory_bytes": blocks * BLOCK_BYTES, **options}
    model = saved(name)[0]
    return VLLMEngine(
        model, max_prompt, 40, max_num_seqs=width, enforce_eager=True, options=options
    )


def held(engine: VLLMEngine) -> int:
    """How many requests the worker keeps records of."""
    count: Callable[[Any], int] = lambda worker: len(worker._processor().held)  # noqa: E731
    return engine.llm.collective_rpc(count)[0]


def subject(name: str) -> tiny.Subject:
    return tiny.Subject(
        f"vllm-{name}",
        tiny.VOCABULARY,
        lambda width: engine(width, name),
        lambda tokens: logp(saved(name)[1], tokens),
    )
