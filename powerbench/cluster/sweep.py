"""Sweeps: every job is checked before any starts, a launcher runs them, and their outcomes are read last."""

import logging
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from importlib.util import find_spec
from pathlib import Path
from unittest.mock import patch

import hydra
import torch
from omegaconf import DictConfig

from powerbench.cluster import slurm
from powerbench.cluster.outcome import (
    LOGS,
    Kind,
    failure_of,
    last_writers,
    log_of,
    reported_failure,
    writer_state,
    writers_since,
)
from powerbench.cluster.worker import work
from powerbench.config import LAUNCHER, compose, conf_dir, quoted
from powerbench.console import EXIT_SOME_FAILED
from powerbench.errors import UserError, one_line, require
from powerbench.machine.threads import count_left_to_launcher
from powerbench.run.plan import Plan
from powerbench.run.prepare import PromptTooLongError, prepare
from powerbench.store.shard import Shard

logger = logging.getLogger(__name__)

PROGRESS_INTERVAL = 30.0
"""Seconds between two lines on the progress of a sweep."""

PLUGINS = {
    "slurm": "hydra_submitit_launcher",
    "ray": "hydra_ray_launcher",
    "joblib": "hydra_joblib_launcher",
}
"""Hydra's plugin behind each of our presets."""


def check(jobs: Sequence[Sequence[str]]) -> list[Plan]:
    """Prepare every job of a sweep; those that differ only in their shard once.

    A job whose prompts are too long for its model ends no other: it is named here, and again when it fails.
    Raises UserError for whatever else cannot work, and if all are too long.
    """
    prepared: dict[tuple[str, ...], Plan] = {}
    too_long: list[PromptTooLongError] = []
    plans = []
    for overrides in jobs:
        shards = [o.partition("=")[2] for o in overrides if o.startswith("shard=")]
        rest = tuple(o for o in overrides if not o.startswith("shard="))
        if rest not in prepared:
            try:
                prepared[rest] = prepare(compose(overrides))
            except PromptTooLongError as error:
                prepared[rest] = error.plan
                too_long.append(error)
        plan = prepared[rest]
        plans.append(plan.part(Shard.parse(shards[0])) if shards else plan)
    if len(too_long) == len(prepared):
        raise too_long[0]
    for each in too_long:
        logger.info(f"WILL FAIL {each.plan.label}: {each}; the other jobs go on")
    return plans


def sweep(arguments: Sequence[str], plans: Sequence[Plan]) -> int:
    """Run the jobs of a sweep with the launcher that is chosen; the exit code: 0, or 1 if some failed.

    arguments: as after `powerbench run`; plans: of the same jobs, in their order.
    """
    config = plans[0].config
    launcher = config.choices[LAUNCHER]
    _require_launcher(launcher, config.values.hydra.launcher)
    if launcher != "basic":
        _require_apart(plans)
        logger.info(
            f"{len(plans)} jobs; `powerbench status {config.values.runs}` shows how they go"
        )
    before = [last_writers(plan) for plan in plans]
    folder = Path(config.values.hydra.sweep.dir).expanduser().absolute()
    with _logs(folder, launcher) as logs:
        settings = [
            f"hydra.sweep.dir={quoted(folder)}",
            f"++hydra.job.env_set.{LOGS}={quoted(logs)}",
        ]
        ends = _launch([*arguments, *settings], launcher, plans, before)
        if ends is None:
            return EXIT_SOME_FAILED
        failed = _report_failures(plans, before, ends, logs)
    if launcher != "basic" or failed:
        again = "; the same command goes on with the others" if failed else ""
        logger.info(f"{len(plans) - failed} of {len(plans)} jobs complete{again}")
    return EXIT_SOME_FAILED if failed else 0


def _launch(
    arguments: Sequence[str],
    launcher: str,
    plans: Sequence[Plan],
    before: Sequence[Mapping[str, int]],
) -> list[slurm.JobEnd] | None:
    """Hand the jobs to Hydra, and through it to the launcher; wait, and show how far they are.

    Returns how each job ended, as far as that is known, or None if the launcher failed before any job began.
    """
    nothing: AbstractContextManager[list[slurm.JobEnd]] = nullcontext([])
    waiting = slurm.waiting() if launcher == "slurm" else nothing
    progress = nullcontext() if launcher == "basic" else _progress(plans, before)
    threads = nullcontext() if launcher == "basic" else count_left_to_launcher()
    environment = {"HYDRA_FULL_ERROR": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    main = hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")
    with (
        waiting as ends,
        patch.dict(os.environ, environment),
        patch.object(sys, "argv", ["powerbench", *arguments]),
        threads,
        progress,
    ):
        try:
            main(work)()
        except (Exception, SystemExit) as error:  # the launcher's own
            logger.info(f"powerbench: {LAUNCHER}={launcher} failed: {one_line(error)}")
            return ends if before != [last_writers(plan) for plan in plans] else None
    return [*ends, *[slurm.JobEnd("", None)] * (len(plans) - len(ends))]


def _report_failures(
    plans: Sequence[Plan],
    before: Sequence[Mapping[str, int]],
    ends: Sequence[slurm.JobEnd],
    logs: Path,
) -> int:
    """Name the jobs that failed, with the reason and the log of each; how many those are."""
    failed = 0
    for number, plan in enumerate(plans):
        end = ends[number] if number < len(ends) else slurm.JobEnd(None, None)
        failure = reported_failure(logs, number) or failure_of(
            plan, before[number], time.time(), end.state, end.log or log_of(logs, number)
        )
        if failure is not None:
            failed += 1
            where = Path(failure.log)
            read = f"; log: {where}" if failure.log and where.exists() else ""
            logger.info(f"FAILED {plan.label}: {failure.reason}{read}")
    return failed


@contextmanager
def _logs(folder: Path, launcher: str) -> Iterator[Path]:
    """The folder of the jobs' logs and failures; kept, unless the jobs run in this process."""
    if launcher == "basic":
        with tempfile.TemporaryDirectory() as passing:
            yield Path(passing)
        return
    kept = folder / "logs" / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    kept.mkdir(parents=True)
    yield kept
    with suppress(OSError):  # unless there is something in it
        kept.rmdir()


def _require_launcher(name: str, settings: DictConfig) -> None:
    """Raise UserError where a launcher's plugin, its scheduler or its GPUs are not there."""
    plugin = PLUGINS.get(name)
    require(
        plugin is None or _there(plugin),
        f"{LAUNCHER}={name} needs {str(plugin).replace('_', '-')}: pip install 'powerbench[cluster]'",
    )
    require(
        name != "slurm" or shutil.which("sbatch") is not None,
        f"{LAUNCHER}=slurm needs Slurm's commands, and there is no sbatch here: start the sweep on a "
        f"login node of the cluster, or use {LAUNCHER}=joblib",
    )
    if name == "ray" and settings.ray.init.get("address") is None:
        gpus, there = settings.ray.remote.get("num_gpus") or 0, torch.cuda.device_count()
        require(
            gpus <= there,
            f"hydra.launcher.ray.remote.num_gpus={gpus}: this machine has {there}, so that no job would "
            f"start; set num_gpus=0 to run on CPUs, or hydra.launcher.ray.init.address to a Ray cluster's",
        )


def _there(plugin: str) -> bool:
    return (
        find_spec("hydra_plugins") is not None and find_spec(f"hydra_plugins.{plugin}") is not None
    )


def _require_apart(plans: Sequence[Plan]) -> None:
    """Raise UserError for two jobs that would write the same shard at the same time."""
    for i, plan in enumerate(plans):
        for other in plans[:i]:
            if other.run.path == plan.run.path and other.shard.overlaps(plan.shard):
                raise UserError(
                    f"two jobs of this sweep would write {plan.label} at the same time: they differ only "
                    f"in settings that change no sample; run them one after the other"
                )


@contextmanager
def _progress(plans: Sequence[Plan], before: Sequence[Mapping[str, int]]) -> Iterator[None]:
    """Log regularly how far the jobs are together, whatever runs them."""
    over, asked = threading.Event(), [len(plan.keys()) for plan in plans]

    def look() -> None:
        last = ""
        while not over.wait(PROGRESS_INTERVAL):
            each = [writers_since(plan, newest) for plan, newest in zip(plans, before, strict=True)]
            done = sum(sum(w.progress.done for w in writers) for writers in each)
            at_work = sum(
                writer_state(writer, plan.lease_timeout, time.time()).kind is Kind.AT_WORK
                for plan, writers in zip(plans, each, strict=True)
                for writer in writers
            )
            begun = sum(map(bool, each))
            line = f"{begun} of {len(plans)} jobs begun, {at_work} at work; {done:,} of {sum(asked):,} samples"
            if line != last:
                last = line
                logger.info(line)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
