"""Generates the missing samples of a run."""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import closing

from rich.console import Console

from powerbench.chains.runner import AtBlockEnd, Completed, Meter, run_chains
from powerbench.engines.base import Engine
from powerbench.errors import require
from powerbench.run.plan import Plan
from powerbench.run.progress import board
from powerbench.run.scoring import Scoring
from powerbench.run.tracking import Tracker
from powerbench.store.writing import SampleWriter
from powerbench.types import Outcome, Sample, SampleKey


def generate(
    plan: Plan, engine: Engine, keys: Sequence[SampleKey], writing: SampleWriter, meter: Meter
) -> Iterator[Sample | None]:
    """Make the samples of these keys, unfinished ones from where they stand; yield each after it is
    stored, None in between."""
    starts = plan.starts(keys, writing.resume)
    with closing(run_chains(starts, engine, meter, plan.speculate)) as events:  # type: ignore[type-var]
        for event in events:
            writing.progress.decoded, writing.progress.running = meter.decoded, meter.under_way
            match event:
                case Completed():
                    sample = _sample(plan, event)
                    writing.write(sample)
                    yield sample
                case AtBlockEnd() if plan.checkpoints:
                    writing.save(event.key, event.checkpoint)
                case _:
                    yield None


def _sample(plan: Plan, done: Completed) -> Sample:
    outcome: Outcome = done.outcome
    require(
        math.isfinite(outcome.logp) and math.isfinite(outcome.entropy),
        f"{plan.model.name} gave a log-likelihood of {outcome.logp} and an entropy of {outcome.entropy} for "
        f"problem {done.key.problem!r}: set model.dtype=float32, or see that its weights are whole",
    )
    return Sample(
        problem=done.key.problem,
        replicate=done.key.replicate,
        text=plan.tokenizer.decode(outcome.tokens),
        tokens=outcome.tokens,
        logp=outcome.logp,
        entropy=outcome.entropy,
        finish_reason=outcome.finish_reason,
        prompt_tokens=len(plan.prompts[done.key.problem]),
        cost=done.cost,
        steps=outcome.steps,
        rounds=outcome.rounds,
    )


LOG_EVERY = 10.0
"""Seconds between live metrics sent to the tracker."""


def _generate(
    plan: Plan,
    engine: Engine,
    keys: Sequence[SampleKey],
    writing: SampleWriter,
    tracker: Tracker,
    console: Console,
    scoring: Scoring,
) -> Iterator[Sample]:
    """Make the samples of these keys, yield each when it is stored, and show how it goes."""
    meter, logged = Meter(), time.monotonic()
    with board(console, plan.title, len(keys), meter, scoring.progress) as shown:
        for sample in generate(plan, engine, keys, writing, meter):
            shown.update(finished=sample is not None)
            if sample is not None:
                yield sample
            if time.monotonic() - logged >= LOG_EVERY:
                logged = time.monotonic()
                tracker.log(shown.metrics())
