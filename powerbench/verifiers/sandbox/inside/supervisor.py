"""The first process inside: confines itself, starts the program's and the checker's, and outlives both.

In: two messages on the standard input: what the program's process may know, then the tests, which it
must not. Out, on the standard output: READY, then the report. When the report is out, every other
process is gone. It gives up when the standard input is closed: whoever asked is gone.
"""

from __future__ import annotations

import marshal
import os
import select
import sys
import time

from . import checker, confine, program
from .channel import FAILED, GONE, READY, receive, send

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

REAP_TIMEOUT = 1.0
"""Seconds for a process that has closed its channel to be seen dead."""


def main() -> None:
    attempt(**marshal.loads(receive(0)))
    os._exit(0)  # an orderly end would take a tenth of the whole


def attempt(
    *,
    preamble: str,
    source: str,
    entry_point: str,
    seconds: float,
    cpu_seconds: int,
    memory_mb: int,
    file_mb: int,
    syscalls: bytes,
    ruleset: int | None,
    packages: list[str],
) -> None:
    """Run the program and, in another process, its tests.

    preamble: trusted, so it runs here and both get its imports. packages: folders on the module path.
    """
    sys.path[:] = [*sys.path[1:], *packages]  # without the folder of this package
    confine.limit(cpu_seconds, memory_mb, file_mb)
    confine.renounce(ruleset)
    namespace: dict[str, object] = {"__name__": "tests"}
    exec(compile(preamble, "<preamble>", "exec", dont_inherit=True), namespace)
    requests, ask = os.pipe()
    replies, answer = os.pipe()

    def run_program() -> None:
        send(answer, b"confined")
        receive(requests)  # READY is out: whatever the program does now is the program's
        program.serve(source, entry_point, requests, answer)

    def run_checks() -> None:
        checker.judge(namespace, test, entry_point, ask, replies, report)

    children = [_fork(run_program, syscalls, {requests, answer})]
    test = receive(0).decode()
    heard, report = os.pipe()
    children.append(_fork(run_checks, syscalls, {ask, replies, report}))
    for descriptor in (requests, replies, answer, report):
        os.close(descriptor)
    outcome = _await(heard, children, seconds, ask)
    _end(children)
    os.write(1, outcome + b"\n")


def _fork(run: Callable[[], None], syscalls: bytes, keep: set[int]) -> int:
    """A confined process that only holds the descriptors that it needs."""
    parent, leave = os.getpid(), os._exit  # the program may replace the names in `os`
    pid = os.fork()
    if pid:
        return pid
    try:
        confine.close_doors(parent, syscalls)
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in range(confine.DESCRIPTORS):
            if descriptor < 3:
                os.dup2(null, descriptor)
            elif descriptor not in keep:
                os.closerange(descriptor, descriptor + 1)
        run()
    except BaseException:
        sys.excepthook(*sys.exc_info())
        leave(1)
    leave(0)
    raise AssertionError("unreachable")


def _await(heard: int, children: list[int], seconds: float, go: int) -> bytes:
    """The checker's report, or what became of it. Children that have been waited for are removed.

    go: tells the program's process to begin; it is the first of the requests.
    """
    events = select.poll()
    events.register(0, select.POLLIN)
    events.register(heard, select.POLLIN)
    deadline: float | None = None
    said = b""
    while True:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        ready = [descriptor for descriptor, _ in events.poll(left and left * 1000)]
        if 0 in ready:
            return b""
        if not ready:
            return FAILED + b"timed out"
        chunk = os.read(heard, select.PIPE_BUF)
        if not chunk:
            break
        said += chunk
        if deadline is None and said.startswith(READY):
            os.write(1, READY)
            try:  # noqa: SIM105 (contextlib is slow to import)
                send(go, b"go")
            except OSError:  # that process has died meanwhile, as the checker will see
                pass
            os.close(go)
            deadline = time.monotonic() + seconds
    said = said.removeprefix(READY)
    if said == GONE:
        return FAILED + f"{_ended(children, 0)} before the checks returned".encode()
    return said or FAILED + f"the checks' process {_ended(children, 1)}".encode()


def _ended(children: list[int], which: int) -> str:
    """How a child ended that is no longer heard of."""
    deadline = time.monotonic() + REAP_TIMEOUT
    while time.monotonic() < deadline:
        pid, status = os.waitpid(children[which], os.WNOHANG)
        if pid:
            children.remove(pid)
            code = os.waitstatus_to_exitcode(status)
            return f"exited with code {code}" if code >= 0 else f"killed by {_signal(-code)}"
        time.sleep(0.001)
    return "closed its channel"


def _signal(number: int) -> str:
    import signal  # takes half as long as the interpreter to start

    known = number in set(signal.Signals)  # those for real time have no name
    return signal.Signals(number).name if known else f"signal {number}"


def _end(children: list[int]) -> None:
    """Kill and wait for all descendants: when a process dies, its children become ours."""
    while True:
        for pid in {*children, *_adopted()}:
            os.kill(pid, confine.SIGKILL)
        try:
            pid, _ = os.waitpid(-1, 0)
        except ChildProcessError:
            return
        if pid in children:
            children.remove(pid)


def _adopted() -> list[int]:
    """This process's children, as far as Linux tells."""
    me = os.getpid()
    try:
        with open(f"/proc/{me}/task/{me}/children", encoding="utf-8") as file:  # noqa: PTH123 (pathlib is slow to import)
            return [int(pid) for pid in file.read().split()]
    except OSError:
        return []
