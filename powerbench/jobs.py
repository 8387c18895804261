"""What the commands do with a run: execute it to its end, or score it again."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import cache

from rich.console import Console

from powerbench.compose import Job, compose
from powerbench.display import board, print_table
from powerbench.engines.base import Engine, Model
from powerbench.report.summary import Results
from powerbench.runner import Meter
from powerbench.session import Plan, generate, make_verifier, prepare, score
from powerbench.store import Run, SampleKey
from powerbench.tracking import Tracker
from powerbench.types import Sample
from powerbench.verifiers.common import Verifier

LOG_EVERY = 10.0
"""Seconds between live metrics sent to the tracker."""


def execute(job: Job, console: Console) -> Run:
    """Prepare, generate what is missing, score what is not scored, and tell the tracker."""
    plan = prepare(job)
    run = plan.run
    tracker: Tracker = job.build("tracker")
    engine = cache(plan.load)  # a finished run that is repeated loads nothing
    with run.writer() as write:
        plan.write_head()
        missing = plan.missing()
        done = len(plan.keys()) - len(missing)
        kept = f", {done} already there" if done else ""
        console.print(f"{run.path}: {len(missing)} responses to make{kept}", soft_wrap=True)
        if missing or not run.metrics:  # a finished run that is repeated has nothing to tell
            tracker.start(run, group=job.choices.get("experiment") or "none")
        if missing:
            _generate(plan, engine(), missing, write, tracker, console)
    verifier = make_verifier(job, plan.model, engine)
    scored = {k for k, verdict in run.scores(verifier.name).items() if verdict.value is not None}
    _score(run, verifier, [key for key in run.samples() if key not in scored], console)
    results = Results.read(run)
    run.write_metrics(asdict(results.summary))
    tracker.finish(results)
    print_table(console, [results.summary])
    return run


def rescore(run: Run, verifier: str | None, console: Console) -> None:
    """Score every response of a run again, with its own verifier or with another by name."""
    job = Job.of_settings(run.config)
    if verifier is not None:
        job.config.verifier = compose([f"verifier={verifier}"]).config.verifier
    samples = run.samples()
    model: Model = job.build("model")
    longest = max((s.prompt_tokens for s in samples.values()), default=1)
    engine = cache(lambda: job.build("engine")(model, longest, job.config.sampler.max_tokens))
    _score(run, make_verifier(job, model, engine), list(samples), console)
    results = Results.read(run)
    run.write_metrics(asdict(results.summary))
    print_table(console, [results.summary])


def _generate(
    plan: Plan,
    engine: Engine,
    keys: Sequence[SampleKey],
    write: Callable[[Sample], None],
    tracker: Tracker,
    console: Console,
) -> None:
    meter, logged = Meter(), time.monotonic()
    with board(console, plan.title, len(keys), meter) as shown:
        for sample in generate(plan, engine, keys, write, meter):
            shown.update(finished=sample is not None)
            if time.monotonic() - logged >= LOG_EVERY:
                logged = time.monotonic()
                tracker.log(shown.metrics())


def _score(run: Run, verifier: Verifier, keys: Sequence[SampleKey], console: Console) -> None:
    undecided = 0
    title = f"scoring with {verifier.name}"
    with board(console, title, len(keys)) as shown:
        for _, verdict in score(run, verifier, keys):
            undecided += verdict.value is None
            shown.update(finished=1)
    if undecided:
        console.print(f"{undecided} responses undecided: reasons in {run.path}/scores")
