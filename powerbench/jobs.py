"""What the commands do with a run: execute it to its end, or score it again."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import cache

from rich.console import Console

from powerbench.compose import Job, compose
from powerbench.display import board, print_table
from powerbench.engines.base import Engine, Model
from powerbench.errors import UserError, one_line
from powerbench.report.disagreement import compare, line
from powerbench.report.summary import Results
from powerbench.runner import Meter
from powerbench.scoring import Scoring, asks_model, make_verifier
from powerbench.session import Plan, generate, prepare
from powerbench.store import Run, SampleKey
from powerbench.tracking import Tracker
from powerbench.types import Sample
from powerbench.verifiers.common import CannotScore, Verifier

LOG_EVERY = 10.0
"""Seconds between live metrics sent to the tracker."""


def execute(job: Job, console: Console) -> Run:
    """Prepare, generate what is missing, score what is not scored, and tell the tracker.

    Scoring goes on beside generation. Whatever stops it holds up nothing else: CannotScore is raised
    after everything else is done.
    """
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
        with Scoring(run, make_verifier(job, plan.model, engine)) as scoring:
            beside = not asks_model(job)  # else the engine is busy until the last sample is made
            if beside:
                scoring.submit(*_unscored(run, scoring.verifier.name))
            if missing:
                for sample in _generate(plan, engine(), missing, write, tracker, console, scoring):
                    if beside:
                        scoring.submit(sample)
            if not beside:
                scoring.submit(*_unscored(run, scoring.verifier.name))
            stopped = _await(scoring, console)
    _conclude(run, console, tracker)
    if stopped is not None:
        raise CannotScore(one_line(stopped)) from stopped
    return run


def rescore(
    runs: Sequence[Run], verifier: str | None, settings: Sequence[str], console: Console
) -> Iterator[CannotScore]:
    """Score every response of some runs again, with their own verifiers or with another by name.

    settings: overrides of that verifier, such as `verifier.model=...`. One by name serves all runs, so
    that its budget is for all of them; but one that asks a model asks each run's own.
    Yields what stopped the scoring of a run; the others go on, unless the verifier can judge nothing.
    """
    named = None if verifier is None else compose([f"verifier={verifier}", *settings])
    shared = None if named is None or asks_model(named) else named.build("verifier")
    for run in runs:
        job = Job.of_settings(run.config)
        if named is not None:
            choices = {**job.choices, "verifier": named.choices["verifier"]}
            job = Job(job.config, choices)
            job.config.verifier = named.config.verifier
        try:
            stopped: UserError | OSError | None
            with Scoring(run, shared or _verifier_of(job, run)) as scoring:
                scoring.submit(*run.samples().values())
                stopped = _await(scoring, console)
        except UserError as error:  # of building it
            stopped = error
        _conclude(run, console)
        if stopped is not None:
            yield CannotScore(f"{run.path}: {one_line(stopped)}")
        if shared is not None and isinstance(stopped, CannotScore):
            return


def _verifier_of(job: Job, run: Run) -> Verifier:
    model: Model = job.build("model")
    longest = max((s.prompt_tokens for s in run.samples().values()), default=1)
    engine = cache(lambda: job.build("engine")(model, longest, job.config.sampler.max_tokens))
    return make_verifier(job, model, engine)


def _generate(
    plan: Plan,
    engine: Engine,
    keys: Sequence[SampleKey],
    write: Callable[[Sample], None],
    tracker: Tracker,
    console: Console,
    scoring: Scoring,
) -> Iterator[Sample]:
    """Make the samples of these keys, yield each when it is stored, and show how it goes."""
    meter, logged = Meter(), time.monotonic()
    with board(console, plan.title, len(keys), meter, scoring.progress) as shown:
        for sample in generate(plan, engine, keys, write, meter):
            shown.update(finished=sample is not None)
            if sample is not None:
                yield sample
            if time.monotonic() - logged >= LOG_EVERY:
                logged = time.monotonic()
                tracker.log(shown.metrics())


def _unscored(run: Run, verifier: str) -> list[Sample]:
    """The samples without a verdict, or with an undecided one."""
    scores = run.scores(verifier)
    decided = {key for key, score in scores.items() if score.value is not None}
    return [sample for key, sample in run.samples().items() if key not in decided]


def _await(scoring: Scoring, console: Console) -> UserError | OSError | None:
    """Show how the verdicts come in, and how many responses stay undecided; what stopped it, if it was."""
    title = f"scoring with {scoring.verifier.name}"
    stopped: UserError | OSError | None = None
    try:
        with board(console, title, scoring.submitted, beside=scoring.progress) as shown:
            for verdict in scoring.verdicts():
                shown.update(finished=verdict.score is not None)
    except (UserError, OSError) as error:  # a wrong verifier, a locked file, a full disk
        stopped = error
    if scoring.undecided:
        console.print(
            f"{scoring.undecided} responses undecided: reasons in {scoring.run.path}/scores"
        )
    return stopped


def _conclude(run: Run, console: Console, tracker: Tracker | None = None) -> None:
    """Write the metrics, tell the tracker, print the table."""
    results = Results.read(run)
    run.write_metrics(asdict(results.summary))
    if tracker is not None:
        tracker.finish(results)
    print_table(console, [results.summary])
    for comparison in compare(results):
        console.print(line(comparison), soft_wrap=True)
