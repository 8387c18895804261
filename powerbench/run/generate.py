"""Generates the missing samples of a run."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing

from powerbench.chains.replies import run_text_chains
from powerbench.chains.runner import AtBlockEnd, Completed, run_chains
from powerbench.engines.base import Engine, SelfChecking, TextEngine
from powerbench.errors import require
from powerbench.run.plan import Plan
from powerbench.run.progress import progress_display
from powerbench.run.tracking import Tracker
from powerbench.store.writing import SampleWriter, add_to_manifest
from powerbench.types import Outcome, Sample, SampleKey

TRACKER_INTERVAL = 10.0
"""Seconds between live metrics sent to the tracker."""


def generate(
    plan: Plan, engine: Engine | TextEngine, keys: Sequence[SampleKey], writing: SampleWriter
) -> Iterator[Sample | None]:
    """Make the samples of these keys, unfinished ones from where they stand; yield each after it is
    stored, None in between."""
    events: Iterator[Completed | AtBlockEnd | None]
    if isinstance(engine, TextEngine):
        events = run_text_chains(plan.text_starts(keys), engine, writing.progress)
    else:
        specs = plan.starts(keys, writing.resume)
        events = run_chains(specs, engine, writing.progress, plan.speculate)
    with closing(events):  # type: ignore[type-var]
        for event in events:
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
    reply = outcome.reply
    require(
        all(x is None or math.isfinite(x) for x in (outcome.logp, outcome.entropy)),
        f"{plan.model.name} gave a log-likelihood of {outcome.logp} and an entropy of {outcome.entropy} for "
        f"problem {done.key.problem!r}: set model.dtype=float32, or see that its weights are whole",
    )
    return Sample(
        problem=done.key.problem,
        replicate=done.key.replicate,
        text=plan.text_of(outcome),
        tokens=outcome.tokens,
        logp=outcome.logp,
        entropy=outcome.entropy,
        finish_reason=outcome.finish_reason,
        prompt_tokens=reply.prompt_tokens if reply else len(plan.prompts[done.key.problem]),
        cost=done.cost,
        steps=outcome.steps,
        rounds=outcome.rounds,
        reported=reply.reported if reply else None,
        members=plan.members_of(outcome),
    )


def generate_shown(
    plan: Plan,
    keys: Sequence[SampleKey],
    writing: SampleWriter,
    tracker: Tracker,
    concurrent: Callable[[], str],
) -> Iterator[Sample]:
    """Make the samples of these keys, and yield each when it is stored; show the progress, and send it to the
    tracker.

    concurrent: as for `ProgressDisplay`.
    """
    engine = plan.text_engine or plan.engine  # loaded before the display's clock starts
    if isinstance(engine, SelfChecking) and engine.device_check is not None:
        add_to_manifest(plan.run, "device_check", engine.device_check)
    sent = time.monotonic()
    with progress_display(plan.title, writing.progress, _shown(engine, concurrent)) as display:
        for sample in generate(plan, engine, keys, writing):
            display.update()
            if sample is not None:
                yield sample
            if time.monotonic() - sent >= TRACKER_INTERVAL:
                sent = time.monotonic()
                tracker.log(display.metrics())


def _shown(engine: Engine | TextEngine, concurrent: Callable[[], str]) -> Callable[[], str]:
    """What a display says beside the progress: what was asked of an endpoint, and what goes on beside it."""
    if not isinstance(engine, TextEngine):
        return concurrent
    return lambda: ", ".join(filter(None, (engine.progress(), concurrent())))
