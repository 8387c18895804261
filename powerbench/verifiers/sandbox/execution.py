"""One program, one sandbox: starts it, sends it the program and tests, and reads the report."""

import marshal
import math
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from multiprocessing.connection import wait
from select import PIPE_BUF
from typing import NamedTuple

from powerbench.verifiers.sandbox.inside import channel
from powerbench.verifiers.sandbox.modes import STARTS, Start, compiled, packages
from powerbench.verifiers.signals import shielded

STARTUP = 60.0
"""Seconds that a sandbox may take until the program runs."""
GRACE = 10.0
"""Seconds that it may take, when the program's are over, to end everything inside."""
ENVIRONMENT = {
    "PYTHONHASHSEED": "0",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "TZ": "UTC",
}
"""All that there is: neither the user's locale, nor settings of Python, reach a program."""
BOOT = "import sys; sys.path.insert(0, sys.argv[1]); from inside.supervisor import main; main()"
PARTING = 1.0
"""Seconds that its output may stay open after the report."""


class Limits(NamedTuple):
    """What a program may use."""

    seconds: float
    """From when its module starts to run until its tests have passed, on the clock."""
    memory_mb: int
    """Address space of each of its processes, MiB."""
    file_mb: int
    """Size of a file and, in a bubblewrap, of all that it writes, MiB."""


class Program(NamedTuple):
    """A completion, and the tests that it is to pass."""

    preamble: str
    """The prompt's own imports and helpers, which the tests may use. Trusted."""
    source: str
    """The completion as a whole module, with the preamble."""
    entry_point: str
    test: str
    """Defines check(candidate). Trusted."""


class Execution(NamedTuple):
    """How a program ended."""

    passed: bool | None
    """None: the sandbox failed, or cannot run these tests; which says nothing about the program."""
    reason: str
    mode: str


def execute(program: Program, limits: Limits, mode: str) -> Execution:
    """Whether the program's checks return. May be called from several threads at once."""
    try:
        with STARTS[mode](limits.file_mb) as start:
            report, folder = _report(program, limits, start), start.folder
    except OSError as error:
        return Execution(None, f"the sandbox failed: {error}", mode)
    if report == channel.PASSED:
        return Execution(True, "passed", mode)
    passed = None if report.startswith(channel.UNDECIDED) else False
    reason = report.removeprefix(channel.UNDECIDED).removeprefix(channel.FAILED)
    return Execution(passed, _without_places(reason.decode(errors="replace"), folder), mode)


def _without_places(reason: str, folder: str) -> str:
    """One printable line that names no folder of this machine: a program has the same reason everywhere."""
    line = "".join(c if c.isprintable() else "?" for c in " ".join(reason.split()))
    for place in sorted({folder, sys.prefix, sys.base_prefix} - {"/"}, key=len, reverse=True):
        line = line.replace(f"{place}/", "")
    return line


def _report(program: Program, limits: Limits, start: Start) -> bytes:
    """What comes out of the sandbox. Raises OSError if it does not get as far as running the program."""
    command = [sys.executable, "-s", "-P", "-S", "-B", "-c", BOOT, str(compiled().parent)]
    with shielded():
        started = subprocess.Popen(
            [*start.prefix, *command],
            pass_fds=[] if start.ruleset is None else [start.ruleset],
            cwd=start.folder,
            env=ENVIRONMENT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    with started as process:
        assert process.stdin and process.stdout and process.stderr
        try:
            with suppress(BrokenPipeError):
                for message in (_job(program, limits, start), program.test.encode()):
                    channel.send(process.stdin.fileno(), message)
            heard = _heard(process.stdout.fileno(), limits.seconds)
        finally:
            with suppress(PermissionError):  # macOS: all processes of the group have ended
                os.killpg(process.pid, signal.SIGKILL)
        if not heard.startswith(channel.READY):
            raise OSError(_last_line(process.stderr.fileno()))
    report = heard.removeprefix(channel.READY).strip()
    return report or channel.FAILED + b"the sandbox was ended from inside"


def _job(program: Program, limits: Limits, start: Start) -> bytes:
    """The arguments of inside.supervisor.attempt."""
    return marshal.dumps(
        {
            "preamble": program.preamble,
            "source": program.source,
            "entry_point": program.entry_point,
            "seconds": float(limits.seconds),
            "cpu_seconds": math.ceil(limits.seconds) + 1,
            "memory_mb": limits.memory_mb,
            "file_mb": limits.file_mb,
            "syscalls": start.syscalls,
            "ruleset": start.ruleset,
            "packages": packages(),
        }
    )


def _heard(descriptor: int, seconds: float) -> bytes:
    """READY and the report, a line each, or what comes of them before the end of a time or the file."""
    heard = _more(descriptor, b"", 1, STARTUP)
    if heard.startswith(channel.READY):
        heard = _more(descriptor, heard, 2, seconds + GRACE)
    if heard.count(b"\n") == 2:  # now it ends by itself, and leaves nothing to be waited for
        heard = _more(descriptor, heard, 3, PARTING)
    return heard


def _more(descriptor: int, heard: bytes, lines: int, seconds: float) -> bytes:
    """`heard` and what follows, until it has `lines` lines, the file ends, or the time is up.

    The end of the file may not come: a process forked from this one meanwhile would keep it open.
    """
    deadline = time.monotonic() + seconds
    while heard.count(b"\n") < lines and wait([descriptor], max(0.0, deadline - time.monotonic())):
        chunk = os.read(descriptor, PIPE_BUF)
        if not chunk:
            break
        heard += chunk
    return heard


def _last_line(errors: int) -> str:
    lines = _more(errors, b"", sys.maxsize, PARTING).decode(errors="replace").split("\n")
    return next((line for line in reversed(lines) if line.strip()), "it did not start")
