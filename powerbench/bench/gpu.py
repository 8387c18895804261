"""`make bench-gpu`: decoding speed on CUDA against the roofline, with random weights: nothing is fetched.

The roofline is what memory allows: a step reads all weights once, and the keys and values of every chain,
at the bandwidth that a large copy reaches in the same run.
"""

import argparse
import json
import math
import shlex
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, Qwen2Config

from powerbench.engines.hf import HFEngine
from powerbench.engines.hf.kv_cache import shape_of
from powerbench.store.provenance import provenance
from powerbench.types import Extend

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
    "tiny": {
        "vocab_size": 1024,
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    },
}


@dataclass(frozen=True)
class RandomModel:
    """A Qwen2 of some shape with random weights: as much of a model as an engine needs."""

    name: str
    dtype: torch.dtype
    layers: int | None = None
    """Rather than the shape's own number of them."""

    def load(self, device: str, attention: str) -> PreTrainedModel:
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        config = Qwen2Config(**SHAPES[self.name], tie_word_embeddings=False)
        config.num_hidden_layers = self.layers or config.num_hidden_layers
        with torch.device(device):
            lm = AutoModelForCausalLM.from_config(
                config, dtype=self.dtype, attn_implementation=attention
            )
        return lm.eval()


def bandwidth(device: torch.device, size: int) -> float:
    """Bytes/s of copying `size` bytes: read and written."""
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


def step_bytes(lm: PreTrainedModel, chains: int, length: int) -> int:
    """What a decoding step has to read: every weight but the embedding table, and all keys and values."""
    weights = sum(p.numel() * p.element_size() for p in lm.parameters())
    embedding = lm.get_input_embeddings().weight
    weights -= embedding.numel() * embedding.element_size()
    return weights + 2 * math.prod(shape_of(lm.config)) * chains * length * lm.dtype.itemsize


def decode(engine: HFEngine, length: int, tokens: int, seed: int) -> float:
    """Tokens/s of a full batch whose chains grow from `length - tokens / 2` to `length + tokens / 2`."""
    known = length - tokens // 2
    numbers = np.random.default_rng(seed)
    prompt = tuple(numbers.integers(0, engine.vocabulary, known).tolist())
    request = Extend(("bench",), response=(), keep=0, until=tokens, stop_tokens=(), tau=0.25)
    for chain in range(engine.max_num_seqs):
        engine.submit(chain, prompt, request, numbers.random(tokens))
    while engine.scheduler.waiting or engine.scheduler.prefilling:
        engine.step()
    _wait(engine.device)
    done = int((engine.slots.position - known + 1).sum())
    began = time.perf_counter()
    while engine.scheduler.decoding:
        engine.step()
    seconds = time.perf_counter() - began
    for chain in range(engine.max_num_seqs):
        engine.withdraw(chain)
    return (engine.max_num_seqs * tokens - done) / seconds


def time_decoding(
    shape: str, chains: int, length: int, tokens: int, repeats: int
) -> dict[str, Any]:
    """Decode `repeats` times, after a warm-up in which graphs are recorded."""
    model = RandomModel(shape, torch.bfloat16)
    engine = HFEngine(model, length, tokens, max_num_seqs=chains)  # type: ignore[arg-type]
    decode(engine, length, tokens, seed=0)
    rates = [decode(engine, length, tokens, seed=1 + i) for i in range(repeats)]
    needed = step_bytes(model.load("meta", "sdpa"), engine.max_num_seqs, length)
    copied = bandwidth(engine.device, 2**32 if engine.device.type == "cuda" else 2**26)
    roofline = engine.max_num_seqs * copied / needed
    return {
        "chains": engine.max_num_seqs,
        "length": length,
        "tokens_per_second": rates,
        "bytes_per_step": needed,
        "bandwidth": copied,
        "roofline_tokens_per_second": roofline,
        "of_roofline": median(rates) / roofline,
        "varlen_attention": engine.runner.varlen,
        "graphs": len(engine.runner.recorder.graphs),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m powerbench.bench.gpu", description=__doc__)
    parser.add_argument("--shape", choices=SHAPES, default="qwen2.5-7b")
    parser.add_argument("--chains", type=int, nargs="+", default=[1, 32, 256])
    parser.add_argument("--length", type=int, default=1000, help="tokens per chain")
    parser.add_argument("--tokens", type=int, default=128, help="tokens decoded per chain")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("runs/bench/latest-gpu.json"))
    options = parser.parse_args()
    if not torch.cuda.is_available() and options.shape != "tiny":
        sys.exit(
            "powerbench: bench-gpu needs a CUDA device, and torch sees none; `make bench` needs none"
        )
    rows = []
    for chains in options.chains:
        row = time_decoding(options.shape, chains, options.length, options.tokens, options.repeats)
        print(
            f"{row['chains']} chains of about {options.length} tokens: "
            f"{median(row['tokens_per_second']):.0f} tokens/s, {row['of_roofline']:.0%} of the roofline",
            flush=True,
        )
        rows.append(row)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    record = {
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        "shape": options.shape,
        "rows": rows,
        "provenance": provenance(
            shlex.join(["python", "-m", "powerbench.bench.gpu", *sys.argv[1:]])
        ),
    }
    options.out.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
