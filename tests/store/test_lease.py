"""One writer at a time: living, dead, silent, heard and displaced ones.

Run: pytest tests/store/test_lease.py
"""

import errno
import multiprocessing
import os
import platform
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from powerbench.store import lease
from powerbench.store.lease import Lease, LeaseHeld, LeaseLost, acquire
from powerbench.store.owner import Writer, file_of, latest, myself, write

SHORT = 0.3
"""A lease timeout, in seconds, for writers of which nothing more is heard."""

FOREIGN = Writer(
    host="node7",
    boot_id="b",
    pid=12,
    create_time="1",
    job="",
    restart=0,
    log="",
    started=time.time(),
)


def put(folder: Path, writer: Writer, number: int = 1) -> None:
    (folder / "writers").mkdir(exist_ok=True)
    write(file_of(folder / "writers", "samples", number), writer)


def take(folder: Path, lease_timeout: float = SHORT) -> "Iterator[Lease]":
    return acquire(folder, "samples", "the run", lease_timeout)


def last(folder: Path) -> Writer:
    writer = latest(folder / "writers", "samples")
    assert writer is not None
    return writer


def test_a_lease_is_held_by_one_and_given_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with take(tmp_path) as held:
        assert last(tmp_path).alive() is True
        with pytest.raises(
            LeaseHeld, match=f"the run is being written by process {os.getpid()} on "
        ):
            take(tmp_path).__enter__()
        held.progress.done = 3
    assert (last(tmp_path).ended, last(tmp_path).progress.done) == ("complete", 3)
    with take(tmp_path):
        assert last(tmp_path).number == 2
    assert [f.name for f in (tmp_path / "writers").iterdir()] == ["samples.2.json"]
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("error", "ended"),
    [
        (KeyboardInterrupt(), "interrupted"),
        (ValueError("no such thing"), "failed: no such thing"),
        (OSError(5, "Input/output error"), "failed: Input/output error"),
        (AssertionError(), "failed: AssertionError"),
    ],
)
def test_how_it_ended_is_told(tmp_path: Path, error: BaseException, ended: str) -> None:
    with pytest.raises(type(error)), take(tmp_path):
        raise error
    assert last(tmp_path).ended == ended
    with take(tmp_path):
        pass


def _hold(folder: Path, ready: "multiprocessing.synchronize.Event") -> None:
    with acquire(folder, "samples", "the run"):
        ready.set()
        time.sleep(600)


@contextmanager
def holder(folder: Path) -> Iterator[multiprocessing.Process]:
    """Another process that holds the lease."""
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    process = context.Process(target=_hold, args=(folder, ready))
    process.start()
    try:
        assert ready.wait(60)
        yield process
    finally:
        process.kill()
        process.join()


def test_a_killed_process_loses_it_at_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with holder(tmp_path) as process:
        with pytest.raises(LeaseHeld, match=f"process {process.pid} on {platform.node()}"):
            take(tmp_path).__enter__()
        process.kill()
        process.join()
        with take(tmp_path, lease_timeout=3600):
            pass
    assert caplog.messages == [
        f"the run: process {process.pid} on {platform.node()} ended without a word; taking over"
    ]


def test_a_process_number_used_again_is_another_process(tmp_path: Path) -> None:
    with take(tmp_path):
        mine = last(tmp_path)
    put(tmp_path, replace(mine, ended=None, create_time="1"), 2)
    with take(tmp_path, lease_timeout=3600):
        pass


def test_a_silent_one_elsewhere_loses_it_after_the_lease_timeout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    put(tmp_path, replace(FOREIGN, job="slurm 3_1", started=time.time() + 1e6))
    monkeypatch.setattr(lease, "SOON", 0.0)
    with take(tmp_path):
        pass
    assert caplog.messages == [
        "the run: waiting up to 0 s to see whether process 12 on node7, slurm 3_1 is alive",
        "the run: process 12 on node7, slurm 3_1 ended without a word; taking over",
    ]


def test_one_elsewhere_with_a_heartbeat_keeps_it(tmp_path: Path) -> None:
    put(tmp_path, FOREIGN)
    heartbeats = threading.Timer(SHORT / 3, put, [tmp_path, replace(FOREIGN, heartbeat=1)])
    heartbeats.start()
    with pytest.raises(LeaseHeld, match="process 12 on node7"):
        take(tmp_path, lease_timeout=60).__enter__()
    heartbeats.join()


def test_a_job_that_is_started_again_takes_it_from_its_own_past(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, replace(FOREIGN, job="slurm 3_1"))
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "3")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "1")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    with take(tmp_path, lease_timeout=3600):
        assert (last(tmp_path).job, last(tmp_path).restart) == ("slurm 3_1", 1)


def test_one_that_was_displaced_writes_no_more(tmp_path: Path) -> None:
    with take(tmp_path) as held:
        held.require_held()
        put(tmp_path, FOREIGN, number=2)
        with pytest.raises(LeaseLost, match=r"another process .*node7.* has taken over"):
            held.require_held()
        held.heartbeat()
    assert last(tmp_path) == replace(last(tmp_path), host="node7", ended=None)


def test_a_file_that_was_never_finished_is_that_of_a_silent_one(tmp_path: Path) -> None:
    (tmp_path / "writers").mkdir()
    (tmp_path / "writers/samples.1.json").write_text("{")
    with take(tmp_path):
        assert last(tmp_path).number == 2


def _contend(folder: Path, start: "multiprocessing.synchronize.Event", won: "object") -> None:
    start.wait()
    try:
        with acquire(folder, "samples", "the run"):
            won.put(True)  # type: ignore[attr-defined]
            time.sleep(600)
    except LeaseHeld:
        won.put(False)  # type: ignore[attr-defined]


def test_of_many_who_take_it_over_at_once_one_gets_it(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    for i in range(5):
        folder = tmp_path / str(i)
        folder.mkdir()
        mine = replace(myself(), create_time="1")  # a dead process of this machine
        put(folder, mine)
        start, won = context.Event(), context.Queue()
        many = [context.Process(target=_contend, args=(folder, start, won)) for _ in range(8)]
        for process in many:
            process.start()
        start.set()
        outcomes = [won.get(timeout=60) for _ in many]
        for process in many:
            process.kill()
            process.join()
        assert sum(outcomes) == 1


def test_who_holds_it_for_a_moment_is_waited_for(tmp_path: Path) -> None:
    done: list[str] = []

    def brief() -> None:
        with acquire(tmp_path, "samples", "the run", briefly=True):
            done.append("second")

    with acquire(tmp_path, "samples", "the run", briefly=True):
        thread = threading.Thread(target=brief)
        thread.start()
        done.append("first")
    thread.join(60)
    assert done == ["first", "second"]


def test_one_that_wakes_after_two_others_finds_that_it_has_lost(tmp_path: Path) -> None:
    """Its last heartbeat, which hung, makes its file again; the first successor's is gone by then."""
    with take(tmp_path) as held:
        put(tmp_path, FOREIGN, number=3)
        with pytest.raises(LeaseLost):
            held.require_held()


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_links_will_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def no_links(*given: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", no_links)
    with take(tmp_path), pytest.raises(LeaseHeld):
        take(tmp_path).__enter__()
    assert last(tmp_path).ended == "complete"
