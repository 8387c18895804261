"""A function in a helper process: its deadline is kept, its death is reported, and it comes back.

Run: pytest tests/verifiers/test_worker.py
"""

import os
import sys
from collections.abc import Iterator

import pytest

from powerbench.verifiers.worker import Died, TimedOut, Worker, WorkerError


def work(what: str) -> object:
    if what == "forever":
        while True:
            pass
    if what == "forever in C":
        return 9 ** (9**9)
    if what == "die":
        os._exit(3)
    if what == "raise":
        raise ValueError("no such thing")
    if what == "print":
        print("noise", flush=True)
        print("noise", file=sys.stderr, flush=True)
    return os.getpid()


@pytest.fixture
def worker() -> Iterator[Worker]:
    worker = Worker(work)
    yield worker
    worker.close()


def test_one_other_process_serves_all_calls(worker: Worker) -> None:
    first = worker.call("pid", timeout=5)
    assert first != os.getpid()
    assert worker.call("print", timeout=5) == first


@pytest.mark.parametrize("endless", ["forever", "forever in C"])
def test_a_missed_deadline_kills_it_and_the_next_call_starts_another(
    worker: Worker, endless: str
) -> None:
    first = worker.call("pid", timeout=5)
    with pytest.raises(TimedOut, match="timed out"):
        worker.call(endless, timeout=0.2)
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)
    assert worker.call("pid", timeout=5) != first


def test_its_death_is_an_error_and_the_next_call_starts_another(worker: Worker) -> None:
    with pytest.raises(Died):
        worker.call("die", timeout=5)
    assert worker.call("pid", timeout=5) != os.getpid()


def test_an_exception_is_told_and_the_process_stays(worker: Worker) -> None:
    first = worker.call("pid", timeout=5)
    with pytest.raises(WorkerError, match="ValueError: no such thing"):
        worker.call("raise", timeout=5)
    assert worker.call("pid", timeout=5) == first


def test_a_process_that_cannot_start_says_why() -> None:
    worker = Worker(work, imports=("no_such_module",))
    with pytest.raises(Died, match="No module named 'no_such_module'"):
        worker.call("pid", timeout=5)


def test_close_ends_the_process(worker: Worker) -> None:
    first = worker.call("pid", timeout=5)
    worker.close()
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)
