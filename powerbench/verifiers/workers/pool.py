"""Helper processes that evaluate one function under limits of time and memory, and can be killed.

Each is a fresh interpreter, not a fork: the parent may hold threads and a loaded model. It starts when
it is first needed, warms up, and serves calls at the lowest priority until it breaks a limit, is closed,
or the parent is gone. `child` is its main module.
"""

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Pipe
from pathlib import Path
from typing import Any

import psutil

from powerbench.verifiers.common import TIMED_OUT
from powerbench.verifiers.signals import shielded
from powerbench.verifiers.workers import child
from powerbench.verifiers.workers.child import WALL_CLOCK_FACTOR, Reply, Task

STARTUP = 600.0
"""Seconds that a process may take to start and warm up, at the lowest priority on a busy machine."""


class WorkerError(Exception):
    """The function gave no result; the message says why."""


class TimedOut(WorkerError):  # noqa: N818
    """It took longer than its limit."""


class OutOfMemory(WorkerError):  # noqa: N818
    """It needed more memory than its limit."""


class Died(WorkerError):  # noqa: N818
    """Its process could not start, or ended."""


class Pool:
    """Evaluates a top-level function elsewhere, in one process for each call that is running.

    function: is found again by its module and name. workers: calls under way at once; more of them
    wait. memory_mb: address space that a process may add to what it has when it is warm, MiB (on
    Linux; macOS has no such limit).
    warm_up: arguments of a call that fills imports and caches before a process takes any other.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        workers: int,
        memory_mb: int,
        warm_up: tuple[Any, ...] | None = None,
    ) -> None:
        self._task = pickle.dumps(Task(function, memory_mb, warm_up))
        self._free = threading.BoundedSemaphore(workers)
        self._lock = threading.Lock()
        self._idle: list[Worker] = []
        self._all: set[Worker] = set()

    def call(self, *arguments: Any, timeout: float) -> Any:
        """function(*arguments), both picklable, within `timeout` seconds of CPU time.

        The limit counts from when a process that is ready takes the call; the process is killed when it
        breaks it, and also after WALL_CLOCK_FACTOR times as long by the clock. From any thread.
        Raises TimedOut, OutOfMemory or Died, or WorkerError with the exception of the function.
        """
        with self._free:
            worker = self._take()
            try:
                result = worker.call(arguments, timeout)
            except BaseException as error:
                self._give_back(worker, replace=isinstance(error, TimedOut | OutOfMemory))
                raise
            self._give_back(worker)
            return result

    def close(self) -> None:
        """End all processes; calls under way raise Died, later ones start others."""
        with self._lock:
            ended, self._all, self._idle = self._all, set(), []
        for worker in ended:
            worker.kill()

    def _take(self) -> "Worker":
        with self._lock:
            while self._idle:
                worker = self._idle.pop()
                if worker.alive:
                    return worker
                self._all.discard(worker)
            return self._start()

    def _give_back(self, worker: "Worker", replace: bool = False) -> None:
        with self._lock:
            if worker not in self._all:  # closed
                return
            if not worker.alive:
                self._all.discard(worker)
                if not replace:
                    return
                worker = self._start()  # warms up while its caller goes on with its score
            self._idle.append(worker)

    def _start(self) -> "Worker":
        worker = Worker(self._task)
        self._all.add(worker)
        return worker


class Worker:
    """One process, used by one thread at a time; it is gone once a call has raised anything but a
    plain WorkerError."""

    def __init__(self, task: bytes) -> None:
        self._pipe, theirs = Pipe()
        with theirs, shielded():
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", child.__name__, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env=os.environ | {"PYTHONPATH": _search_path()},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # an interrupt from the keyboard is for the parent alone
            )
        self._clock = psutil.Process(self._process.pid)
        self._ready = False
        with suppress(BrokenPipeError):  # it is gone already, and its first call will say so
            self._pipe.send_bytes(task)

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def call(self, arguments: tuple[Any, ...], timeout: float) -> Any:
        try:
            if not self._ready:
                self._get_ready()
            self._pipe.send((arguments, timeout))
            self._wait(timeout)
            reply: Reply = Reply(*self._pipe.recv())
        except (OSError, EOFError, psutil.Error) as error:
            self.kill()
            code = self._process.wait()
            if code in (-signal.SIGPROF, -signal.SIGALRM):  # its own timers were first
                raise TimedOut(TIMED_OUT) from error
            raise Died(f"the helper process ended (exit code {code})") from error
        except BaseException:  # an interrupt too: a late reply would pass for the next call's
            self.kill()
            raise
        if reply.kind == "memory":
            self.kill()
            raise OutOfMemory("out of memory")
        if reply.kind == "error":
            raise WorkerError(reply.value)
        return reply.value

    def kill(self) -> None:
        """End the process. From any thread: a call under way ends too."""
        self._process.kill()
        self._process.wait()

    def _get_ready(self) -> None:
        if not self._pipe.poll(STARTUP):
            raise Died("the helper process does not start")
        reply = Reply(*self._pipe.recv())
        if reply.kind != "value":
            raise Died(f"the helper process cannot start: {reply.value}")
        self._ready = True

    def _wait(self, timeout: float) -> None:
        start, end = self._seconds(), time.monotonic() + WALL_CLOCK_FACTOR * timeout
        left = timeout
        while not self._pipe.poll(left):
            left = min(timeout - (self._seconds() - start), end - time.monotonic())
            if left <= 0:
                raise TimedOut(TIMED_OUT)
            left = max(left, 0.01)

    def _seconds(self) -> float:
        """CPU time of the process, s."""
        times = self._clock.cpu_times()
        return times.user + times.system


def _search_path() -> str:
    return os.pathsep.join(str(Path(entry).absolute()) for entry in sys.path)
