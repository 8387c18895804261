"""One writer at a time, across machines: a lease that shows who holds it, and that a dead holder loses.

Writers of one thing are counted: the n-th is who first made the file `writers/<name>.<n>.json`, and the
highest n holds the lease. So taking over is a single exclusive creation, safe on shared file systems and
among several who try; and a holder that was only asleep finds, before it writes anything, that there is
a successor. A holder is dead if its process is (on the same machine), if its Slurm job was started again,
or if its heartbeat has not changed for LEASE_TIMEOUT seconds, counted by the clock of the one who waits:
no two clocks are ever compared.
"""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from powerbench.errors import UserError, one_line
from powerbench.store.owner import (
    COMPLETE,
    LEASE_TIMEOUT,
    Writer,
    create,
    file_of,
    latest,
    myself,
    numbers,
    write,
)
from powerbench.types import Progress

logger = logging.getLogger(__name__)

HEARTBEATS = 6
"""Of a living holder, within that time."""

SOON = 1.0
"""Seconds of waiting that need no explanation."""


class LeaseLost(UserError):  # noqa: N818
    """Another process has taken the lease over."""


class LeaseHeld(UserError):  # noqa: N818
    """Another process holds the lease."""


class Lease:
    """A lease that is held. Obtained from `acquire`."""

    def __init__(self, folder: Path, writer: Writer, lease_timeout: float) -> None:
        self.progress = replace(writer.progress)
        self.ended: str | None = None
        """Set to say how the holder ended; otherwise that follows from how the context is left."""
        self._folder, self._writer, self._every = folder, writer, lease_timeout / HEARTBEATS
        self._began = time.monotonic()
        self._over = threading.Event()
        self._writing = threading.Lock()
        self._thread = threading.Thread(target=self._keep_alive, daemon=True)
        self._thread.start()

    def require_held(self) -> None:
        """Raise LeaseLost if another process holds the lease by now."""
        name = self._writer.name
        if max(numbers(self._folder).get(name, []), default=0) != self._writer.number:
            last = latest(self._folder, name)
            who = f" ({last.who})" if last is not None else ""
            raise LeaseLost(
                f"{self._folder.parent}: another process{who} has taken over, for this one was silent "
                f"too long: stopping"
            )

    def heartbeat(self, ended: str | None = None) -> None:
        """Record that the holder is alive, and how far it is; or how it ended."""
        with (
            self._writing,
            suppress(LeaseLost, OSError),
        ):  # a full disk, say: the next may get through
            self.require_held()
            self._writer = replace(
                self._writer,
                seconds=round(time.monotonic() - self._began, 3),
                heartbeat=self._writer.heartbeat + 1,
                progress=replace(self.progress),
                ended=ended,
            )
            write(self._path, self._writer)

    def end(self, how: str) -> None:
        """Give the lease back."""
        self._over.set()
        self._thread.join()
        # If this fails, the holder looks as if killed, and is taken over as such.
        self.heartbeat(self.ended or how)

    @property
    def _path(self) -> Path:
        return file_of(self._folder, self._writer.name, self._writer.number)

    def _keep_alive(self) -> None:
        while not self._over.wait(self._every):
            self.heartbeat()


@contextmanager
def acquire(
    folder: Path,
    name: str,
    what: str,
    lease_timeout: float = LEASE_TIMEOUT,
    briefly: bool = False,
) -> Iterator[Lease]:
    """Hold the lease `name` of a run folder; raises UserError if another process does.

    what: names it in messages.
    briefly: it is only ever held for a moment, so that it is worth waiting for a living holder.
    """
    writers = folder / "writers"
    until = time.monotonic() + (lease_timeout if briefly else 0)
    while True:
        try:
            lease = Lease(writers, _take(writers, name, what, lease_timeout), lease_timeout)
            break
        except LeaseHeld:
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
    lease.end(COMPLETE)


def is_dead(folder: Path, writer: Writer, what: str, lease_timeout: float = LEASE_TIMEOUT) -> bool:
    """Whether a writer has ended or died; watches its heartbeat where its process cannot be asked."""
    alive = writer.alive()
    if alive is not None:
        return not alive
    began, announced = time.monotonic(), False
    while (waited := time.monotonic() - began) < lease_timeout:
        if waited > SOON and not announced:
            announced = True
            logger.info(
                f"{what}: waiting up to {lease_timeout:.0f} s to see whether {writer.who} is alive"
            )
        time.sleep(min(0.2, lease_timeout / 10))
        now = latest(folder, writer.name)
        if now is None or (now.number, now.heartbeat) != (writer.number, writer.heartbeat):
            return now is not None and now.number == writer.number and now.ended is not None
    return True


def revoke(folder: Path, name: str, what: str, lease_timeout: float) -> Writer | None:
    """Take a dead writer's lease from it, for nobody: should the writer be alive after all, it stops.

    Returns the writer that is alive, if one is.
    """
    while (last := latest(folder, name)) is not None and last.ended is None:
        if not is_dead(folder, last, what, lease_timeout):
            now = latest(folder, name)
            if now is not None and now.number == last.number and now.ended is None:
                return now
            continue
        successor = replace(last, number=last.number + 1, ended=f"lost; {myself().who} went on")
        try:
            create(file_of(folder, name, successor.number), successor)
        except FileExistsError:  # another process has done the same, or has taken it
            continue
        file_of(folder, name, last.number).unlink(missing_ok=True)
    return None


def _take(folder: Path, name: str, what: str, lease_timeout: float) -> Writer:
    folder.mkdir(exist_ok=True)
    last = latest(folder, name)
    if last is not None and last.ended is None:
        if not is_dead(folder, last, what, lease_timeout):
            raise _refused(what, latest(folder, name))
        now = latest(folder, name) or last
        if now.number != last.number and now.ended is None:  # another process was quicker
            raise _refused(what, now)
        last = now
        if last.ended is None:
            logger.warning(f"{what}: {last.who} ended without a word; taking over")
    number = last.number + 1 if last is not None else 1
    writer = replace(myself(), name=name, number=number)
    if last is not None:
        before = last.progress
        writer = replace(writer, progress=Progress(total=before.total, done=before.done))
    try:
        create(file_of(folder, name, number), writer)
    except FileExistsError:
        raise _refused(what, latest(folder, name)) from None
    if max(numbers(folder)[name]) != number:
        raise _refused(what, latest(folder, name))
    for old in numbers(folder)[name]:
        if old < number:
            file_of(folder, name, old).unlink(missing_ok=True)
    return writer


def _refused(what: str, writer: Writer | None) -> LeaseHeld:
    who = writer.who if writer is not None else "another process"
    return LeaseHeld(f"{what} is being written by {who}; wait for it, or stop it")
