"""The bundled language model in vLLM, against one plain float32 forward pass per response.

Run: make test-vllm
"""

import numpy as np
import pytest
import torch
from tiny import run
from transformers import AutoModelForCausalLM
from vllm_subjects import logp

from powerbench.config import compose
from powerbench.engines.toy import proposal
from powerbench.engines.vllm import VLLMEngine
from powerbench.errors import UserError
from powerbench.models import HubModel
from powerbench.types import Extend, Prompt

MODEL: HubModel = compose(["model=smollm2-135m"]).build("model")
try:
    CODEC = MODEL.tokenizer()
except UserError as error:
    pytest.skip(f"no bundled model: {error}", allow_module_level=True)

QUESTIONS = ["Name the days of the week.", "What is 17 * 23?", "Write a haiku about rain."]
SETTINGS = [
    {"tau": 1.0},
    {"tau": 0.25},
    {"tau": 0.5, "top_k": 20},
    {"tau": 1.0, "support": tuple(range(1000, 40000, 7))},
]


def test_draws_are_exact() -> None:
    memory = f"+engine.options.kv_cache_memory_bytes={2**28}"
    job = compose(["engine=vllm", "engine.max_num_seqs=16", "engine.enforce_eager=true", memory])
    engine: VLLMEngine = job.build("engine")(MODEL, max_prompt=60, max_tokens=32)
    plain = AutoModelForCausalLM.from_pretrained(MODEL.location, dtype=torch.float32)
    requests = {}
    for i, setting in enumerate(SETTINGS):
        for j, question in enumerate(QUESTIONS):
            u = np.random.default_rng((i, j)).random(32)
            prompt = CODEC.encode(Prompt(question, chat=True))
            request = Extend(("draw",), response=(), keep=0, until=32, stop_tokens=(), **setting)
            requests[len(QUESTIONS) * i + j] = (prompt, request, u)
    draws, largest = run(engine, requests), np.zeros(4)
    for chain, (prompt, request, u) in requests.items():
        draw = draws[chain]
        rows = logp(plain, prompt + draw.tokens)[len(prompt) - 1 : -1]
        for i, (row, token) in enumerate(zip(rows, draw.tokens, strict=True)):
            p, q = np.exp(row), proposal(np.exp(row), request)
            cdf = np.cumsum(q)
            outside = max(0.0, cdf[token] - q[token] - u[i], u[i] - cdf[token])
            differences = (
                draw.logp[i] - row[token],
                draw.logq[i] - np.log(q[token]),
                draw.entropy[i] + (p * row).sum(),
                outside,
            )
            largest = np.maximum(largest, np.abs(differences))
    print("log p, log q, entropy, CDF: largest differences", largest)
    assert (largest < (2e-4, 5e-4, 2e-4, 1e-4)).all()
