"""A function in helper processes: limits are kept, deaths are reported, and nothing outlives its parent.

Run: pytest tests/verifiers/workers/test_pool.py
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from powerbench.verifiers.workers.pool import Died, OutOfMemory, Pool, TimedOut, WorkerError

HANG = 120.0
"""Seconds after which something that should have happened has not."""


def work(what: str) -> object:
    if what == "forever":
        while True:
            pass
    if what == "forever in C":
        return 9 ** (9**9)
    if what == "forever asleep":
        time.sleep(HANG)
    if what == "nap":
        time.sleep(1)
    if what == "die":
        os._exit(3)
    if what == "raise":
        raise ValueError("no such thing")
    if what == "print":
        print("noise", flush=True)
        print("noise", file=sys.stderr, flush=True)
    if what == "too much at once":
        return len(bytearray(2**34))
    if what == "too much, refused":
        try:
            return len(bytearray(2**34))
        except MemoryError:
            return "refused"
    if what == "too much, unsaid":
        with suppress(Exception):  # as a library may
            hoard = [b""]
            while True:
                hoard *= 2
        return "wrong"
    return os.getpid()


def meet(folder: str) -> int:
    """Returns when two processes are here at once."""
    Path(folder, str(os.getpid())).touch()
    while len(list(Path(folder).iterdir())) < 2:
        time.sleep(0.01)
    return os.getpid()


def unprepared(what: str) -> str:
    raise ModuleNotFoundError(f"No module named {what!r}")


@pytest.fixture
def pool() -> Iterator[Pool]:
    pool = Pool(work, workers=1, memory_mb=512)
    yield pool
    pool.close()


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def seconds(process: psutil.Process) -> float:
    """CPU time."""
    try:
        times = process.cpu_times()
        return times.user + times.system
    except psutil.NoSuchProcess:
        return 0


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + HANG
    while not condition():
        assert time.monotonic() < end, "it does not happen"
        time.sleep(0.02)


def test_one_other_process_serves_all_calls(pool: Pool) -> None:
    first = pool.call("pid", timeout=5)
    assert first != os.getpid()
    assert pool.call("print", timeout=5) == first


def test_calls_at_once_have_a_process_each(tmp_path: Path) -> None:
    pool = Pool(meet, workers=2, memory_mb=512)
    with ThreadPoolExecutor(2) as threads:
        pids = [threads.submit(pool.call, str(tmp_path), timeout=5) for _ in range(2)]
        assert len({pid.result() for pid in pids}) == 2
    pool.close()


def test_more_calls_than_workers_wait_for_their_turn(pool: Pool) -> None:
    with ThreadPoolExecutor(4) as threads:
        pids = [threads.submit(pool.call, "pid", timeout=5) for _ in range(12)]
        assert len({pid.result() for pid in pids}) == 1


@pytest.mark.parametrize("endless", ["forever", "forever in C", "forever asleep"])
def test_a_broken_time_limit_kills_it_and_the_next_call_has_another(
    pool: Pool, endless: str
) -> None:
    first = pool.call("pid", timeout=5)
    with pytest.raises(TimedOut, match="timed out"):
        pool.call(endless, timeout=0.1)
    assert gone(first)
    assert pool.call("pid", timeout=5) != first


def test_the_limit_is_of_cpu_time_so_that_a_busy_machine_changes_no_score(pool: Pool) -> None:
    assert pool.call("nap", timeout=0.5) == pool.call("pid", timeout=0.5)


@pytest.mark.skipif(sys.platform != "linux", reason="macOS has no limit of address space")
@pytest.mark.parametrize("greedy", ["too much at once", "too much, unsaid"])
def test_a_broken_memory_limit_is_reported_and_the_next_call_has_another_process(
    pool: Pool, greedy: str
) -> None:
    first = pool.call("pid", timeout=5)
    with pytest.raises(OutOfMemory, match="out of memory"):
        pool.call(greedy, timeout=30)
    assert gone(first)
    assert pool.call("pid", timeout=5) != first


@pytest.mark.skipif(sys.platform != "linux", reason="macOS has no limit of address space")
def test_memory_beyond_the_limit_is_refused(pool: Pool) -> None:
    assert pool.call("too much, refused", timeout=30) == "refused"


def test_its_death_is_an_error_and_the_next_call_has_another(pool: Pool) -> None:
    with pytest.raises(Died, match="exit code 3"):
        pool.call("die", timeout=5)
    assert pool.call("pid", timeout=5) != os.getpid()


def test_a_death_between_calls_goes_unnoticed(pool: Pool) -> None:
    first = pool.call("pid", timeout=5)
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: gone(first))
    assert pool.call("pid", timeout=5) != first


def test_an_exception_is_reported_and_the_process_stays(pool: Pool) -> None:
    first = pool.call("pid", timeout=5)
    with pytest.raises(WorkerError, match="ValueError: no such thing"):
        pool.call("raise", timeout=5)
    assert pool.call("pid", timeout=5) == first


def test_a_process_that_cannot_warm_up_says_why() -> None:
    pool = Pool(unprepared, workers=1, memory_mb=512, warm_up=("math_verify",))
    with pytest.raises(Died, match="No module named 'math_verify'"):
        pool.call("sympy", timeout=5)
    pool.close()


def test_it_yields_to_generation(pool: Pool) -> None:
    assert psutil.Process(pool.call("pid", timeout=5)).nice() == 19


def test_close_ends_all_processes_and_a_later_call_starts_another(pool: Pool) -> None:
    first = pool.call("pid", timeout=5)
    pool.close()
    assert gone(first)
    assert pool.call("pid", timeout=5) != first


def test_close_ends_a_call_under_way(pool: Pool) -> None:
    pid = pool.call("pid", timeout=5)
    with ThreadPoolExecutor(1) as threads:
        call = threads.submit(pool.call, "forever in C", timeout=HANG)
        busy = psutil.Process(pid).cpu_times().user
        wait_until(lambda: psutil.Process(pid).cpu_times().user > busy)
        pool.close()
        with pytest.raises(Died):
            call.result()
    assert gone(pid)


PARENT = """
import sys
from powerbench.verifiers.workers.pool import Pool
pool = Pool(eval, workers=1, memory_mb=512)
print(pool.call("__import__('os').getpid()", timeout=5), flush=True)
pool.call(sys.argv[1], timeout=float(sys.argv[2]))
"""


@pytest.mark.parametrize(
    ("stuck", "timeout"), [("9 ** 9 ** 9", 1), ("__import__('time').sleep(9999)", 0.2)]
)
def test_a_stuck_process_does_not_outlive_a_parent_that_is_killed(
    tmp_path: Path, stuck: str, timeout: float
) -> None:
    started = tmp_path / "started"
    expression = f"open({str(started)!r}, 'w').close() or {stuck}"
    command = [sys.executable, "-c", PARENT, expression, str(timeout)]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    worker = psutil.Process(int(parent.stdout.readline()))
    used = []

    def ended() -> bool:
        used.append(seconds(worker))
        return gone(worker.pid)

    try:
        wait_until(started.exists)
        parent.kill()
        parent.wait()
        wait_until(ended)
        assert max(used) < timeout + 5
    finally:
        with suppress(psutil.NoSuchProcess):
            worker.kill()
        parent.stdout.close()


def test_threads_that_die_leave_the_processes_alone(pool: Pool) -> None:
    pids: list[object] = []
    thread = threading.Thread(target=lambda: pids.append(pool.call("pid", timeout=5)))
    thread.start()
    thread.join()
    assert [pool.call("pid", timeout=5)] == pids
