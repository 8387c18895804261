"""Decoding speed of engine=vllm with random weights of some shape, run by the Python that has vLLM.

Graphs and compilation are left out (`enforce_eager`), which would take a minute: a lower bound.
"""

import argparse
from pathlib import Path

import numpy as np

from powerbench.bench.decoding import decode
from powerbench.bench.gpu import SHAPES, config_of, report
from powerbench.engines.vllm import VLLMEngine
from powerbench.models import HubModel


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m powerbench.bench.vllm_random", description=__doc__
    )
    parser.add_argument("folder", type=Path, help="where its configuration is written")
    parser.add_argument("--shape", choices=SHAPES, default="qwen2.5-7b")
    parser.add_argument("--chains", type=int, nargs="+", default=[32, 256])
    parser.add_argument("--length", type=int, default=900, help="tokens of the prompt")
    parser.add_argument("--tokens", type=int, default=64, help="tokens timed per chain")
    given = parser.parse_args()
    config = config_of(given.shape)
    config.architectures = ["Qwen2ForCausalLM"]
    config.save_pretrained(given.folder)
    model = HubModel("bench", str(given.folder), dtype="bfloat16")
    engine = VLLMEngine(
        model,
        given.length,
        given.tokens,
        max_num_seqs=max(given.chains),
        enforce_eager=True,
        options={"load_format": "dummy"},
    )
    numbers = np.random.default_rng(0)
    prompt = tuple(numbers.integers(0, config.vocab_size, given.length).tolist())
    for count in given.chains:
        engine.max_num_seqs = count
        decode(engine, prompt, given.tokens)  # the prompt is in the cache from now on
        rate = decode(engine, prompt, given.tokens)
        report({"shape": given.shape, "chains": count, "tokens_per_second": rate})


if __name__ == "__main__":
    main()
