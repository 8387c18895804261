"""Waits until each job of a sweep has left Slurm's queue, however it ended."""

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

FINAL_STATES = frozenset(
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
"""States that a job does not leave by itself. One that is preempted or requeued is PENDING again."""

TRANSIENT_REASONS = frozenset(["None", "Resources", "Priority", "BeginTime", "JobArrayTaskLimit"])
"""Reasons for waiting that go away by themselves."""

FIRST_PAUSE = 1.0
LONGEST_PAUSE = 30.0
"""Seconds between two queries of the queue: they grow, so that the scheduler is not kept busy."""


@dataclass(frozen=True)
class JobEnd:
    """How a job ended."""

    state: str | None
    """Slurm's word for it; empty where there is none; None where the job is not known to be over."""
    log: Path | None
    """Where its output is; None: where all launchers' jobs have it."""


@contextmanager
def waiting() -> Iterator[list[JobEnd]]:
    """Let submitit's launcher wait for every job of a sweep, rather than give all up when one fails.

    submitit asks `sacct`, which sites without a database for accounting do not have, and looks for a
    job's result, which a killed one never writes. Instead the queue is asked: `squeue` is wherever
    `sbatch` is. Yields the list of the jobs that are over, in the order of the sweep.
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
    pause, reported = FIRST_PAUSE, ""
    while True:
        asked = subprocess.run(
            ["squeue", "-h", "-r", "-t", "all", "-j", job, "-o", "%T %r"],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
        )
        state, _, reason = asked.stdout.strip().partition(" ")
        forgotten = "Invalid job id" in asked.stderr or not (asked.returncode or state)
        if forgotten or state in FINAL_STATES:
            return state
        message = ""
        if asked.returncode:
            message = f"Slurm does not answer ({asked.stderr.strip()}); asking again"
        elif state == "PENDING" and reason not in TRANSIENT_REASONS:
            message = f"Slurm job {job} waits, and says why: {reason}"
        if message not in ("", reported):
            reported = message
            logger.info(message)
        time.sleep(pause)
        pause = min(pause * 1.5, LONGEST_PAUSE)
