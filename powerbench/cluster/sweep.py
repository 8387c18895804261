"""Sweeps: every job checked before the first one starts, handed to a launcher, and looked up at the end.

What came of a job is read from its run folder, whoever ran it and wherever: a launcher's own word is not
needed, and a job that was killed has none.
"""

import logging
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from unittest.mock import patch

import hydra
import torch
from omegaconf import DictConfig

from powerbench.cluster import slurm
from powerbench.cluster.worker import LOGS, Failure, log_of, said, work
from powerbench.config import LAUNCHER, compose, conf_dir, quoted
from powerbench.console import EXIT_SOME_FAILED
from powerbench.errors import UserError, one_line, require
from powerbench.run.plan import Plan, prepare
from powerbench.store.owner import COMPLETE, Writer
from powerbench.store.run_folder import SAMPLES
from powerbench.store.shard import WHOLE, Shard

logger = logging.getLogger(__name__)

EVERY = 30.0
"""Seconds between two lines on the progress of a sweep."""

PLUGINS = {
    "slurm": "hydra_submitit_launcher",
    "ray": "hydra_ray_launcher",
    "joblib": "hydra_joblib_launcher",
}
"""Hydra's plugin behind each of our presets."""


def check(jobs: Sequence[Sequence[str]]) -> list[Plan]:
    """Prepare every job of a sweep; those that differ only in their shard once. Raises UserError."""
    prepared: dict[tuple[str, ...], Plan] = {}
    plans = []
    for overrides in jobs:
        shards = [o.partition("=")[2] for o in overrides if o.startswith("shard=")]
        rest = tuple(o for o in overrides if not o.startswith("shard="))
        if rest not in prepared:
            prepared[rest] = prepare(compose(overrides))
        plan = prepared[rest]
        plans.append(replace(plan, shard=Shard.parse(shards[0])) if shards else plan)
    return plans


def launch(arguments: Sequence[str]) -> None:
    """Hand the jobs to Hydra, and through it to a launcher. arguments: as after `powerbench run`."""
    main = hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")
    with patch.object(sys, "argv", ["powerbench", *arguments]):
        main(work)()


def sweep(arguments: Sequence[str], plans: Sequence[Plan]) -> int:
    """Run the jobs of a sweep with the launcher that is chosen; the exit code: 0, or 1 if some failed."""
    launcher = plans[0].job.choices[LAUNCHER]
    _require_launcher(launcher, plans[0].job.config.hydra.launcher)
    if launcher != "basic":
        _require_apart(plans)
    before = [_newest(plan) for plan in plans]
    folder = Path(plans[0].job.config.hydra.sweep.dir).absolute()
    if launcher != "basic":
        logger.info(
            f"{len(plans)} jobs; `powerbench status {plans[0].job.config.runs}` shows how they go"
        )
    nothing: AbstractContextManager[list[slurm.JobEnd]] = nullcontext([])
    waiting = slurm.waiting() if launcher == "slurm" else nothing
    shown = nullcontext() if launcher == "basic" else _progress(plans, before)
    with _logs(folder, launcher) as logs:
        settings = [
            f"hydra.sweep.dir={quoted(folder)}",
            f"++hydra.job.env_set.{LOGS}={quoted(logs)}",
        ]
        environment = {"HYDRA_FULL_ERROR": "1", "RAY_USAGE_STATS_ENABLED": "0"}
        with waiting as ended, patch.dict(os.environ, environment), shown:
            try:
                launch([*arguments, *settings])
            except (Exception, SystemExit) as error:  # the launcher's own
                logger.info(f"powerbench: {LAUNCHER}={launcher} failed: {one_line(error)}")
                if before == [_newest(plan) for plan in plans]:
                    return EXIT_SOME_FAILED
        failed = 0
        for number, (plan, newest) in enumerate(zip(plans, before, strict=True)):
            left = ended[number] if number < len(ended) else None
            log = left.log if left is not None else log_of(logs, number)
            failure = said(logs, number) or _failure(plan, newest, left.state if left else "", log)
            if failure is not None:
                failed += 1
                where = Path(failure.log)
                read = f"; log: {where}" if failure.log and where.exists() else ""
                logger.info(f"FAILED {_name(plan)}: {failure.reason}{read}")
    if launcher != "basic" or failed:
        again = "; the same command goes on with the others" if failed else ""
        logger.info(f"{len(plans) - failed} of {len(plans)} jobs complete{again}")
    return EXIT_SOME_FAILED if failed else 0


@contextmanager
def _logs(folder: Path, launcher: str) -> Iterator[Path]:
    """Where the jobs of a sweep leave what they have to say: seen by all of them, and kept, but for those
    that run in this process."""
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
                    f"two jobs of this sweep would write {_name(plan)} at the same time: they differ only "
                    f"in settings that change no sample; run them one after the other"
                )


@contextmanager
def _progress(plans: Sequence[Plan], before: Sequence[Mapping[str, int]]) -> Iterator[None]:
    """Log now and then how far the jobs are together, whoever runs them."""
    over, asked = threading.Event(), [len(plan.keys()) for plan in plans]

    def look() -> None:
        logged = ""
        while not over.wait(EVERY):
            each = [_writers(plan, newest) for plan, newest in zip(plans, before, strict=True)]
            done = sum(sum(w.done for w in writers) for writers in each)
            at_work = sum(w.ended is None and w.alive() is not False for ws in each for w in ws)
            begun = sum(map(bool, each))
            news = f"{begun} of {len(plans)} jobs begun, {at_work} at work; {done:,} of {sum(asked):,} samples"
            if news != logged:
                logged = news
                logger.info(news)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _writers(plan: Plan, before: Mapping[str, int]) -> list[Writer]:
    """This sweep's writers of a job's shard, or of the parts that its tasks have.

    before: the last writers before the sweep.
    """
    return [
        writer
        for writer in plan.run.writers()
        if Shard.from_suffix(writer.name.removeprefix(SAMPLES)).within(plan.shard)
        and writer.number > before.get(writer.name, 0)
    ]


def _newest(plan: Plan) -> Mapping[str, int]:
    """The numbers of the last writers of a run's shards, by name."""
    return {writer.name: writer.number for writer in plan.run.writers()}


def _failure(plan: Plan, before: Mapping[str, int], state: str, log: Path) -> Failure | None:
    """What went wrong with a job, which itself has said nothing of it; None if it is complete.

    before: the last writers before the sweep.
    state: what the scheduler calls the end of the job, where it is known.
    """
    try:
        missing = len(plan.missing())
    except UserError as error:
        return Failure(one_line(error), str(log))
    mine = _writers(plan, before)
    if not mine:
        reason = _last_line(log) or f"never started{f' ({state})' if state else ''}"
        return Failure(reason, str(log))
    bad = [(end, w.log or str(log)) for w in mine if (end := _end(w, state)) != COMPLETE]
    if not bad and missing:
        bad = [("ended too early", str(log))]
    if not bad:
        return None
    reason, where = bad[0]
    lost = f", {missing} of {len(plan.keys())} samples missing" if missing else ""
    return Failure(reason + lost, where)


def _end(writer: Writer, state: str) -> str:
    if writer.ended is not None:
        return writer.ended
    if writer.alive():
        return f"still at work ({writer.who})"
    known = state not in ("", "COMPLETED", "FAILED")
    return f"killed ({state})" if known else "killed"


def _last_line(log: Path) -> str:
    try:
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    except FileNotFoundError:
        return ""
    return lines[-1].strip() if lines else ""


def _name(plan: Plan) -> str:
    return f"{plan.run.path}" + (f" (shard {plan.shard})" if plan.shard != WHOLE else "")
