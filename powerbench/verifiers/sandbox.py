"""Runs a Python program that nobody has read: in a process of its own, under limits, with a deadline.

The program passes only if it comes to its end: the harness then reports a random token. A program
that exits early, is killed, or falls silent reports none. What this is not: a security boundary
against a program written to attack it; for that, run the whole benchmark in a container.
"""

import json
import math
import os
import secrets
import signal
import subprocess
import sys
import time
from contextlib import suppress
from multiprocessing.connection import wait
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from powerbench.verifiers import harness

STARTUP = 60.0
"""Seconds that the interpreter may take to start."""
ENVIRONMENT = {"PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
REPORT_BYTES = 512


class Verdict(NamedTuple):
    """How a program ended."""

    passed: bool | None
    """None: the sandbox failed, which says nothing about the program."""
    reason: str


def run(program: str, timeout: float, memory_mb: int) -> Verdict:
    """Whether the program runs to its end: within `timeout` seconds and `memory_mb` of address space."""
    token = secrets.token_hex(16)
    job = program, token, math.ceil(timeout) + 1, memory_mb
    try:
        with TemporaryDirectory(prefix="powerbench-", ignore_cleanup_errors=True) as folder:
            (Path(folder) / harness.JOB).write_text(json.dumps(job))
            reason = _report(folder, timeout)
    except OSError as error:
        return Verdict(None, f"the sandbox failed: {error}")
    passed = reason.startswith(token)  # a program that forks reports once per process
    return Verdict(True, "passed") if passed else Verdict(False, reason)


def _report(folder: str, timeout: float) -> str:
    """What the harness reports, or, if it falls silent, how the process ended.

    Raises OSError if the harness does not get as far as running the program.
    """
    ours, theirs = os.pipe()
    try:
        process = _start(folder, theirs)
    except OSError:
        os.close(ours)
        raise
    finally:
        os.close(theirs)
    try:
        if _read(ours, len(harness.READY), STARTUP) != harness.READY:
            raise OSError("its process did not start")
        report = _read(ours, REPORT_BYTES, timeout)
    finally:
        os.close(ours)
        with suppress(PermissionError):  # macOS: all processes of the group have ended
            os.killpg(process.pid, signal.SIGKILL)
        code = process.wait()
    if report is None:
        return "timed out"
    if report:
        return " ".join(report.decode(errors="replace").split())
    ended = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exited with code {code}"
    return f"{ended} before the checks returned"


def _start(folder: str, report: int) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-s", "-P", harness.__file__, str(report)],
        pass_fds=[report],
        cwd=folder,
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _read(descriptor: int, size: int, seconds: float) -> bytes | None:
    """Up to `size` bytes, fewer at the end of the file; None if the time is up and nothing came."""
    deadline = time.monotonic() + seconds
    content = b""
    while len(content) < size:
        if not wait([descriptor], max(0.0, deadline - time.monotonic())):
            return content or None
        chunk = os.read(descriptor, size - len(content))
        if not chunk:
            break
        content += chunk
    return content
