"""Peak memory of a full batch beyond the weights, against the KV cache's own size. CPU, own process."""

import argparse
import json
import threading
import time

import psutil

from powerbench.bench.decoding import TAU
from powerbench.compose import compose
from powerbench.engines.hf import HFEngine
from powerbench.engines.hf.cache import row_bytes
from powerbench.rng import Stream
from powerbench.types import Extend


def measure(model_name: str, dtype: str, chains: int, length: int) -> dict[str, float]:
    """64 chains of 512 tokens: 8 prompts of 3/4 of that, 8 replicates each; the last tokens decoded.

    Returns bytes: `peak` above what was resident when the model was loaded, and `cache`, what the keys
    and values of all these tokens take.
    """
    model = compose([f"model={model_name}", f"model.dtype={dtype}"]).build("model")
    known = 3 * length // 4
    HFEngine(model, 1, 1, 1)  # loads and packs the weights
    process = psutil.Process()
    before = peak = process.memory_info().rss
    over = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not over.is_set():
            peak = max(peak, process.memory_info().rss)
            time.sleep(0.005)

    watcher = threading.Thread(target=watch)
    watcher.start()
    engine = HFEngine(model, known, length - known, chains)
    request = Extend(("bench",), (), 0, length - known, stops=(), tau=TAU)
    for chain in range(chains):
        prompt = tuple(100 + (chain % 8 + 1) * i % 40_000 for i in range(known))
        uniforms = Stream(0, "bench", "", chain).uniforms(request.key, request.until)
        engine.submit(chain, prompt, request, uniforms)
    left = chains
    while left:
        left -= len(engine.step())
    over.set()
    watcher.join()
    config = engine.lm.config.get_text_config()
    cache = chains * row_bytes(config, length, engine.cache.dtype)
    return {"peak": peak - before, "cache": cache, "ratio": (peak - before) / cache}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m powerbench.bench.memory", description=__doc__)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--chains", type=int, default=64)
    parser.add_argument("--length", type=int, default=512, help="tokens, prompt and response")
    options = parser.parse_args()
    print(json.dumps(measure(options.model, options.dtype, options.chains, options.length)))


if __name__ == "__main__":
    main()
