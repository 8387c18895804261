"""What the commands do with a run: execute it to its end, or score it again."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import cache

from powerbench.config import RunConfig, compose
from powerbench.console import console
from powerbench.errors import UserError, one_line
from powerbench.models.base import Model
from powerbench.report.summary import Results
from powerbench.report.tables.disagreement import line, verifier_agreement
from powerbench.run.generate import generate_shown
from powerbench.run.plan import Plan
from powerbench.run.progress import print_table, progress_display
from powerbench.run.scoring import Scoring, ToScore
from powerbench.run.tracking import Tracker
from powerbench.run.verifier import asks_model, make_verifier
from powerbench.store import Run
from powerbench.store.records import retry_while_full
from powerbench.store.writing import sample_writer, write_metrics
from powerbench.types import Progress, SampleKey
from powerbench.verifiers.common import CannotScore, Verifier, require_judges

logger = logging.getLogger(__name__)


def execute(plan: Plan) -> Run:
    """Generate what is missing, score what is not scored, and report to the tracker.

    Scoring runs concurrently with generation. What stops it stops nothing else: CannotScore is raised
    when everything else is done.
    """
    run = plan.run
    tracker: Tracker = plan.config.build("tracker")
    with sample_writer(run, plan.shard, plan.lease_timeout) as writing:
        plan.write_head()
        keys, missing = plan.keys(), plan.missing()
        writing.progress.total, writing.progress.done = len(keys), len(keys) - len(missing)
        writing.heartbeat()
        logger.info(_opening(plan, len(keys), len(missing)))
        if missing or not run.metrics:  # a finished run that is repeated has nothing to report
            group = plan.config.choices.get("experiment") or "none"
            tracker.start(run, group=group, shard=plan.shard)
        with Scoring(run, plan.verifier, plan.shard, plan.lease_timeout) as scoring:
            # A verifier that asks the model waits: the engine is busy until the last sample.
            concurrent = not asks_model(plan.config)
            if concurrent:
                scoring.submit(*_unscored(run, plan.verifier.name, keys))
            if missing:
                for sample in generate_shown(plan, missing, writing, tracker, scoring.progress):
                    if concurrent:
                        scoring.submit(ToScore.of(sample))
            if not concurrent:
                scoring.submit(*_unscored(run, plan.verifier.name, keys))
            stopped = _await(scoring)
        _conclude(run, tracker)
        if stopped is not None:
            writing.end_as(f"not scored: {one_line(stopped)}")
    if stopped is not None:
        raise CannotScore(one_line(stopped)) from stopped
    return run


def _opening(plan: Plan, keys: int, missing: int) -> str:
    """The first line of a run: what is there already, and what is to be made."""
    kept = f", {keys - missing} already there" if keys > missing else ""
    return f"{plan.label}: {missing} responses to make{kept}"


def rescore(
    runs: Sequence[Run], verifier: str | None, settings: Sequence[str]
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
            judge = shared or _verifier_of(run, named)
            require_judges(judge, run.problems().values())
            with Scoring(run, judge) as scoring:
                scoring.submit(*map(ToScore.of, run.stream()))
                stopped = _await(scoring)
            _conclude(run)
        except UserError as error:  # of building it, or of a damaged run
            stopped = error
        if stopped is not None:
            yield CannotScore(f"{run.path}: {one_line(stopped)}")
        if shared is not None and isinstance(stopped, CannotScore):
            return


def _verifier_of(run: Run, named: RunConfig | None) -> Verifier:
    """A run's own verifier, or that of another configuration, asking this run's model."""
    config = RunConfig.of_settings(run.config)
    if named is not None:
        choices = {**config.choices, "verifier": named.choices["verifier"]}
        config = RunConfig(config.values, choices)
        config.values.verifier = named.values.verifier
    model: Model = config.build("model")
    longest = max((sample.prompt_tokens for sample in run.stream()), default=1)
    engine = cache(lambda: config.build("engine")(model, longest, config.values.sampler.max_tokens))
    return make_verifier(config, model, engine)


def _unscored(run: Run, verifier: str, keys: Sequence[SampleKey]) -> list[ToScore]:
    """Of these samples, those that are made and have no score, or an undecided one."""
    scores = run.scores(verifier)
    undecided = {key for key in keys if key not in scores or scores[key].value is None}
    if not undecided:
        return []
    responses = map(ToScore.of, run.stream())
    return [response for response in responses if response.key in undecided]


def _await(scoring: Scoring) -> UserError | OSError | None:
    """Wait for all scores, and show how many come in and stay undecided; what stopped it, if it was."""
    title = f"scoring with {scoring.verifier.name}"
    progress = Progress(total=scoring.submitted)
    stopped: UserError | OSError | None = None
    try:
        with progress_display(title, progress, scoring.progress) as display:
            for scored in scoring.results():
                progress.done += scored.score is not None
                progress.made_here = progress.done
                display.update()
    except (UserError, OSError) as error:  # a wrong verifier, a locked file, a full disk
        stopped = error
    if scoring.undecided:
        console().print(
            f"{scoring.undecided} responses undecided: reasons in {scoring.run.path}/scores"
        )
    return stopped


def _conclude(run: Run, tracker: Tracker | None = None) -> None:
    """Write the metrics, report to the tracker, print the table."""
    results = Results.read(run)
    metrics = asdict(results.summary)
    retry_while_full(lambda: write_metrics(run, metrics), run.path)
    if tracker is not None:
        tracker.finish(results)
    print_table([results.summary])
    for comparison in verifier_agreement(results):
        console().print(line(comparison), soft_wrap=True)
