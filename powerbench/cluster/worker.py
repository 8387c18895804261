"""One job, in whatever process a launcher starts it.

A job of a sweep never ends the others: what stops it is said where its output goes, and kept by the last
writer of its shard, where the command that started the sweep finds it.
"""

import json
import os
import subprocess
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from powerbench.config import LAUNCHER, Job
from powerbench.console import EXIT_SOME_FAILED, TIED, console, mistakes_in_one_line, show_log
from powerbench.errors import UserError, one_line
from powerbench.run.execute import execute
from powerbench.store.owner import LOG

APART = ("joblib", "ray")
"""Launchers whose workers serve job after job: in them, each job is a process of its own, so that what
kills it kills nothing else."""

LOGS = "POWERBENCH_LOGS"
"""Names the folder of a sweep's logs."""


def work(config: DictConfig) -> None:
    """The task that Hydra's launchers run. It is told apart by its name: they pickle it."""
    show_log()
    hydra = HydraConfig.get()
    job = Job(config, dict(hydra.runtime.choices), tuple(hydra.overrides.task))
    launcher = job.choices[LAUNCHER]
    if hydra.mode == RunMode.RUN:
        with mistakes_in_one_line():  # Hydra would print a traceback of its own
            execute(job, console())
    elif launcher in APART:
        _apart(hydra)
    else:
        if launcher == "slurm":
            _name_log()
            _keep_to_cpus()
        reason = _attempt(job)
        if reason is not None:
            _say(hydra.job.num, reason)
        if reason is not None and launcher == "slurm":
            sys.exit(EXIT_SOME_FAILED)  # so that the scheduler says FAILED too


def log_of(folder: Path, number: int) -> Path:
    """Where the output of a sweep's job goes. number: from 0, in the order of the sweep."""
    return folder / f"{number}.txt"


class Failure(NamedTuple):
    """Why a job has failed, and where to read more; empty if nowhere."""

    reason: str
    log: str


def said(folder: Path, number: int) -> Failure | None:
    """What a job has said of its failure, or the first of its tasks that has failed.

    folder: that of the sweep's logs. number: from 0, in the order of the sweep.
    """
    try:
        first = _failures(folder, number).read_text().splitlines()[0]
    except (FileNotFoundError, IndexError):
        return None
    return Failure(*json.loads(first))


def _say(number: int, reason: str) -> None:
    """Keep the reason where the sweep finds it; by one write, for tasks of a job may fail together."""
    line = json.dumps(Failure(reason, os.environ.get(LOG, ""))) + "\n"
    with suppress(OSError), _failures(Path(os.environ[LOGS]), number).open("a") as file:
        file.write(line)


def _failures(folder: Path, number: int) -> Path:
    return folder / f"{number}.failed"


def _attempt(job: Job) -> str | None:
    """Execute a job in this process; why that failed, if it did."""
    try:
        execute(job, console())
        return None
    except (UserError, OSError) as error:
        reason = one_line(error)
        print(f"powerbench: {reason}", file=sys.stderr)
        return reason
    except Exception as error:  # whatever it is, the other jobs go on
        traceback.print_exc()
        return f"{type(error).__name__}: {one_line(error)}".splitlines()[0]


def _apart(hydra: DictConfig) -> None:
    """Run the job as `powerbench run` would, in a process of its own."""
    log = log_of(Path(os.environ[LOGS]), hydra.job.num)
    command = [sys.executable, "-m", "powerbench.cli", "run", *hydra.overrides.task]
    environment = os.environ | {LOG: str(log), TIED: "1"}
    with (
        log.open("ab") as output,
        subprocess.Popen(
            [*command, "hydra.mode=RUN", f"{LAUNCHER}=basic"],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=hydra.runtime.cwd,
            env=environment,
        ) as process,
    ):
        process.wait()


def _keep_to_cpus() -> None:
    """Take as many threads as the job has CPUs, also where Slurm does not bind it to them."""
    cpus = os.environ.get("SLURM_CPUS_PER_TASK", "")
    if cpus.isdigit() and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(int(cpus))


def _name_log() -> None:
    import submitit

    os.environ[LOG] = str(submitit.JobEnvironment().paths.stdout)
