"""What became of a sweep's jobs: from the writers in their run folders, and from what the jobs reported.

A launcher's own word is not needed, and a job that was killed has none.
"""

import json
import os
import platform
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from powerbench.errors import UserError, one_line
from powerbench.run.plan import Plan
from powerbench.store.owner import COMPLETE, LOG, Writer
from powerbench.store.run_folder import SAMPLES
from powerbench.store.shard import Shard

LOGS = "POWERBENCH_LOGS"
"""The environment variable that names the folder of a sweep's logs."""

SILENT = 1.5
"""Multiples of the run's lease_timeout after which a silent writer on another machine counts as lost."""

UNINFORMATIVE = ("", "COMPLETED", "FAILED")
"""Slurm's states that do not say what killed a job."""


# -- a writer -------------------------------------------------------------------------------------


class Kind(StrEnum):
    """The state of a shard's last writer, in one word."""

    AT_WORK = "at work"
    ENDED = "ended"
    """It has recorded how it ended."""
    KILLED = "killed"
    SILENT = "silent"
    UNCLEAR = "unclear"
    """Its file is from the future, so that clocks cannot tell."""
    NO_WRITER = "no writer"


@dataclass(frozen=True)
class State:
    """What a writer does, or how it ended."""

    kind: Kind
    words: str


def writer_state(
    writer: Writer, lease_timeout: float, now: float, job_end: str | None = None
) -> State:
    """What a writer does, or how it ended.

    lease_timeout: as the run was configured, in seconds; now: in seconds since 1970.
    job_end: how the scheduler says that the writer's job ended, empty if it gives no reason; None where
        the job is not known to be over. A process that lives on this machine is at work in any case.
    """
    if writer.ended is not None:
        return State(Kind.ENDED, writer.ended)
    alive, where = writer.alive(), ", ".join(x for x in (writer.host, writer.job) if x)
    age = now - writer.last_heartbeat
    if alive is False or (alive is None and job_end is not None):
        reason = "" if job_end is None or job_end in UNINFORMATIVE else f"{job_end}, "
        machine = "this machine" if writer.host == platform.node() else writer.host
        return State(Kind.KILLED, f"killed ({reason}pid {writer.pid} on {machine})")
    if alive is None and age < -lease_timeout:
        return State(
            Kind.UNCLEAR,
            f"on {where}: last heard of {duration(-age)} from now, for clocks differ: at work or lost",
        )
    if alive is None and age > SILENT * lease_timeout:
        return State(Kind.SILENT, f"silent for {duration(age)} on {where}: lost, or cut off")
    return State(Kind.AT_WORK, f"at work on {where}")


def duration(seconds: float) -> str:
    """A stretch of time in one unit."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


# -- a job of a sweep -----------------------------------------------------------------------------


class JobFailure(NamedTuple):
    """Why a job has failed."""

    reason: str
    log: str
    """Where to read more; empty if nowhere."""


def last_writers(plan: Plan) -> Mapping[str, int]:
    """The numbers of the last writers of a run's shards, by name."""
    return {writer.name: writer.number for writer in plan.run.writers()}


def writers_since(plan: Plan, before: Mapping[str, int]) -> list[Writer]:
    """A sweep's own writers of a job's shard, or of the parts that the job's tasks have.

    before: `last_writers` at the start of the sweep.
    """
    return [
        writer
        for writer in plan.run.writers()
        if Shard.from_suffix(writer.name.removeprefix(SAMPLES)).within(plan.shard)
        and writer.number > before.get(writer.name, 0)
    ]


def failure_of(
    plan: Plan, before: Mapping[str, int], now: float, job_end: str | None, log: Path
) -> JobFailure | None:
    """What went wrong with a job that reported nothing itself; None if it is complete.

    before: `last_writers` at the start of the sweep. now, job_end: as for `writer_state`.
    """
    try:
        missing = len(plan.missing())
    except UserError as error:
        return JobFailure(one_line(error), str(log))
    writers = writers_since(plan, before)
    if not writers:
        never = f"never started{f' ({job_end})' if job_end else ''}"
        return JobFailure(_last_line(log) or never, str(log))
    states = [(writer_state(w, plan.lease_timeout, now, job_end).words, w.log) for w in writers]
    bad = [JobFailure(words, where or str(log)) for words, where in states if words != COMPLETE]
    if not bad and missing:
        bad = [JobFailure("ended too early", str(log))]
    if not bad:
        return None
    lost = f", {missing} of {len(plan.keys())} samples missing" if missing else ""
    return bad[0]._replace(reason=bad[0].reason + lost)


def _last_line(log: Path) -> str:
    try:
        lines = [
            line
            for line in log.read_text(encoding="utf-8", errors="replace").splitlines()
            if line.strip()
        ]
    except FileNotFoundError:
        return ""
    return lines[-1].strip() if lines else ""


# -- what a job leaves in the sweep's folder of logs; jobs are counted from 0, in the sweep's order ---


def log_of(folder: Path, number: int) -> Path:
    """The file that a job's output goes to."""
    return folder / f"{number}.txt"


def report_failure(number: int, reason: str) -> None:
    """Record why this process's job failed; in one write, for several tasks of a job may fail together."""
    line = json.dumps(JobFailure(reason, os.environ.get(LOG, ""))) + "\n"
    with (
        suppress(OSError),
        _failures(Path(os.environ[LOGS]), number).open("a", encoding="utf-8") as file,
    ):
        file.write(line)


def reported_failure(folder: Path, number: int) -> JobFailure | None:
    """The failure that a job, or the first of its tasks to fail, has reported; None if none did."""
    try:
        first = _failures(folder, number).read_text(encoding="utf-8").splitlines()[0]
    except (FileNotFoundError, IndexError):
        return None
    return JobFailure(*json.loads(first))


def _failures(folder: Path, number: int) -> Path:
    return folder / f"{number}.failed"
