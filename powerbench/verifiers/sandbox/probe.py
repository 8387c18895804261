"""Which modes work on this machine. Each is tried once, with a program that attempts to break out."""

import sys
import threading
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType

from powerbench.verifiers.sandbox.execution import Execution, Limits, Program, execute
from powerbench.verifiers.sandbox.modes import MODES

LIMITS = Limits(seconds=30.0, memory_mb=512, file_mb=1)
SECRET = "secret"
BREAKOUT = '''
import os
import socket
import threading


def escapes(folder):
    """The ways out that are open."""
    attempts = {
        "reads files outside": lambda: open(folder + "/secret").read(),
        "writes files outside": lambda: open(folder + "/new", "w"),
        "starts processes": lambda: os.fork() or os._exit(0),
        "opens sockets": socket.socket,
        "signals other processes": lambda: os.kill(os.getppid(), 0),
    }
    return [way for way, attempt in attempts.items() if succeeds(attempt)]


def succeeds(attempt):
    try:
        attempt()
    except OSError:
        return False
    return True


def confined(folder):
    open("scratch", "w").close()
    if found := escapes(folder):
        raise RuntimeError("a program in it " + ", ".join(found))
    thread = threading.Thread(target=str)
    thread.start()
    thread.join()
    return "confined"
'''
HARMLESS = """
def confined(folder):
    return "confined"
"""

_probing = threading.Lock()


def available() -> Mapping[str, str]:
    """For each mode, "" if it works here, else why not, in one line."""
    return MappingProxyType({mode: _obstacle(mode) for mode in MODES})


def best_mode() -> str:
    """The strongest mode that works here; "limits" if none does."""
    return next((mode for mode in MODES if not _obstacle(mode)), "limits")


def run(program: Program, limits: Limits, mode: str | None = None) -> Execution:
    """Whether the program's checks return, in a sandbox of its own. From any thread.

    mode: one of MODES, or None for the strongest that works here.
    """
    return execute(program, limits, mode or best_mode())


def _obstacle(mode: str) -> str:
    with _probing:
        return _tried(mode, sys.executable)


@cache
def _tried(mode: str, interpreter: str) -> str:
    """Why the mode does not hold the programs that this interpreter runs; "" if it does."""
    with TemporaryDirectory() as folder:
        (Path(folder) / SECRET).write_text("", encoding="utf-8")
        source = HARMLESS if mode == "limits" else BREAKOUT
        test = f"def check(candidate):\n    assert candidate({folder!r}) == 'confined'\n"
        program = Program("", source, "confined", test)
        execution = execute(program, LIMITS, mode)
        if not execution.passed:  # the reason may have been a passing one
            execution = execute(program, LIMITS, mode)
    return "" if execution.passed else execution.reason.removeprefix("RuntimeError: ")
