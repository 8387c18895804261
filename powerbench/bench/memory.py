"""Peak memory of a full batch beyond the weights, against the KV cache's own size. CPU, own process."""

import argparse
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import psutil

from powerbench.bench.decoding import TAU
from powerbench.config import compose
from powerbench.engines.hf import HFEngine
from powerbench.engines.hf.kv_cache import row_bytes
from powerbench.rng import Stream
from powerbench.types import Extend, Tokens


def peak_memory(model_name: str, dtype: str, chains: int, length: int) -> dict[str, float]:
    """Chains of `length` tokens: 8 prompts of 3/4 of that, replicates of each; the last tokens decoded.

    Returns bytes: `decoding`, the peak above what was resident when the model was loaded; `proposals`,
    the same while every chain decodes a proposal beside its current response; and `cache`, what the
    keys and values of all these tokens take, once.
    """
    model = compose([f"model={model_name}", f"model.dtype={dtype}"]).build("model")
    known = 3 * length // 4
    HFEngine(model, 1, 1, 1)  # loads and packs the weights
    before = psutil.Process().memory_info().rss
    with _peak() as decoding:
        engine = HFEngine(model, known, length - known, chains, draft=0)
        first = Extend(("bench",), (), 0, length - known, stop_tokens=(), tau=TAU)
        prompts = [
            tuple(100 + (chain % 8 + 1) * i % 40_000 for i in range(known))
            for chain in range(chains)
        ]
        responses = _run(engine, prompts, [first] * chains)
    with _peak() as proposals:
        requests = [replace(first, key=("again",), response=x, keep=1) for x in responses]
        _run(engine, prompts, requests)
    config = engine.lm.config.get_text_config()
    cache = chains * row_bytes(config, length, engine.cache.dtype)
    return {
        "decoding": decoding[0] - before,
        "proposals": proposals[0] - before,
        "cache": cache,
        "decoding_over_cache": (decoding[0] - before) / cache,
        "proposals_over_cache": (proposals[0] - before) / cache,
    }


def _run(engine: HFEngine, prompts: list[Tokens], requests: list[Extend]) -> list[Tokens]:
    for chain, (prompt, request) in enumerate(zip(prompts, requests, strict=True)):
        uniforms = Stream(0, "bench", "", chain).uniforms(request.key, request.until)
        engine.submit(chain, prompt, request, uniforms)
        if request.response:  # a proposal: its chain has taken the first draw
            engine.withdraw(chain, ("bench",))
    drawn: dict[int, Tokens] = {}
    while len(drawn) < len(requests):
        drawn |= {chain: draw.tokens for chain, _, draw in engine.step()}
    return [drawn[chain] for chain in range(len(requests))]


@contextmanager
def _peak() -> Iterator[list[int]]:
    """Watches resident memory; the one entry of what it gives is the largest seen, bytes."""
    process, over, peak = psutil.Process(), threading.Event(), [0]

    def watch() -> None:
        while not over.is_set():
            peak[0] = max(peak[0], process.memory_info().rss)
            time.sleep(0.005)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peak
    finally:
        over.set()
        watcher.join()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m powerbench.bench.memory", description=__doc__)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--chains", type=int, default=64)
    parser.add_argument("--length", type=int, default=512, help="tokens, prompt and response")
    options = parser.parse_args()
    print(json.dumps(peak_memory(options.model, options.dtype, options.chains, options.length)))


if __name__ == "__main__":
    main()
