"""Files of records: what is read is what was written, or it is said where it is not.

Run: pytest tests/store/test_records.py
"""

import errno
import itertools
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pytest

from powerbench.console import console, show_log
from powerbench.errors import UserError
from powerbench.store import records
from powerbench.store.records import Damaged, appending, intact, lines, read, torn


@dataclass(frozen=True)
class Note:
    name: str
    numbers: tuple[float, ...]


NOTES = [Note('a "b"\n\u2028', (0.1, -1e300)), Note("", ()), Note("é" * 40, (1 / 3,) * 5)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "notes.jsonl"
    with appending(path) as file:
        for note in NOTES:
            file.write(note)
    return path


def test_what_is_written_is_read(path: Path) -> None:
    assert list(read(path, Note)) == NOTES
    assert list(read(path.with_name("none.jsonl"), Note)) == []


def test_no_changed_byte_is_read_as_something_else(path: Path) -> None:
    """Every byte, each in three ways: what is read is a beginning of what was written, or it is damaged."""
    whole = path.read_bytes()
    damaged = 0
    for i in range(len(whole)):
        for flip in (1, 0x20, 0xFF):
            path.write_bytes(whole[:i] + bytes([whole[i] ^ flip]) + whole[i + 1 :])
            try:
                assert list(read(path, Note)) in (NOTES, NOTES[:-1])
            except Damaged as error:
                assert str(path) in str(error)
                damaged += 1
    last = 3  # the last newline's three: then the last line is torn
    assert damaged == 3 * len(whole) - last


def test_damage_is_named_by_file_and_line(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace("éé".encode(), b"ee", 1))
    with pytest.raises(Damaged, match=r"notes\.jsonl line 3 is damaged: its checksum"):
        list(read(path, Note))


def test_another_kind_of_record_is_damage(path: Path) -> None:
    @dataclass(frozen=True)
    class Other:
        age: int

    with pytest.raises(Damaged, match=r"line 1 is damaged: .*age"):
        list(read(path, Other))


@pytest.mark.parametrize("left", [1, 30, -10, -1])
def test_a_torn_line_is_left_out_and_then_cut_off(
    path: Path, left: int, caplog: pytest.LogCaptureFixture
) -> None:
    whole = path.read_bytes()
    last = list(lines(path))[-1]
    path.write_bytes(whole[: last.start] + whole[last.start :][:left])
    assert list(read(path, Note)) == NOTES[:2]
    assert torn(path) == len(path.read_bytes()) - last.start
    with appending(path) as file:
        file.write(NOTES[0])
    if left == -1:  # only the newline was missing: it was there in full
        assert (list(read(path, Note)), caplog.messages) == ([*NOTES, NOTES[0]], [])
    else:
        assert list(read(path, Note)) == [*NOTES[:2], NOTES[0]]
        (line,) = caplog.messages
        assert "cut off a torn last line" in line and str(path) in line


def test_a_long_torn_line_is_found(tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl"
    path.write_bytes(records.encode(NOTES[0]) + b"x" * 200_000)
    assert torn(path) == 200_000


def failing(times: int, number: int) -> Callable[[int], None]:
    """An fsync that says so many times that something is wrong: what was written stays in the file."""
    real, left = os.fsync, [times]

    def fsync(descriptor: int) -> None:
        if left[0]:
            left[0] -= 1
            raise OSError(number, os.strerror(number))
        real(descriptor)

    return fsync


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_waited_for(
    path: Path, monkeypatch: pytest.MonkeyPatch, number: int, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(records, "RETRY", 0.0)
    with appending(path) as file:
        monkeypatch.setattr(os, "fsync", failing(3, number))
        file.write(NOTES[1])
    assert list(read(path, Note)) == [*NOTES, NOTES[1]]
    paused, going_on = caplog.messages
    assert "paused" in paused and str(path) in paused and "free some space" in paused
    assert "going on" in going_on


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_write_that_fails_leaves_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Where it is not to wait, or where there is nothing to wait for."""
    with appending(path, wait=number != errno.ENOSPC) as file:
        monkeypatch.setattr(os, "fsync", failing(1, number))
        with pytest.raises(OSError, match=os.strerror(number)):
            file.write(NOTES[1])
        assert list(read(path, Note)) == NOTES
        file.write(NOTES[2])
    assert list(read(path, Note)) == [*NOTES, NOTES[2]]


def test_a_line_is_its_own_witness() -> None:
    line = records.encode(NOTES[0])
    assert intact(line[:-1])
    assert not intact(line[:-1] + b" ")
    assert not intact(b"")
    assert not intact(b"{}")


class Cancelled(UserError):  # noqa: N818
    """What the check of a lease raises."""


def test_an_attempt_that_failed_touches_nothing_of_a_successor(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer hangs in its write; another takes over and writes; the first one comes to an error."""
    held = [True]

    def check_lease() -> None:
        if not held[0]:
            raise Cancelled("taken over")

    def hang(descriptor: int) -> None:
        monkeypatch.setattr(os, "fsync", real)
        held[0] = False
        with appending(path) as successor:
            successor.write(NOTES[2])
        raise OSError(errno.EIO, "Input/output error")

    real = os.fsync
    with appending(path, check_lease=check_lease) as file:
        monkeypatch.setattr(os, "fsync", hang)
        with pytest.raises(OSError, match="Input/output"):
            file.write(NOTES[1])
        with pytest.raises(Cancelled):
            file.write(NOTES[1])
    assert list(read(path, Note)) == [*NOTES, NOTES[1], NOTES[2]]


def test_the_wait_for_a_full_disk_ends_when_the_lease_is_lost(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = itertools.count()

    def check_lease() -> None:
        if next(calls) > 5:
            raise Cancelled("enough")

    monkeypatch.setattr(records, "RETRY", 0.0)
    with appending(path, check_lease=check_lease) as file:
        monkeypatch.setattr(os, "fsync", failing(9, errno.ENOSPC))
        with pytest.raises(Cancelled):
            file.write(NOTES[1])
    assert list(read(path, Note)) in (NOTES, [*NOTES, NOTES[1]])


class NoSpaceToCut:
    """A file of a file system that needs space to cut a file off, and has none at first."""

    def __init__(self, file: IO[bytes], failures: int) -> None:
        self.file, self.failures = file, failures

    def truncate(self, size: int) -> None:
        self.failures -= 1
        if self.failures >= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.file.truncate(size)

    def write(self, content: bytes) -> int:
        if self.failures > 0:
            self.file.write(content[:5])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self.file.write(content)

    def __getattr__(self, name: str) -> object:
        return getattr(self.file, name)


@pytest.mark.parametrize("next_note", [NOTES[0], NOTES[1]])
def test_a_piece_that_cannot_be_cut_off_at_once_is_cut_off_later(
    path: Path, monkeypatch: pytest.MonkeyPatch, next_note: Note
) -> None:
    monkeypatch.setattr(records, "RETRY", 0.0)
    with appending(path) as file:
        file._file = NoSpaceToCut(file._file, 3)  # type: ignore[assignment]
        file.write(NOTES[2])
    assert list(read(path, Note)) == [*NOTES, NOTES[2]]
    with appending(path, wait=False) as file:
        file._file = NoSpaceToCut(file._file, 1)  # type: ignore[assignment]
        with pytest.raises(OSError, match="No space"):
            file.write(NOTES[2])
        file.write(next_note)
    assert list(read(path, Note)) == [*NOTES, NOTES[2], next_note]


def test_a_log_on_the_same_full_disk_stops_no_one(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def full(*given: object, **more: object) -> None:
        tried.append(given)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    show_log()
    monkeypatch.setattr(console(), "print", full)
    monkeypatch.setattr(records, "RETRY", 0.0)
    with appending(path) as file:
        monkeypatch.setattr(os, "fsync", failing(2, errno.ENOSPC))
        file.write(NOTES[1])
    assert list(read(path, Note)) == [*NOTES, NOTES[1]]
    assert len(tried) == 2
