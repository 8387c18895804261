"""The inside of a helper process: evaluates a function on request, under limits that the kernel keeps.

It is started as a module, with the descriptor of a pipe as its argument; `pool` has the other end.
When the parent is gone the pipe ends, and in the middle of a call the kernel's timers end the process.
"""

import os
import pickle
import resource
import signal
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

WALL_CLOCK_FACTOR = 20
"""Wall-clock limit of a call, as a multiple of its limit of CPU time, for a busy machine."""

HEADROOM = 4
"""Memory given to a call, as a multiple of its limit: what grows by doubling breaks the limit visibly before it
meets a MemoryError, which a library that catches every exception would hide, and answer wrongly."""


class Task(NamedTuple):
    """What a process is for; it comes pickled, and first."""

    function: Callable[..., Any]
    memory_mb: int
    """Address space that a call may add, MiB."""
    warm_up: tuple[Any, ...] | None
    """Arguments of a call before all others, which fills imports and caches."""


class Reply(NamedTuple):
    """It goes as a plain tuple: this module has another name inside than outside."""

    kind: str
    """value, error or memory: what the function returned, what it raised, a limit that it broke."""
    value: Any


def serve(pipe: "Connection[Any, Any]") -> None:
    """Answer calls until the parent closes its end, or the memory limit is broken."""
    os.nice(19)  # whatever else runs goes first
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    reply = _attempt(_prepare, pipe.recv_bytes())
    pipe.send((reply.kind, None if reply.kind == "value" else reply.value))
    task = reply.value
    while reply.kind != "memory":
        try:
            arguments, timeout = pipe.recv()
        except EOFError:
            return
        signal.setitimer(signal.ITIMER_PROF, timeout + 1)
        signal.setitimer(signal.ITIMER_REAL, WALL_CLOCK_FACTOR * timeout + 1)
        before = _address_space("VmSize")
        reply = _attempt(task.function, *arguments)
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        if _address_space("VmPeak") - before > task.memory_mb:
            reply = Reply("memory", None)
        pipe.send(tuple(reply))


def _prepare(pickled: bytes) -> Task:
    task: Task = pickle.loads(pickled)
    if task.warm_up is not None:
        task.function(*task.warm_up)
    if sys.platform == "linux":
        limit = int((_address_space("VmSize") + HEADROOM * task.memory_mb) * 2**20)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    return task


def _attempt(function: Callable[..., Any], *arguments: Any) -> Reply:
    try:
        return Reply("value", function(*arguments))
    except MemoryError:
        return Reply("memory", None)
    except Exception as error:
        return Reply("error", f"{type(error).__name__}: {error}"[:200])


def _address_space(field: str) -> float:
    """VmSize (now) or VmPeak (ever) of this process, MiB; 0 where the kernel does not tell."""
    status = Path("/proc/self/status")
    lines = status.read_text(encoding="utf-8").splitlines() if status.exists() else []
    return sum(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])))
