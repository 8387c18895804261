"""vLLM's side of `make bench`, run by the Python of vLLM's own environment.

For every line on stdin, `generate` (vLLM as it comes) or `engine` (our engine over it), it decodes once
and prints `rate <tokens/s>`.
"""

import sys
import time

from powerbench.bench.decoding import TAU, decode
from powerbench.engines.vllm import VLLMEngine
from powerbench.models import HubModel

WIDTH = 32


def main() -> None:
    location, dtype, length, *ids = sys.argv[1:]
    tokens, prompt = int(length), tuple(map(int, ids))
    engine = VLLMEngine(HubModel("bench", location, dtype=dtype), len(prompt), tokens, WIDTH)

    def generate() -> float:
        """Tokens/s with vLLM's own sampler."""
        from vllm import SamplingParams
        from vllm.inputs import tokens_input

        params = SamplingParams(
            temperature=TAU, max_tokens=tokens, ignore_eos=True, detokenize=False
        )
        began = time.perf_counter()
        for i in range(WIDTH):
            engine.llm.add_request(f"{began}-{i}", tokens_input(list(prompt)), params)
        while engine.llm.has_unfinished_requests():
            engine.llm.step()
        return WIDTH * tokens / (time.perf_counter() - began)

    for line in sys.stdin:
        rate = generate() if line.strip() == "generate" else decode(engine, prompt, tokens)
        print(f"rate {rate}", flush=True)


if __name__ == "__main__":
    main()
