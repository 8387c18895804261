"""Waiting for Slurm: until each job of a sweep has left the queue, however it ended."""

import logging
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from hydra.core.utils import JobReturn, JobStatus

logger = logging.getLogger(__name__)

OVER = frozenset(
    [
        "BOOT_FAIL",
        "CANCELLED",
        "COMPLETED",
        "DEADLINE",
        "FAILED",
        "NODE_FAIL",
        "OUT_OF_MEMORY",
        "TIMEOUT",
    ]
)
"""States that a job does not leave by itself. One that is preempted or put back is PENDING again."""

USUAL = frozenset(["None", "Resources", "Priority", "BeginTime", "JobArrayTaskLimit"])
"""Reasons for waiting that pass."""

FIRST, LONGEST = 1.0, 30.0
"""Seconds between two looks at the queue: they grow, so that the scheduler is not kept busy."""


@dataclass(frozen=True)
class JobEnd:
    """A job that is no longer in the queue."""

    state: str
    """Slurm's word for it; empty where it is forgotten already."""
    log: Path


@contextmanager
def waiting() -> Iterator[list[JobEnd]]:
    """Let submitit's launcher wait for every job of a sweep, rather than give all up when one fails.

    submitit asks `sacct`, which sites without a database for accounting do not have, and looks for a
    job's result, which a killed one never writes. Instead the queue is asked: `squeue` is wherever
    `sbatch` is. Yields what is known of the jobs that are over, in the order of the sweep.
    """
    from submitit.slurm.slurm import SlurmJob

    ended: list[JobEnd] = []

    def results(job: Any) -> list[JobReturn]:
        if not ended:
            number = job.job_id.partition("_")[0]
            logger.info(
                f"Slurm job {number}; Ctrl-C leaves it running, `scancel {number}` stops it"
            )
        ended.append(JobEnd(_wait(job.job_id), job.paths.stdout))
        done = JobReturn(status=JobStatus.COMPLETED)
        done.return_value = None
        return [done]

    with patch.object(SlurmJob, "results", results):
        yield ended


def _wait(job: str) -> str:
    """The state in which a job has ended, once it has."""
    pause, logged = FIRST, ""
    while True:
        asked = subprocess.run(
            ["squeue", "-h", "-r", "-t", "all", "-j", job, "-o", "%T %r"],
            capture_output=True,
            text=True,
        )
        state, _, reason = asked.stdout.strip().partition(" ")
        forgotten = "Invalid job id" in asked.stderr or not (asked.returncode or state)
        if forgotten or state in OVER:
            return state
        news = ""
        if asked.returncode:
            news = f"Slurm does not answer ({asked.stderr.strip()}); asking again"
        elif state == "PENDING" and reason not in USUAL:
            news = f"Slurm job {job} waits, and says why: {reason}"
        if news not in ("", logged):
            logged = news
            logger.info(news)
        time.sleep(pause)
        pause = min(pause * 1.5, LONGEST)
