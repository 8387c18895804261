"""Decoding speed on a GPU against the roofline, with random weights: nothing is fetched. See `gpu_hour`.

The roofline is what memory allows: a step reads all weights once, and the keys and values of every chain,
at the bandwidth that a large copy reaches in the same run.
"""

import argparse
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, Phi3Config, PreTrainedModel, Qwen2Config

from powerbench.engines.hf import HFEngine
from powerbench.engines.hf.attention import ATTENTION
from powerbench.engines.hf.kv_cache import shape_of
from powerbench.types import Extend, Tokens

ROW = "row "
"""What a line of standard output with a measured row, as JSON, starts with."""

CHAINS = (1, 32, 256, 8, 64, 128)
"""In an order that has said most if time runs out."""

WARM_UP = 16
"""Tokens that each chain decodes before the clock starts: graphs are recorded, kernels chosen."""

SLACK = 16
"""Tokens that may be decoded besides, since steps come several at once."""

ORIGINAL = 4096
"""Phi-3.5's context before longrope; its factors change beyond."""

SHAPES: Mapping[str, Mapping[str, Any]] = {
    "qwen2.5-7b": {
        "vocab_size": 152064,
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "max_position_embeddings": 32768,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
    },
    "phi-3.5-mini": {
        "vocab_size": 32064,
        "hidden_size": 3072,
        "intermediate_size": 8192,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "max_position_embeddings": 131072,
        "original_max_position_embeddings": ORIGINAL,
        "rope_parameters": {
            "rope_type": "longrope",
            "rope_theta": 1e4,
            "short_factor": [1.0] * 48,
            "long_factor": [1.0 + i for i in range(48)],
            "original_max_position_embeddings": ORIGINAL,
        },
    },
    "tiny": {
        "vocab_size": 1024,
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    },
}
"""By model: of its config.json, but for Phi's factors, which speed does not depend on."""


def config_of(shape: str) -> Any:
    kind = Phi3Config if shape.startswith("phi") else Qwen2Config
    return kind(**SHAPES[shape], tie_word_embeddings=False)


@dataclass(frozen=True)
class RandomModel:
    """A model of some shape with random weights: as much of one as an engine needs."""

    name: str
    dtype: torch.dtype
    layers: int | None = None
    """Rather than the shape's own number of them."""

    def load(self, device: str, attention: str) -> PreTrainedModel:
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        config = config_of(self.name)
        config.num_hidden_layers = self.layers or config.num_hidden_layers
        with torch.device(device):
            lm = AutoModelForCausalLM.from_config(
                config, dtype=self.dtype, attn_implementation=attention
            )
        return lm.eval()


@dataclass(frozen=True)
class Loaded:
    """A model whose weights are there: engines of several widths share them."""

    name: str
    lm: PreTrainedModel

    def load(self, device: str, attention: str) -> PreTrainedModel:
        return self.lm


def bandwidth(device: torch.device) -> float:
    """Bytes/s of a large copy: read and written."""
    size = 2**32 if device.type == "cuda" else 2**26
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    seconds = []
    for _ in range(10):
        _wait(device)
        began = time.perf_counter()
        target.copy_(source)
        _wait(device)
        seconds.append(time.perf_counter() - began)
    return 2 * size / median(seconds)


def weight_bytes(lm: PreTrainedModel) -> int:
    """What a decoding step reads of the weights: all but the embedding table, each once."""
    weights = sum(p.numel() * p.element_size() for p in lm.parameters())
    embedding = lm.get_input_embeddings().weight
    return weights - embedding.numel() * embedding.element_size()


def step_bytes(lm: PreTrainedModel, chains: int, length: float) -> float:
    """What a decoding step has to read: weights, and all keys and values of `length` tokens in the mean."""
    return (
        weight_bytes(lm) + 2 * math.prod(shape_of(lm.config)) * chains * length * lm.dtype.itemsize
    )


def fill(engine: HFEngine, known: int, tokens: int) -> None:
    """Chains with prompts of their own of `known` tokens, all prefilled, about to decode `tokens` each."""
    numbers = np.random.default_rng(0)
    first = Extend(("prompt",), response=(), keep=0, until=1, stop_tokens=(), tau=0.25)
    chains = range(engine.max_num_seqs)
    prompts = [tuple(numbers.integers(0, engine.vocabulary, known).tolist()) for _ in chains]
    for chain in chains:
        engine.submit(chain, prompts[chain], first, numbers.random(1))
    drawn: dict[int, Tokens] = {}
    while len(drawn) < len(chains):
        drawn |= {done.chain: done.draw.tokens for done in engine.step()}
    for chain in chains:
        rest = Extend(("rest",), drawn[chain], keep=1, until=tokens, stop_tokens=(), tau=0.25)
        engine.submit(chain, prompts[chain], rest, numbers.random(tokens))
        engine.withdraw(chain, first.key)
    while engine.scheduler.waiting or engine.scheduler.prefilling:
        engine.step()


def decode(engine: HFEngine, tokens: int) -> tuple[float, float]:
    """Tokens/s while every chain decodes about `tokens` more, and the mean length of a chain meanwhile."""
    for _ in range(-(-WARM_UP // engine.steps_per_sync)):
        engine.step()
    _wait(engine.device)
    before = engine.slots.position.sum().item()
    began = time.perf_counter()
    for _ in range(-(-tokens // engine.steps_per_sync)):
        engine.step()
    _wait(engine.device)
    seconds = time.perf_counter() - began
    after = engine.slots.position.sum().item()
    return (after - before) / seconds, 1 + (after + before) / 2 / engine.max_num_seqs


def rows(
    shape: str, device: str, chains: Sequence[int], length: int, tokens: int
) -> Iterator[dict[str, Any]]:
    """One row for each number of chains, with graphs and without: chains of about `length` tokens each."""
    lm = RandomModel(shape, torch.bfloat16).load(device, ATTENTION)
    copied = bandwidth(lm.device)
    for count in chains:
        ways = (True, False) if lm.device.type == "cuda" else (False,)
        until = len(ways) * (WARM_UP + tokens + SLACK) + SLACK
        known = max(1, length - until // 2)
        began = time.perf_counter()
        engine = HFEngine(
            Loaded(shape, lm),  # type: ignore[arg-type]
            known,
            known
            + 2 * until,  # twice what a chain will hold: pages are planned at half of the most
            max_num_seqs=count,
            device=device,
            draft=0,  # the rate of single tokens
        )
        with torch.inference_mode():
            fill(engine, known, until)
            prepared = time.perf_counter() - began
            for graphs in ways:
                engine.runner.graphs = graphs
                rate, mean = decode(engine, tokens)
                chains_at_once = engine.max_num_seqs
                roofline = chains_at_once * copied / step_bytes(lm, chains_at_once, mean)
                yield {
                    "shape": shape,
                    "chains": engine.max_num_seqs,
                    "length": mean,
                    "graphs": graphs and engine.runner.graphs,
                    "varlen_attention": engine.runner.varlen,
                    "tokens_per_second": rate,
                    "roofline_tokens_per_second": roofline,
                    "of_roofline": rate / roofline,
                    "bandwidth": copied,
                    "seconds_to_prefill": prepared,
                }
        del engine


def report(row: Mapping[str, Any]) -> None:
    print(ROW + json.dumps(row), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m powerbench.bench.gpu", description=__doc__)
    parser.add_argument("--shape", choices=SHAPES, default="qwen2.5-7b")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--chains", type=int, nargs="+", default=list(CHAINS))
    parser.add_argument("--length", type=int, default=1000, help="tokens per chain")
    parser.add_argument("--tokens", type=int, default=64, help="tokens timed per chain")
    given = parser.parse_args()
    for row in rows(given.shape, given.device, given.chains, given.length, given.tokens):
        report(row)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


if __name__ == "__main__":
    main()
