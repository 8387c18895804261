"""How long a decoding pass takes by its number of rows: measured once a machine and model, and remembered."""

import json
import math
import time
from typing import Any

import torch
from transformers import PreTrainedModel

from powerbench.engines.drafter import PassTimes
from powerbench.engines.hf.model_runner import ModelRunner
from powerbench.engines.hf.remembered_check import file_of, identity, remember

ROWS = {"cpu": (1, 4, 16, 64), "mps": (1, 4, 16, 64), "cuda": (1, 16, 64, 256)}

REPEATS = 3
"""The fastest counts: what slows a pass down is not its rows."""

ENOUGH = 2.0
"""Seconds after which a number of rows is not measured again."""


def pass_times(runner: ModelRunner, lm: PreTrainedModel) -> PassTimes:
    """Seconds of passes of some numbers of rows. No request may be at work: idle slots are computed."""
    file = file_of(
        "passes",
        identity(lm, runner.device)
        | {
            "slots": runner.slots.max_num_seqs,
            "drafts": runner.slots.most_drafted,
            "threads": torch.get_num_threads(),
            "deterministic": runner.deterministic,
            "graphs": runner.graphs,
            "varlen": runner.varlen,
        },
    )
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        return PassTimes(tuple(found["rows"]), tuple(found["seconds"]))
    except (OSError, ValueError, KeyError, TypeError):  # none yet, or not whole: measured
        found = _measure(runner)
        remember(file, found)
        return PassTimes(tuple(found["rows"]), tuple(found["seconds"]))


@torch.inference_mode()
def _measure(runner: ModelRunner) -> dict[str, Any]:
    """Rows of a pass, ascending, and seconds."""
    slots, most = runner.slots.max_num_seqs, 1 + runner.slots.most_drafted
    shapes = [(min(rows, slots), min(-(-rows // slots), most)) for rows in ROWS[runner.device.type]]
    times = {some * width: _fastest(runner, some, width) for some, width in shapes}
    return {"rows": [*times], "seconds": [*times.values()]}


def _fastest(runner: ModelRunner, slots: int, width: int) -> float:
    best, began = math.inf, time.perf_counter()
    for attempt in range(1 + REPEATS):
        start = time.perf_counter()
        runner.idle_pass(slots, width)
        now = time.perf_counter()
        if attempt:  # the first one allocates
            best = min(best, now - start)
        if attempt and now - began > ENOUGH:
            break
    return best
