"""Run folders as Parquet: one file a run, one row a response; together a folder that `datasets` loads."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from powerbench.errors import require
from powerbench.store import Run
from powerbench.store.records import write_atomic
from powerbench.types import Problem, Sample, SampleKey, Score

logger = logging.getLogger(__name__)

ROWS = 1000
"""Rows held in memory, and of a row group."""

STEP = pa.struct(
    [
        ("block", pa.int32()),
        ("restart", pa.int32()),
        ("current", pa.float64()),
        ("proposed", pa.float64()),
        ("decoded", pa.int32()),
        ("accepted", pa.bool_()),
    ]
)

SCORE = pa.struct(
    [
        ("verifier", pa.string()),
        ("value", pa.float64()),
        ("correct", pa.bool_()),
        ("preference", pa.float64()),
        ("answer", pa.string()),
        ("reason", pa.string()),
        ("by", pa.string()),
        ("members", pa.list_(pa.bool_())),
    ]
)

SCHEMA = pa.schema(
    [
        ("task", pa.string()),
        ("model", pa.string()),
        ("sampler", pa.string()),
        ("run", pa.string()),
        ("problem", pa.string()),
        ("replicate", pa.int32()),
        ("prompt", pa.string()),
        ("chat", pa.bool_()),
        ("gold", pa.string()),
        ("response", pa.string()),
        ("value", pa.float64()),
        ("tokens", pa.list_(pa.int32())),
        ("logp", pa.float64()),
        ("entropy", pa.float64()),
        ("finish_reason", pa.string()),
        ("prompt_tokens", pa.int32()),
        ("decoded", pa.int64()),
        ("prefilled", pa.int64()),
        ("speculated", pa.int64()),
        ("passes", pa.int64()),
        ("rows", pa.int64()),
        ("seconds", pa.float64()),
        ("finished", pa.timestamp("ms", tz="UTC")),
        ("dollars", pa.float64()),
        ("length", pa.int32()),
        ("reasoning", pa.string()),
        ("reasoning_tokens", pa.int32()),
        ("refusal", pa.string()),
        ("steps", pa.list_(STEP)),
        ("scores", pa.list_(SCORE)),
    ]
)
"""Columns. `value` is the score by the run's own verifier, null if there is none; log-likelihood and
entropy are sums over tokens, in nats; the rest is named as in `powerbench.types`."""

CARD = """
# Responses sampled with powerbench

{rows:,} responses of {runs} runs; one row a response, one file a run.

    from datasets import load_dataset
    responses = load_dataset("{folder}", split="train")

`value` is the run's own verifier's score in [0, 1] (null: none, or undecided), `scores` has those of
all; `logp` and `entropy` are sums over the response's tokens under the base model, in nats; `length` is their
number, `decoded` counts rejected proposals too, `passes` the forward passes that decoded all this. Of a model
behind an API, `tokens`, `logp`, `entropy` and `passes` are empty. The configuration and the provenance of a run
are in its file's metadata, under the key `powerbench`.
{notice}"""

GATED = """
It holds problems of GPQA, whose authors ask that they stay off the web: keep it private.
"""


def export(runs: Sequence[Run], out: Path) -> Path:
    """Write out/data/*.parquet and a dataset card that names them; return the card's path.

    Files of the same name are replaced, each when it is complete. Raises UserError for a damaged run, and
    for two of the same name.
    """
    names: dict[str, Run] = {}
    for run in runs:
        name = f"{'--'.join(run.path.resolve().parts[-3:])}.parquet"
        other = names.setdefault(name, run)
        require(
            other is run,
            f"{run.path} and {other.path} have the same name, and would be one file: export them apart",
        )
    (out / "data").mkdir(parents=True, exist_ok=True)
    total = 0
    for name, run in names.items():
        rows = _write(run, out / "data" / name)
        total += rows
        logger.info(f"{out / 'data' / name}: {rows:,} responses")
    files = sorted(f"data/{name}" for name in names)
    gated = any(run.config["task"]["name"].startswith("gpqa") for run in runs)
    head = {
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": files}]}]
    }
    card = CARD.format(rows=total, runs=len(files), folder=out, notice=GATED if gated else "")
    path = out / "README.md"
    write_atomic(path, f"---\n{yaml.safe_dump(head, sort_keys=False)}---\n{card}".encode())
    return path


def _write(run: Run, file: Path) -> int:
    config, problems = run.config, run.problems()
    scores = {name: run.scores(name) for name in run.verifiers()}
    named = {
        "task": config["task"]["name"],
        "model": config["model"]["name"],
        "sampler": config["sampler"]["name"],
        "run": run.path.resolve().name,
    }
    about = json.dumps({"config": config, "manifest": run.manifest})
    schema = SCHEMA.with_metadata({"powerbench": about})
    own = config["verifier"]["name"]
    rows = (named | _row(sample, problems[sample.problem], scores, own) for sample in run.stream())
    unfinished, count = file.with_suffix(".unfinished"), 0
    try:
        with pq.ParquetWriter(unfinished, schema, compression="zstd") as writer:
            while batch := list(islice(rows, ROWS)):
                writer.write_table(pa.Table.from_pylist(batch, schema))
                count += len(batch)
        unfinished.replace(file)
    finally:
        unfinished.unlink(missing_ok=True)
    return count


def _row(
    sample: Sample,
    problem: Problem,
    scores: Mapping[str, Mapping[SampleKey, Score]],
    verifier: str,
) -> dict[str, Any]:
    """verifier: the run's own."""
    found = {name: given[sample.key] for name, given in scores.items() if sample.key in given}
    own = found.get(verifier)
    cost, said = sample.cost, sample.reported
    return {
        "problem": sample.problem,
        "replicate": sample.replicate,
        "prompt": problem.prompt.text,
        "chat": problem.prompt.chat,
        "gold": problem.gold,
        "response": sample.text,
        "value": own.value if own else None,
        "tokens": sample.tokens,
        "logp": sample.logp,
        "entropy": sample.entropy,
        "finish_reason": sample.finish_reason.value,
        "prompt_tokens": sample.prompt_tokens,
        "decoded": cost.decoded,
        "prefilled": cost.prefilled,
        "speculated": cost.speculated,
        "passes": cost.passes,
        "rows": cost.rows,
        "seconds": cost.seconds,
        "finished": round(1000 * cost.finished),
        "dollars": cost.dollars,
        "length": sample.length,
        "reasoning": said.reasoning if said else None,
        "reasoning_tokens": said.reasoning_tokens if said else None,
        "refusal": said.refusal if said else None,
        "steps": [step._asdict() for step in sample.steps],
        "scores": [
            {"verifier": name, "value": score.value} | asdict(score)
            for name, score in found.items()
        ],
    }
