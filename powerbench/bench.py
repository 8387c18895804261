"""`make bench`: decoding speed of the hf engine, as a ratio to the library's own `generate`.

The baseline is `generate` as the official code calls it: one chain at a time, keeping the scores and
the logits of every step. Both decode the same number of tokens per chain, with the same model and dtype,
in turn, within one run; the ratio is the median over pairs.
"""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import torch
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.utils import logging

from powerbench.compose import compose
from powerbench.engines.hf import HFEngine
from powerbench.models import HubModel
from powerbench.provenance import provenance
from powerbench.rng import Stream
from powerbench.types import Extend, Prompt, Tokens

PROMPT = Prompt("Natalia has 48 clips. She gives away half of them. How many are left, and why?")
TAU = 0.25


@dataclass(frozen=True)
class Timing:
    """One way of decoding: tokens/s in each repeat, and the ratio to the baseline of the same repeat."""

    name: str
    tokens_per_second: Sequence[float]
    ratio: float


def library(lm: PreTrainedModel, prompt: Tokens, tokens: int) -> float:
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


def engine(hf: HFEngine, prompt: Tokens, tokens: int) -> float:
    """Tokens/s of `width` chains through the hf engine, prompts included."""
    request = Extend(("bench",), response=(), keep=0, until=tokens, stops=(), tau=TAU)
    began, left = time.perf_counter(), hf.width
    for chain in range(hf.width):
        stream = Stream(0, "bench", "", chain)
        hf.submit(chain, prompt, request, stream.uniforms(request.key, tokens))
    while left:
        left -= len(hf.step())
    seconds = time.perf_counter() - began
    for chain in range(hf.width):
        hf.withdraw(chain)
    return hf.width * tokens / seconds


def measure(model: HubModel, widths: Sequence[int], tokens: int, repeats: int) -> list[Timing]:
    """Time the baseline and the engine at each width in turn, `repeats` times, after a warm-up."""
    prompt = model.codec().encode(PROMPT)
    engines = {width: HFEngine(model, len(prompt), tokens, width) for width in widths}
    lm = next(iter(engines.values())).lm
    plain = AutoModelForCausalLM.from_pretrained(
        model.location, revision=model.revision, dtype=lm.dtype
    )
    plain.to(lm.device).eval()
    library(plain, prompt, 4)
    rows: list[list[float]] = []
    for hf in engines.values():
        engine(hf, prompt, 4)
    for _ in range(repeats):
        row = [library(plain, prompt, tokens)]
        row += [engine(hf, prompt, tokens) for hf in engines.values()]
        rows.append(row)
    names = ["generate, 1 chain", *(f"hf engine, {w} chain{'s' * (w > 1)}" for w in widths)]
    return [
        Timing(name, [row[i] for row in rows], median(row[i] / row[0] for row in rows))
        for i, name in enumerate(names)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m powerbench.bench", description=__doc__)
    parser.add_argument("--model", default="smollm2-135m", help="a name in conf/model")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--widths", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--tokens", type=int, default=64, help="tokens decoded per chain")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("runs/bench/latest.json"))
    options = parser.parse_args()
    logging.disable_progress_bar()
    chosen = compose([f"model={options.model}", f"model.dtype={options.dtype}"])
    timings = measure(chosen.build("model"), options.widths, options.tokens, options.repeats)
    table = Table(box=SIMPLE)
    for heading in ("", "tokens/s", "x generate"):
        table.add_column(heading, justify="right" if heading else "left")
    for timing in timings:
        speed = f"{median(timing.tokens_per_second):.0f}"
        table.add_row(timing.name, speed, f"{timing.ratio:.1f}")
    print(
        f"{options.model}, {options.dtype}, {options.tokens} tokens per chain, "
        f"{torch.get_num_threads()} threads; medians of {options.repeats} repeats"
    )
    Console().print(table)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    record = {
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        "settings": {k: v for k, v in vars(options).items() if k != "out"},
        "timings": [asdict(timing) for timing in timings],
        "provenance": provenance(),
    }
    options.out.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
