"""Decoding speed: the library's `generate`, the hf engine, vLLM, and the machine's arithmetic limit.

Without drafts: every round draws the same tokens, which would be known from the first.
"""

import copy
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from powerbench.bench.rounds import Rate, interleave
from powerbench.engines.base import Engine
from powerbench.engines.hf import HFEngine
from powerbench.engines.hf.projections import pack
from powerbench.errors import UserError, require
from powerbench.models import HubModel
from powerbench.rng import Stream
from powerbench.types import Extend, Prompt, Tokens

PROMPT = Prompt("Natalia has 48 clips. She gives away half of them. How many are left, and why?")
TAU = 0.25

GENERATE = "generate, 1 chain"
PREFILL = "prefill"
"""The arithmetic limit: what the same weights do when all tokens are known, in the best of a few ways."""


@dataclass(frozen=True)
class DecodingRates:
    """All rates of one dtype."""

    dtype: str
    rates: dict[str, Rate]


def time_decoding(
    model: HubModel, widths: Sequence[int], tokens: int, repeats: int, vllm: Path | None
) -> DecodingRates:
    """In interleaved rounds: `generate`, the engine at each width, vLLM if there is one, and prefill."""
    prompt = model.tokenizer().encode(PROMPT)
    plain = AutoModelForCausalLM.from_pretrained(
        model.location, revision=model.revision, dtype=getattr(torch, model.dtype)
    ).eval()
    cases: dict[str, Callable[[], float]] = {GENERATE: lambda: generate(plain, prompt, tokens)}
    generate(plain, prompt, 4)
    for width in widths:
        engine = HFEngine(model, len(prompt), tokens, width, draft=0)
        require(
            engine.max_num_seqs == width, f"{width} chains do not fit this machine; set --widths"
        )
        cases[hf_name(width)] = _case(engine, prompt, tokens)
    fixed = HFEngine(model, len(prompt), tokens, 32, deterministic=True, draft=0)
    cases["hf engine, 32 chains, deterministic"] = _case(fixed, prompt, tokens)
    with _vllm(vllm, model, prompt, tokens) as others:
        cases |= others
        packed = copy.deepcopy(plain)
        pack(packed)
        cases[PREFILL] = lambda: max(prefill(lm, n) for lm in (plain, packed) for n in (512, 1024))
        cases[PREFILL]()
        rates = interleave(cases, repeats)
    return DecodingRates(model.dtype, rates)


def hf_name(width: int) -> str:
    return f"hf engine, {width} chain{'s' * (width > 1)}"


def generate(lm: PreTrainedModel, prompt: Tokens, tokens: int) -> float:
    """Tokens/s of one chain through `generate`, called as the official code calls it."""
    ids = torch.tensor([prompt], device=lm.device)
    began = time.perf_counter()
    with torch.inference_mode():
        out = lm.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=tokens,
            min_new_tokens=tokens,
            do_sample=True,
            temperature=TAU,
            return_dict_in_generate=True,
            output_scores=True,
            output_logits=True,
        )
    assert out.sequences.shape[1] == len(prompt) + tokens
    return tokens / (time.perf_counter() - began)


def decode(engine: Engine, prompt: Tokens, tokens: int) -> float:
    """Tokens/s of `max_num_seqs` chains through an engine, prompts included."""
    request = Extend(("bench",), response=(), keep=0, until=tokens, stop_tokens=(), tau=TAU)
    began, left = time.perf_counter(), engine.max_num_seqs
    for chain in range(engine.max_num_seqs):
        stream = Stream(0, "bench", "", chain)
        engine.submit(chain, prompt, request, stream.uniforms(request.key, tokens))
    while left:
        left -= len(engine.step())
    seconds = time.perf_counter() - began
    for chain in range(engine.max_num_seqs):
        engine.withdraw(chain)
    return engine.max_num_seqs * tokens / seconds


def prefill(lm: PreTrainedModel, tokens: int) -> float:
    """Tokens/s of one plain forward pass over known tokens, logits of all of them included."""
    ids = torch.randint(0, lm.config.vocab_size, (4, tokens // 4), device=lm.device)
    began = time.perf_counter()
    with torch.inference_mode():
        lm(ids, use_cache=False)
    return ids.numel() / (time.perf_counter() - began)


def _case(engine: Engine, prompt: Tokens, tokens: int) -> Callable[[], float]:
    decode(engine, prompt, 4)
    return lambda: decode(engine, prompt, tokens)


@contextmanager
def _vllm(
    python: Path | None, model: HubModel, prompt: Tokens, tokens: int
) -> Iterator[dict[str, Callable[[], float]]]:
    """vLLM in its own environment: a process that measures on request, and waits."""
    if python is None:
        yield {}
        return
    words = [python, "-m", "powerbench.bench.vllm", model.location, model.dtype, str(tokens)]
    command = [*map(str, words), *map(str, prompt)]
    pipe = subprocess.PIPE
    child = subprocess.Popen(
        command,
        stdin=pipe,
        stdout=pipe,
        stderr=subprocess.DEVNULL,
        encoding="utf-8",
        errors="replace",
    )

    def ask(what: str) -> float:
        assert child.stdin is not None and child.stdout is not None
        with suppress(BrokenPipeError):
            child.stdin.write(what + "\n")
            child.stdin.flush()
        for line in child.stdout:
            if line.startswith("rate "):
                return float(line.split()[1])
        raise UserError(
            f"vLLM's process ended with {child.wait()}; to see why: {' '.join(command[:6])} ... "
            f"[--vllm none does without]"
        )

    try:
        ask("generate")
        ask("engine")
        yield {
            "vLLM's generate, 32 sequences": lambda: ask("generate"),
            "vllm engine, 32 chains": lambda: ask("engine"),
        }
    finally:
        child.kill()
        child.wait()
