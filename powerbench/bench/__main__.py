"""`make bench`: one run, one table. See `powerbench.bench`."""

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from transformers.utils import logging

from powerbench.bench import agreement, checkpointing, decoding, drafting, operators, savings
from powerbench.bench.budget import STEP_PARTS, budget
from powerbench.config import compose
from powerbench.errors import UserError
from powerbench.models import HubModel
from powerbench.store.provenance import provenance

SPECULATE = 8


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m powerbench.bench", description=__doc__)
    parser.add_argument("--model", default="smollm2-135m", help="a name in conf/model")
    parser.add_argument("--id", help="a folder or .gguf that stands for that of the hub")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=[*PARTS])
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--widths", type=int, nargs="+", default=[1, 8, 32, 64])
    parser.add_argument("--tokens", type=int, default=64, help="tokens decoded per chain")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--alone", type=int, default=3, help="chains timed one by one")
    parser.add_argument("--draft-chains", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--draft-tokens", type=int, default=80, help="of a response with drafts")
    parser.add_argument(
        "--long-tokens", type=int, default=256, help="of the chains whose passes count"
    )
    parser.add_argument("--vllm", type=Path, default=Path(".venv-vllm/bin/python"))
    parser.add_argument("--out", type=Path, default=Path("runs/bench/latest.json"))
    options = parser.parse_args()
    logging.disable_progress_bar()
    console = Console(width=100)
    try:
        record = _run_parts(options, console)
    except UserError as error:
        sys.exit(f"powerbench: {error}")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    console.print(f"written to {options.out}")


def _run_parts(options: argparse.Namespace, console: Console) -> Mapping[str, Any]:
    record: dict[str, Any] = {
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        "settings": {k: str(v) for k, v in vars(options).items() if k != "out"},
        "threads": torch.get_num_threads(),
        "provenance": provenance(shlex.join(["python", "-m", "powerbench.bench", *sys.argv[1:]])),
    }
    if options.id and not {*options.parts} <= OF_ID:
        raise UserError(f"--id is for --parts {' '.join(sorted(OF_ID))}: name those of them to run")
    for part in options.parts:
        record |= PARTS[part](options, console)
    return record


def _model(options: argparse.Namespace, dtype: str) -> HubModel:
    given = [f"model.id={options.id}"] if options.id else []
    return compose([f"model={options.model}", f"model.dtype={dtype}", *given]).build("model")


def _decoding(options: argparse.Namespace, console: Console) -> Mapping[str, Any]:
    """Rates, the budget of a step, and whether samples depend on the batch."""
    vllm = options.vllm if options.vllm.exists() else None
    if vllm is None:
        console.print(f"vLLM: none at {options.vllm} (`make test-vllm` makes one)")
    record = {}
    for dtype in options.dtypes:
        model = _model(options, dtype)
        timed = decoding.time_decoding(model, options.widths, options.tokens, options.repeats, vllm)
        _print_rates(console, options, timed)
        parts = {width: budget(model, width, options.tokens) for width in options.widths}
        _print_budget(console, dtype, parts)
        changed = {
            "free": agreement.changed(model, 32, options.tokens, 1.0, deterministic=False),
            "deterministic": agreement.changed(model, 32, options.tokens, 1.0, deterministic=True),
        }
        console.print(
            f"{dtype}: of 32 samples of {options.tokens} tokens at temperature 1, batches of 4 and of 32 "
            f"decode differently: {changed['free']:.0%}; with engine.deterministic=true "
            f"{changed['deterministic']:.0%}\n"
        )
        record[dtype] = {
            "decoding": {name: list(rate.rounds) for name, rate in timed.rates.items()},
            "step_ms": parts,
            "samples_that_depend_on_the_batch": changed,
        }
    return record


def _savings(options: argparse.Namespace, console: Console) -> Mapping[str, Any]:
    """What early rejection and speculation save."""
    model = _model(options, "float32")
    saved = savings.time_savings(model, SPECULATE, options.alone)
    _print_savings(console, saved)
    return {"savings": asdict(saved)}


def _checkpoints(options: argparse.Namespace, console: Console) -> Mapping[str, Any]:
    overhead = checkpointing.time_checkpoints(options.model, options.repeats)
    console.print(
        f"checkpoints take {overhead.fraction:.2%} of the run time (8 chains, {overhead.saves} saved at the "
        f"end of a block; median of {options.repeats} runs); of {checkpointing.LENGTH} tokens and "
        f"{checkpointing.STEPS} steps {overhead.longest_ms:.1f} ms and {overhead.longest_bytes / 1024:.0f} KiB"
    )
    return {"checkpoints": asdict(overhead)}


def _memory(options: argparse.Namespace, console: Console) -> Mapping[str, Any]:
    command = [sys.executable, "-m", "powerbench.bench.memory", "--model", options.model]
    memory = json.loads(
        subprocess.check_output(command, encoding="utf-8", errors="replace").splitlines()[-1]
    )
    console.print(
        f"memory: 64 chains of 512 tokens take {memory['decoding_over_cache']:.2f} times the "
        f"size of their keys and values ({memory['cache'] / 2**20:.0f} MiB) beyond the weights; "
        f"while each decodes a proposal beside its current response, "
        f"{memory['proposals_over_cache']:.2f} times"
    )
    return {"memory": memory}


def _operators(options: argparse.Namespace, console: Console) -> Mapping[str, Any]:
    """What a step on CUDA would launch."""
    shape = "qwen2.5-7b"
    found = {
        name: operators.launches(shape, setting) for name, setting in operators.SETTINGS.items()
    }
    plain = found["plain"]
    console.print(
        f"a decoding step of {shape} on CUDA launches {plain.all} operators, {plain.layer} in each layer "
        f"and {plain.outside} beside them, and asks the device nothing"
    )
    return {"operators": {name: each._asdict() for name, each in found.items()}}


def _drafts(options: argparse.Namespace, console: Console) -> Mapping[str, Any]:
    """What drafts save of power sampling, with few chains and with many."""
    model = _model(options, "float32")
    timed = [
        drafting.time_drafting(model, chains, options.draft_tokens, options.repeats)
        for chains in options.draft_chains
    ]
    for each in timed:
        _print_drafting(console, each)
    long = drafting.long_chains(model, options.long_tokens)
    for draft, of in long.items():
        console.print(
            f"8 chains of up to {options.long_tokens} tokens, engine.draft={draft}: {of.passes_per_token:.2f} "
            f"passes per token of the responses, {of.decoded_per_token:.2f} tokens decoded, "
            f"{of.rows_per_decoded:.2f} rows computed for each"
        )
    long_record = {draft: asdict(of) for draft, of in long.items()}
    return {"drafts": [asdict(each) for each in timed], "long": long_record}


PARTS = {
    "decoding": _decoding,
    "savings": _savings,
    "drafts": _drafts,
    "checkpoints": _checkpoints,
    "memory": _memory,
    "operators": _operators,
}
OF_ID = {"decoding", "savings", "drafts"}
"""Parts that can take another file for the model's."""


def _print_rates(
    console: Console, options: argparse.Namespace, timed: decoding.DecodingRates
) -> None:
    console.print(
        f"{options.model}, {timed.dtype}, {options.tokens} tokens per chain, "
        f"{torch.get_num_threads()} threads; medians of {options.repeats} rounds"
    )
    rates = timed.rates
    names = {
        "x generate": decoding.GENERATE,
        "of prefill": decoding.PREFILL,
        "x vLLM": "vLLM's generate, 32 sequences",
    }
    table = _table("", "tokens/s", *names)
    for rate in rates.values():
        ratios = [f"{rate.over(rates[n]):.2f}" if n in rates else "-" for n in names.values()]
        table.add_row(rate.name, f"{rate.median:.0f}", *ratios)
    console.print(table)


def _print_budget(console: Console, dtype: str, parts: Mapping[int, Mapping[str, float]]) -> None:
    table = _table(f"one step, {dtype}, ms", *(f"{width} rows" for width in parts))
    for part in STEP_PARTS:
        table.add_row(part, *(f"{each[part]:.1f}" for each in parts.values()))
    table.add_row("all", *(f"{sum(each.values()):.1f}" for each in parts.values()))
    console.print(table)


def _print_savings(console: Console, saved: savings.Savings) -> None:
    table = _table(
        f"power sampling, {savings.SAMPLER.max_tokens} tokens, 4 blocks, 10 steps",
        "s/response",
        "decoded/token",
        "wasted/token",
    )
    for timing in saved.timings:
        table.add_row(
            timing.name,
            f"{timing.seconds_per_response:.1f}",
            f"{timing.decoded_per_token:.2f}",
            f"{timing.wasted_per_token:.2f}",
        )
    console.print(table)
    console.print(
        f"early rejection decodes {saved.early_rejection_tokens:.2f} of the tokens; speculation makes a "
        f"chain alone {saved.speculation_speed:.2f} times as fast (median); same responses in all "
        f"ways: {'yes' if saved.same_chains else 'NO'}"
    )


def _print_drafting(console: Console, timed: drafting.Drafting) -> None:
    columns = {
        "passes": "passes_per_token",
        "decoded": "decoded_per_token",
        "wasted": "wasted_per_token",
        "rows": "rows_per_decoded",
    }
    many = f"{timed.chains} chain{'s' * (timed.chains > 1)} of up to {timed.max_tokens} tokens"
    table = _table(many, "s", "times as fast", *columns)
    for way in timed.rounds[0]:
        numbers = (f"{timed.of(way, name):.2f}" for name in columns.values())
        seconds = f"{timed.of(way, 'seconds'):.1f}"
        table.add_row(way, seconds, f"{timed.speed(way):.2f}", *numbers)
    console.print(table)
    console.print(
        "passes, decoded, wasted: per token of the responses; rows: per token decoded; the same responses in "
        f"all ways: {timed.same:.0%}"
    )


def _table(*headings: str) -> Table:
    table = Table(box=SIMPLE)
    for i, heading in enumerate(headings):
        table.add_column(heading, justify="right" if i else "left")
    return table


if __name__ == "__main__":
    main()
