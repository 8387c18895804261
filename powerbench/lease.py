"""One writer at a time, across machines: a lease that shows who holds it, and that a dead holder loses.

Writers of one thing are counted: the n-th is who first made the file `writers/<name>.<n>.json`, and the
highest n holds the lease. So taking over is a single exclusive creation, safe on shared file systems and
among several who try; and a holder that was only asleep finds, before it writes anything, that there is
a successor. A holder is dead if its process is (on the same machine), if its Slurm job was started again,
or if its beat has not changed for PATIENCE seconds, counted by the clock of the one who waits: no two
clocks are ever compared.
"""

import os
import platform
import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import psutil

from powerbench import records
from powerbench.errors import UserError, one_line
from powerbench.records import Tell

PATIENCE = 60.0
"""Seconds without a beat after which a holder on another machine counts as dead."""

BEATS = 6
"""How often a holder beats within that time."""


@dataclass(frozen=True)
class Writer:
    """Who holds, or held, a lease, and how far it is: what its file says."""

    host: str
    boot: str
    """Names the boot of the machine and the process namespace that `pid` belongs to."""
    pid: int
    born: str
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
    """Since it started, up to its last beat."""
    beat: int = 0
    """Counts up while it is alive."""
    ended: str | None = None
    """How it ended; None: it is at work, or was killed."""
    total: int = 0
    """Samples of its shard, as asked for."""
    done: int = 0
    """Those of them that are finished."""
    made: int = 0
    """Those that it made itself."""
    decoded: int = 0
    """Tokens that it decoded."""
    under_way: int = 0
    """Chains at work."""
    name: str = ""
    number: int = 0
    heard: float = 0.0
    """When its file was last written, in seconds since 1970 by the file system's clock."""

    def alive(self) -> bool | None:
        """Whether the process lives; None if it is on another machine, and cannot be asked."""
        if self.ended is not None:
            return False
        if (self.host, self.boot) == (platform.node(), _boot()):
            return _born(self.pid) == self.born
        here = _job()
        if self.job and here.name == self.job and here.restart > self.restart:
            return False
        return None

    @property
    def who(self) -> str:
        """The process, in words."""
        job = f", {self.job}" if self.job else ""
        return f"process {self.pid} on {self.host}{job}"


@dataclass
class Progress:
    """What a holder tells of its work; shown to whoever asks for the status."""

    total: int = 0
    done: int = 0
    made: int = 0
    decoded: int = 0
    under_way: int = 0
    ended: str | None = None
    """Set to say how it ended; otherwise that follows from how the context is left."""


class Lost(UserError):  # noqa: N818
    """Another process has taken the lease over."""


class Held(UserError):  # noqa: N818
    """Another process holds the lease."""


class Lease:
    """A lease that is held: to be had by `leased`."""

    def __init__(self, folder: Path, writer: Writer, patience: float) -> None:
        self.progress = Progress()
        self._folder, self._writer, self._every = folder, writer, patience / BEATS
        self._began = time.monotonic()
        self._over = threading.Event()
        self._writing = threading.Lock()
        self._thread = threading.Thread(target=self._keep_beating, daemon=True)
        self._thread.start()

    def require_held(self) -> None:
        """Raise Lost if another process holds the lease by now."""
        name, number = self._writer.name, self._writer.number
        if _file(self._folder, name, number + 1).exists() or not self._path.exists():
            last = latest(self._folder, name)
            who = f" ({last.who})" if last is not None else ""
            raise Lost(
                f"{self._folder.parent}: another process{who} has taken over, for this one was silent "
                f"too long: stopping"
            )

    def beat(self, ended: str | None = None) -> None:
        """Tell that the holder is alive, and how far it is; or how it ended."""
        with self._writing, suppress(Lost):
            self.require_held()
            self._writer = replace(
                self._writer,
                seconds=round(time.monotonic() - self._began, 3),
                beat=self._writer.beat + 1,
                **asdict(self.progress) | {"ended": ended},
            )
            _write(self._path, self._writer)

    def end(self, how: str) -> None:
        """Give the lease back."""
        self._over.set()
        self._thread.join()
        with suppress(OSError):  # then it looks as if killed, and is taken over as such
            self.beat(self.progress.ended or how)

    @property
    def _path(self) -> Path:
        return _file(self._folder, self._writer.name, self._writer.number)

    def _keep_beating(self) -> None:
        while not self._over.wait(self._every):
            with suppress(OSError):  # such as a full disk: the next beat may get through
                self.beat()


@contextmanager
def leased(
    folder: Path,
    name: str,
    what: str,
    tell: Tell,
    patience: float = PATIENCE,
    briefly: bool = False,
) -> Iterator[Lease]:
    """Hold the lease `name` of a run folder; raises UserError if another process does.

    what: names it in messages.
    tell: is told of a dead holder, and of the wait for one that may be dead.
    briefly: it is only ever held for a moment, so that it is worth waiting for a living holder.
    """
    writers = folder / "writers"
    until = time.monotonic() + (patience if briefly else 0)
    while True:
        try:
            lease = Lease(writers, _take(writers, name, what, tell, patience), patience)
            break
        except Held:
            if time.monotonic() >= until:
                raise
            time.sleep(0.05)
    try:
        yield lease
    except KeyboardInterrupt:
        lease.end("interrupted")
        raise
    except SystemExit:
        lease.end("stopped")
        raise
    except BaseException as error:
        lease.end(f"failed: {one_line(error) or type(error).__name__}")
        raise
    lease.end("complete")


def latest(folder: Path, name: str) -> Writer | None:
    """The last writer of this name in a folder of writers; None if there was none."""
    number = max(_numbers(folder).get(name, []), default=0)
    return _read(folder, name, number) if number else None


def names(folder: Path) -> list[str]:
    """The names that have had a writer."""
    return sorted(_numbers(folder))


def dead(folder: Path, writer: Writer, what: str, tell: Tell, patience: float = PATIENCE) -> bool:
    """Whether a writer has ended or died; watches its beat where its process cannot be asked."""
    alive = writer.alive()
    if alive is not None:
        return not alive
    tell(f"{what}: waiting up to {patience:.0f} s to see whether {writer.who} is alive")
    until = time.monotonic() + patience
    while time.monotonic() < until:
        time.sleep(min(1.0, patience / 10))
        now = latest(folder, writer.name)
        if now is None or (now.number, now.beat) != (writer.number, writer.beat):
            return now is not None and now.number == writer.number and now.ended is not None
    return True


def _take(folder: Path, name: str, what: str, tell: Tell, patience: float) -> Writer:
    folder.mkdir(exist_ok=True)
    last = latest(folder, name)
    if last is not None and last.ended is None:
        if not dead(folder, last, what, tell, patience):
            raise _refused(what, last)
        tell(f"{what}: {last.who} ended without a word; taking over")
    number = last.number + 1 if last is not None else 1
    writer = replace(_myself(), name=name, number=number)
    try:
        with _file(folder, name, number).open("xb") as file:
            file.write(records.encode(_said(writer)))
    except FileExistsError:
        raise _refused(what, latest(folder, name)) from None
    if max(_numbers(folder)[name]) != number:
        raise _refused(what, latest(folder, name))
    for old in _numbers(folder)[name]:
        if old < number:
            _file(folder, name, old).unlink(missing_ok=True)
    return writer


def _refused(what: str, writer: Writer | None) -> Held:
    who = writer.who if writer is not None else "another process"
    return Held(f"{what} is being written by {who}; wait for it, or stop it")


def _file(folder: Path, name: str, number: int) -> Path:
    return folder / f"{name}.{number}.json"


def _numbers(folder: Path) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for file in folder.glob("*.json"):
        match = re.fullmatch(r"([^.].*)\.(\d+)\.json", file.name)
        if match:
            found.setdefault(match[1], []).append(int(match[2]))
    return found


def _read(folder: Path, name: str, number: int) -> Writer | None:
    """A file that is empty or half written is that of a writer about which nothing is known yet."""
    path = _file(folder, name, number)
    try:
        heard, content = path.stat().st_mtime, path.read_bytes()
    except FileNotFoundError:  # a successor has removed it
        return latest(folder, name)
    try:
        writer = msgspec.json.decode(content, type=Writer)
    except msgspec.DecodeError:
        writer = Writer("?", "?", 0, "", "", 0, "", heard)
    return replace(writer, name=name, number=number, heard=heard)


def _write(path: Path, writer: Writer) -> None:
    unfinished = path.with_name(f".{path.name}")
    unfinished.write_bytes(records.encode(_said(writer)))
    unfinished.replace(path)


def _said(writer: Writer) -> Mapping[str, Any]:
    filled_on_reading = {"name", "number", "heard"}
    return {k: v for k, v in asdict(writer).items() if k not in filled_on_reading}


# -- who one is -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Job:
    name: str
    restart: int


def _job() -> _Job:
    """The scheduler's job that this process belongs to."""
    number = os.environ.get("SLURM_ARRAY_JOB_ID") or os.environ.get("SLURM_JOB_ID")
    if not number:
        return _Job("", 0)
    task = os.environ.get("SLURM_ARRAY_TASK_ID")
    rank = os.environ.get("SLURM_PROCID", "0")
    name = (
        f"slurm {number}" + (f"_{task}" if task else "") + (f" task {rank}" if rank != "0" else "")
    )
    return _Job(name, int(os.environ.get("SLURM_RESTART_COUNT", "0")))


def _myself() -> Writer:
    pid, job = os.getpid(), _job()
    return Writer(
        host=platform.node(),
        boot=_boot(),
        pid=pid,
        born=_born(pid),
        job=job.name,
        restart=job.restart,
        log=os.environ.get("POWERBENCH_LOG", ""),
        started=round(time.time(), 3),
    )


@cache
def _boot() -> str:
    """Containers may share a host's name, but not its process numbers."""
    parts = []
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return " ".join(parts)


def _born(pid: int) -> str:
    """When a process was started; empty if there is none, or only its remains.

    On Linux in ticks since the boot, which no change of the clock moves.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
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
