"""A helper process that evaluates one function under a deadline, and is killed when it misses it.

The process is a fresh interpreter, not a fork: the parent may hold threads and a loaded model. It
starts at the first call, imports once, and serves all calls until it is killed or closed.
"""

import importlib
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any

STARTUP = 120.0
"""Seconds that the process may take to start and import."""


class WorkerError(Exception):
    """The function gave no result; the message says why."""


class TimedOut(WorkerError):  # noqa: N818
    """It missed the deadline."""


class Died(WorkerError):  # noqa: N818
    """Its process could not start, or ended."""


class Worker:
    """Evaluates a top-level function elsewhere; `imports` names modules to load before the first call."""

    def __init__(self, function: Callable[..., Any], imports: Sequence[str] = ()) -> None:
        self._function = function
        self._imports = imports
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def call(self, *arguments: Any, timeout: float) -> Any:
        """function(*arguments), both picklable, within `timeout` seconds.

        Raises TimedOut or Died, or WorkerError with the exception that the function raised.
        """
        with self._lock:
            try:
                if self._process is None:
                    self._start()
                self._pipe.send((arguments, timeout))
                if not self._pipe.poll(timeout):
                    raise TimedOut("timed out")
                ok, result = self._pipe.recv()
            except (OSError, EOFError) as error:
                self._stop()
                raise Died("the helper process ended") from error
            except BaseException:  # an interrupt too: a late reply would pass for the next call's
                self._stop()
                raise
        if not ok:
            raise WorkerError(result)
        return result

    def close(self) -> None:
        """End the process; a later call starts another."""
        with self._lock:
            self._stop()

    def _start(self) -> None:
        self._pipe, theirs = Pipe()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", __name__, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env=os.environ | {"PYTHONPATH": _search_path()},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # an interrupt from the keyboard is for the parent alone
            )
        self._pipe.send((self._imports, pickle.dumps(self._function)))
        if not self._pipe.poll(STARTUP):
            raise Died("the helper process does not start")
        ok, result = self._pipe.recv()
        if not ok:
            raise Died(f"the helper process cannot start: {result}")

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._pipe.close()
            self._process = None


def _search_path() -> str:
    return os.pathsep.join(str(Path(entry).absolute()) for entry in sys.path)


# -- the helper process ---------------------------------------------------------------------------


def serve(pipe: "Connection[Any, Any]") -> None:
    """Answer calls until the parent closes its end."""
    ok, function = _attempt(_load, *pipe.recv())
    pipe.send((ok, None if ok else function))
    while ok:
        try:
            arguments, timeout = pipe.recv()
        except EOFError:
            return
        # Should the parent be gone, the alarm ends a call that would run forever.
        signal.setitimer(signal.ITIMER_REAL, timeout + 1)
        reply = _attempt(function, *arguments)
        signal.setitimer(signal.ITIMER_REAL, 0)
        pipe.send(reply)


def _load(imports: Sequence[str], pickled: bytes) -> Any:
    for module in imports:
        importlib.import_module(module)
    return pickle.loads(pickled)


def _attempt(function: Callable[..., Any], *arguments: Any) -> tuple[bool, Any]:
    try:
        return True, function(*arguments)
    except Exception as error:
        return False, f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])))
