"""What the commands do with a run: execute it to its end, or score it again."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import cache

from rich.console import Console

from powerbench.config import Job, compose
from powerbench.errors import UserError, one_line
from powerbench.models.base import Model
from powerbench.report.summary import Results
from powerbench.report.tables.disagreement import line, verifier_agreement
from powerbench.run.generate import _generate
from powerbench.run.plan import Plan, prepare
from powerbench.run.progress import board, print_table
from powerbench.run.scoring import Response, Scoring
from powerbench.run.tracking import Tracker
from powerbench.run.verifier import asks_model, make_verifier
from powerbench.store import Run
from powerbench.store.records import retry_while_full
from powerbench.store.shard import WHOLE
from powerbench.store.writing import sample_writer, write_metrics
from powerbench.types import SampleKey
from powerbench.verifiers.common import CannotScore, Verifier

logger = logging.getLogger(__name__)


def execute(job: Job, console: Console) -> Run:
    """Prepare, generate what is missing, score what is not scored, and tell the tracker.

    Scoring goes on beside generation. Whatever stops it holds up nothing else: CannotScore is raised
    after everything else is done.
    """
    plan = prepare(job)
    run = plan.run
    tracker: Tracker = job.build("tracker")
    engine = cache(plan.load)  # a finished run that is repeated loads nothing
    with sample_writer(run, plan.shard, plan.lease_timeout) as writing:
        plan.write_head()
        keys, missing = plan.keys(), plan.missing()
        writing.progress.total, writing.progress.done = len(keys), len(keys) - len(missing)
        writing.heartbeat()
        logger.info(_opening(plan, len(keys), len(missing)))
        if missing or not run.metrics:  # a finished run that is repeated has nothing to tell
            group = job.choices.get("experiment") or "none"
            tracker.start(run, group=group, shard=plan.shard)
        verifier = make_verifier(job, plan.model, engine)
        with Scoring(run, verifier, plan.shard, plan.lease_timeout) as scoring:
            beside = not asks_model(job)  # else the engine is busy until the last sample is made
            if beside:
                scoring.submit(*_unscored(run, scoring.verifier.name, keys))
            if missing:
                for sample in _generate(
                    plan, engine(), missing, writing, tracker, console, scoring
                ):
                    if beside:
                        scoring.submit(Response.of(sample))
            if not beside:
                scoring.submit(*_unscored(run, scoring.verifier.name, keys))
            stopped = _await(scoring, console)
        _conclude(run, console, tracker)
        if stopped is not None:
            writing.progress.ended = f"not scored: {one_line(stopped)}"
    if stopped is not None:
        raise CannotScore(one_line(stopped)) from stopped
    return run


def _opening(plan: Plan, keys: int, missing: int) -> str:
    """What is there already, and what is to be made."""
    shard = f" (shard {plan.shard})" if plan.shard != WHOLE else ""
    kept = f", {keys - missing} already there" if keys > missing else ""
    return f"{plan.run.path}{shard}: {missing} responses to make{kept}"


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
        try:
            stopped: UserError | OSError | None
            with Scoring(run, shared or _verifier_of(run, named)) as scoring:
                scoring.submit(*map(Response.of, run.stream()))
                stopped = _await(scoring, console)
            _conclude(run, console)
        except UserError as error:  # of building it, or of a damaged run
            stopped = error
        if stopped is not None:
            yield CannotScore(f"{run.path}: {one_line(stopped)}")
        if shared is not None and isinstance(stopped, CannotScore):
            return


def _verifier_of(run: Run, named: Job | None) -> Verifier:
    """A run's own verifier, or the one of another job, at work on this run."""
    job = Job.of_settings(run.config)
    if named is not None:
        job = Job(job.config, {**job.choices, "verifier": named.choices["verifier"]})
        job.config.verifier = named.config.verifier
    model: Model = job.build("model")
    longest = max((sample.prompt_tokens for sample in run.stream()), default=1)
    engine = cache(lambda: job.build("engine")(model, longest, job.config.sampler.max_tokens))
    return make_verifier(job, model, engine)


def _unscored(run: Run, verifier: str, keys: Sequence[SampleKey]) -> list[Response]:
    """Of these samples, those that are there without a verdict, or with an undecided one."""
    scores = run.scores(verifier)
    undecided = {key for key in keys if key not in scores or scores[key].value is None}
    if not undecided:
        return []
    responses = map(Response.of, run.stream())
    return [response for response in responses if response.key in undecided]


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
    metrics = asdict(results.summary)
    retry_while_full(lambda: write_metrics(run, metrics), run.path)
    if tracker is not None:
        tracker.finish(results)
    print_table(console, [results.summary])
    for comparison in verifier_agreement(results):
        console.print(line(comparison), soft_wrap=True)
