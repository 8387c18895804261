"""Where the time of one decoding step goes, on the CPU: timers around the parts of an engine."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

from torch import nn

from powerbench.bench.decoding import PROMPT, TAU
from powerbench.engines.hf import HFEngine, decode_cpu, model_runner, slots
from powerbench.engines.hf.projections import PackedLinear
from powerbench.models import HubModel
from powerbench.rng import Stream
from powerbench.types import Extend

STEP_PARTS = ("projections", "attention", "sampling", "rest of the model", "bookkeeping")


def budget(model: HubModel, width: int, tokens: int) -> dict[str, float]:
    """Milliseconds per decoding step, by part: a full batch, from the end of the prompt on."""
    prompt = model.tokenizer().encode(PROMPT)
    engine = HFEngine(model, len(prompt), tokens, width, draft=0)
    request = Extend(("bench",), response=(), keep=0, until=tokens, stop_tokens=(), tau=TAU)
    for chain in range(width):
        uniforms = Stream(0, "bench", "", chain).uniforms(request.key, tokens)
        engine.submit(chain, prompt, request, uniforms)
    while engine.scheduler.waiting or engine.scheduler.prefilling:
        engine.step()
    spent: dict[str, float] = defaultdict(float)
    with ExitStack() as stack:
        for owner, name, part in (
            (PackedLinear, "forward", "projections"),
            (PackedLinear, "silu", "projections"),
            (PackedLinear, "times", "projections"),
            (nn.Linear, "forward", "projections"),
            (decode_cpu.DecodeCPU, "attend", "attention"),
            (model_runner, "draw", "sampling"),
            (slots.Slots, "advance", "sampling"),
            (model_runner.ModelRunner, "_run", "model"),
        ):
            stack.enter_context(_timed(owner, name, spent, part))
        steps = 0
        began = time.perf_counter()
        while engine.scheduler.decoding:
            engine.step()
            steps += 1
        whole = time.perf_counter() - began
    spent["rest of the model"] = spent["model"] - spent["projections"] - spent["attention"]
    spent["bookkeeping"] = whole - spent["model"] - spent["sampling"]
    return {part: 1e3 * spent[part] / steps for part in STEP_PARTS}


@contextmanager
def _timed(owner: Any, name: str, spent: dict[str, float], part: str) -> Iterator[None]:
    inner: Callable[..., Any] = getattr(owner, name)

    def timed(*arguments: Any, **options: Any) -> Any:
        began = time.perf_counter()
        try:
            return inner(*arguments, **options)
        finally:
            spent[part] += time.perf_counter() - began

    with patch.object(owner, name, timed):
        yield
