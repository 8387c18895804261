"""Runs that are killed: the command in a process of its own, and what must be the same in the end."""

import multiprocessing
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from powerbench.cli import main
from powerbench.store import Run, find_runs
from powerbench.store.verify import verify
from powerbench.types import Sample, SampleKey

TOY = (
    *("model=toy", "model.vocabulary=64", "engine=toy", "task=math_mini", "sampler=power"),
    *("max_tokens=48", "blocks=12", "replicates=10", "tracker=none"),
)
FORK = multiprocessing.get_context("fork")
"""What is loaded stays loaded, so that a life begins at once."""

Samples = Mapping[SampleKey, Sample]


def warm_up(runs: Path) -> None:
    """Load, in this process, all that a life needs."""
    main(["run", *TOY, "limit=1", f"runs={runs}"])


def life(settings: tuple[str, ...], before: Callable[[], None] | None = None) -> "FORK.Process":  # type: ignore[valid-type]
    """`powerbench run` with these settings, begun."""
    process = FORK.Process(target=_live, args=(settings, before))
    process.start()
    return process


def _live(settings: tuple[str, ...], before: Callable[[], None] | None) -> None:
    sys.stdout = sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 (until the process ends)
    if before is not None:
        before()
    main(["run", *settings])


def samples(runs: Path) -> Samples:
    """Those of the run in a folder, but for what depends on the clock and on interruptions."""
    with suppress(FileNotFoundError):  # a first writer's file, which a second one has just removed
        (run,) = find_runs([runs])
        return {
            key: replace(sample, cost=replace(sample.cost, **CHANCE))
            for key, sample in run.samples().items()
        }
    return {}


CHANCE = {
    "prefilled": 0,
    "passes": 0,
    "rows": 0,
    "attended": 0.0,
    "seconds": 0.0,
    "finished": 0.0,
    "speculated": 0,
    "earlier": (),
}
"""Of a sample's cost: what a restart changes."""


def check(runs: Path, whole: Samples) -> Run | None:
    """That what a killed run has left is sound, and part of the whole; None if it has left nothing."""
    if not any(runs.rglob("manifest.json")):
        return None
    (run,) = find_runs([runs])
    health = verify(run)
    assert health.damaged == 0, health.findings
    assert whole.items() >= samples(runs).items()
    return run
