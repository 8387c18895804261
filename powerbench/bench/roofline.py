"""What a GPU can be expected to decode: a roofline of memory and arithmetic, and overheads on top of it.

A decoding step reads every weight but the embedding table once, and the keys and values of all its sequences;
it takes as long as the slower of that and its arithmetic, and then some. The overheads are estimates from
counts of kernels and copies, with CUDA graphs; none has been measured on these GPUs yet (`make gpu-hour`
measures). Prefilling is left out: a chain computes its prompt once, and goes on from what is cached.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch

from powerbench.engines.hf.cache_plan import Plan, plan_pages
from powerbench.engines.hf.kv_cache import row_bytes
from powerbench.models.flops import Size, flops


class GPU(NamedTuple):
    """Of NVIDIA's data sheets: A100 (2021), H100 and H200, all SXM. The memory is what torch reports of it."""

    memory: float
    """Bytes."""
    bandwidth: float
    """Bytes a second, at most."""
    arithmetic: float
    """Operations a second in bfloat16, dense, at most."""


GPUS: Mapping[str, GPU] = {
    "a100-40": GPU(39.4 * 2**30, 1.555e12, 312e12),
    "a100-80": GPU(79.2 * 2**30, 2.039e12, 312e12),
    "h100": GPU(79.2 * 2**30, 3.35e12, 989e12),
    "h200": GPU(139.8 * 2**30, 4.8e12, 989e12),
}

CONTEXT = 2**30
"""Bytes that CUDA, its libraries and recorded graphs take. Estimate."""

OF_BANDWIDTH, OF_ARITHMETIC = 0.85, 0.6
"""The share that kernels of this size reach. Estimates."""

PER_STEP = 1.85e-3
"""Seconds a step in which small kernels and gaps between them hold up the large ones. Estimate."""

PER_SEQUENCE = 26e-6
"""Seconds a step and row for drawing a token, and for the host's bookkeeping. Estimate."""


@dataclass(frozen=True)
class Shape:
    """A dense decoder with gated MLPs and an output matrix of its own, named as in its config.json."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    max_position_embeddings: int
    qkv_bias: bool

    @property
    def size(self) -> Size:
        """What its arithmetic depends on."""
        hidden, layers = self.hidden_size, self.num_hidden_layers
        key_width = hidden // self.num_attention_heads * self.num_key_value_heads
        attention = 2 * hidden * (hidden + key_width) + self.qkv_bias * (hidden + 2 * key_width)
        layer = attention + 3 * hidden * self.intermediate_size + 2 * hidden
        multiplied = layers * layer + hidden + hidden * self.vocab_size
        return Size(multiplied + hidden * self.vocab_size, multiplied, layers, hidden)


QWEN = Shape(152064, 3584, 18944, 28, 28, 4, 32768, qkv_bias=True)
"""https://huggingface.co/Qwen/Qwen2.5-7B/blob/main/config.json"""

QWEN_MATH = Shape(152064, 3584, 18944, 28, 28, 4, 4096, qkv_bias=True)
"""https://huggingface.co/Qwen/Qwen2.5-Math-7B/blob/main/config.json"""

PHI = Shape(32064, 3072, 8192, 32, 32, 32, 131072, qkv_bias=False)
"""https://huggingface.co/microsoft/Phi-3.5-mini-instruct/blob/main/config.json"""


def cache_plan(gpu: GPU, shape: Shape, capacity: int, dtype: torch.dtype, most: int) -> Plan:
    """How many sequences of up to `capacity` tokens the engine decodes at once, at most `most`, and in how many
    pages of cache: by the engine's own rule.

    No sequence where the memory holds not even one, or not the weights.
    """
    free = gpu.memory - CONTEXT - shape.size.parameters * dtype.itemsize
    return plan_pages(most, free, shape, capacity, dtype)


def step_seconds(
    gpu: GPU,
    shape: Shape,
    sequences: float,
    length: float,
    dtype: torch.dtype,
    rows: float = 1.0,
) -> float:
    """Seconds of one decoding step over so many sequences of `length` tokens on average.

    rows: token positions computed of each, its drafted tokens among them; its keys and values are read once.
    """
    weights = shape.size.multiplied * dtype.itemsize
    key_bytes = row_bytes(shape, 64, dtype) / 64  # of a token
    reading = (weights + sequences * length * key_bytes) / (OF_BANDWIDTH * gpu.bandwidth)
    operations = flops(shape.size, sequences * rows, sequences * rows * length)
    computing = operations / (OF_ARITHMETIC * gpu.arithmetic)
    return max(reading, computing) + PER_STEP + PER_SEQUENCE * sequences * rows
