"""Who writes in a run folder: a process, its job, how far it is; and the file that says so.

Writers of one thing are counted: the n-th has the file `writers/<name>.<n>.json`, and the last one counts.
"""

import errno
import os
import platform
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import psutil

from powerbench.store import records
from powerbench.types import Progress

NO_LINKS = (errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS)
"""What file systems without links answer."""

LOG = "POWERBENCH_LOG"
"""The environment variable that names the file that a job's output goes to."""

LEASE_TIMEOUT = 60.0
"""Seconds without a heartbeat after which a holder on another machine counts as dead."""

COMPLETE = "complete"
"""How a writer ends that has done all it was to do."""


@dataclass(frozen=True)
class Writer:
    """Who holds, or held, a lease, and how far it is: what its file says."""

    host: str
    boot_id: str
    """Names the boot of the machine and the process namespace that `pid` belongs to."""
    pid: int
    create_time: str
    """When the process was started, in the machine's own count: a number used again is another process."""
    job: str
    """The scheduler's name for the job, as in "slurm 123_4"; empty without one."""
    restart: int
    """How often the scheduler has started this job again."""
    log: str
    """Where its output goes; empty if not known."""
    started: float
    """Seconds since 1970."""
    seconds: float = 0.0
    """Since it started, up to its last heartbeat."""
    heartbeat: int = 0
    """Counts up while it is alive."""
    ended: str | None = None
    """How it ended; None: it is at work, or was killed."""
    progress: Progress = field(default_factory=Progress)
    """How far it is, at its last heartbeat."""
    name: str = ""
    number: int = 0
    last_heartbeat: float = 0.0
    """When its file was last written, in seconds since 1970 by the file system's clock."""

    def alive(self) -> bool | None:
        """Whether the process lives; None if it is on another machine, and cannot be asked."""
        if self.ended is not None:
            return False
        if (self.host, self.boot_id) == (platform.node(), _boot_id()):
            return _create_time(self.pid) == self.create_time
        here = _scheduler_job()
        if self.job and here.name == self.job and here.restart > self.restart:
            return False
        return None

    @property
    def who(self) -> str:
        """The process, in words."""
        job = f", {self.job}" if self.job else ""
        return f"process {self.pid} on {self.host}{job}"


def latest(folder: Path, name: str) -> Writer | None:
    """The last writer of this name in a folder of writers; None if there was none."""
    number = max(numbers(folder).get(name, []), default=0)
    return _read(folder, name, number) if number else None


def names(folder: Path) -> list[str]:
    """The names that have had a writer."""
    return sorted(numbers(folder))


def lease_of(run: Path, file: Path) -> str:
    """The name of the lease on a file of records: `scores-math` for <run folder>/scores/math.jsonl."""
    return "-".join(file.relative_to(run).with_suffix("").parts)


def file_of(folder: Path, name: str, number: int) -> Path:
    """The file of the number-th writer of a name. folder: that of the writers."""
    return folder / f"{name}.{number}.json"


def numbers(folder: Path) -> dict[str, list[int]]:
    """Of every name, the numbers of the writers that have a file."""
    found: dict[str, list[int]] = {}
    for file in folder.glob("*.json"):
        match = re.fullmatch(r"([^.].*)\.(\d+)\.json", file.name)
        if match:
            found.setdefault(match[1], []).append(int(match[2]))
    return found


def _read(folder: Path, name: str, number: int) -> Writer | None:
    """A file that is empty or half written is that of a writer about which nothing is known yet."""
    path = file_of(folder, name, number)
    try:
        last_heartbeat, content = path.stat().st_mtime, path.read_bytes()
    except FileNotFoundError:  # a successor has removed it
        return latest(folder, name)
    try:
        writer = msgspec.json.decode(content, type=Writer)
    except msgspec.DecodeError:
        writer = Writer("?", "?", 0, "", "", 0, "", last_heartbeat)
    return replace(writer, name=name, number=number, last_heartbeat=last_heartbeat)


def create(path: Path, writer: Writer) -> None:
    """Make a writer's file. Raises FileExistsError if another has made it: so only one can."""
    new = path.with_name(f".{path.name}.{records.unique_suffix()}.new")
    write(new, writer)
    try:
        os.link(new, path)  # the file appears with its content, on shared file systems too
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        with path.open("xb") as file:
            file.write(new.read_bytes())
    finally:
        new.unlink()


def write(path: Path, writer: Writer) -> None:
    """Write or replace a writer's file."""
    records.write_atomic(path, records.encode(_stored(writer)))


def _stored(writer: Writer) -> Mapping[str, Any]:
    filled_on_reading = {"name", "number", "last_heartbeat"}
    return {k: v for k, v in asdict(writer).items() if k not in filled_on_reading}


# -- who one is -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class SchedulerJob:
    """A job of Slurm's; its name is empty where there is none."""

    name: str
    restart: int
    """How often it has been started again."""


def _scheduler_job() -> SchedulerJob:
    """The scheduler's job that this process belongs to."""
    number = os.environ.get("SLURM_ARRAY_JOB_ID") or os.environ.get("SLURM_JOB_ID")
    if not number:
        return SchedulerJob("", 0)
    task = os.environ.get("SLURM_ARRAY_TASK_ID")
    rank = os.environ.get("SLURM_PROCID", "0")
    name = (
        f"slurm {number}" + (f"_{task}" if task else "") + (f" task {rank}" if rank != "0" else "")
    )
    return SchedulerJob(name, int(os.environ.get("SLURM_RESTART_COUNT", "0")))


def myself() -> Writer:
    """This process, with nothing written yet."""
    pid, job = os.getpid(), _scheduler_job()
    return Writer(
        host=platform.node(),
        boot_id=_boot_id(),
        pid=pid,
        create_time=_create_time(pid),
        job=job.name,
        restart=job.restart,
        log=os.environ.get(LOG, ""),
        started=round(time.time(), 3),
    )


@cache
def _boot_id() -> str:
    """Containers may share a host's name, but not its process numbers."""
    parts = []
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip())
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return " ".join(parts)


def _create_time(pid: int) -> str:
    """When a process was started; empty if there is none, or only its remains.

    On Linux in ticks since the boot, which no change of the clock moves.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return ""
        with suppress(psutil.Error):
            return str(round(psutil.Process(pid).create_time()))
        return ""
    except ProcessLookupError:
        return ""
    fields = stat.rpartition(")")[2].split()
    return "" if fields[0] in "ZX" else fields[19]
