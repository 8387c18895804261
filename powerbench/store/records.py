"""Files of records: one JSON object a line, append-only, each line with its own checksum.

A line's last field, `crc`, is the CRC-32 (eight hex digits) of the bytes before it. What follows the last
newline is torn: the end of a write that never came to its own end. It holds nothing that anyone was
told of, so that readers leave it out, and the next writer cuts it off.
"""

import errno
import logging
import os
import platform
import re
import threading
import time
import zlib
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar

import msgspec

from powerbench.errors import UserError

T = TypeVar("T")

FULL = (errno.ENOSPC, errno.EDQUOT)
RETRY = 5.0
"""Seconds between attempts to write to a full disk."""

_CRC = re.compile(rb',"crc":"([0-9a-f]{8})"\}')
_CRC_LENGTH = len(b',"crc":"01234567"}')
_encoder = msgspec.json.Encoder()
logger = logging.getLogger(__name__)

CheckLease = Callable[[], None]


class Damaged(UserError):  # noqa: N818
    """Something stored that is not what was written."""

    def __init__(self, where: str, why: str, remedy: str) -> None:
        super().__init__(f"{where} {why}; {remedy}")
        self.why = why


class Line(NamedTuple):
    """A whole line of a file."""

    number: int
    """From 1."""
    start: int
    """Its first byte's offset in the file."""
    content: bytes
    """Without the newline."""


def encode(record: Any) -> bytes:
    """A record (a dataclass, a NamedTuple, plain data) as a line, with checksum and newline."""
    return with_checksum(_encoder.encode(record)) + b"\n"


def lines(path: Path) -> Iterator[Line]:
    """The whole lines of a file, unchecked; none if there is no file."""
    if not path.exists():
        return
    start = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            yield Line(number, start, line[:-1])
            start += len(line)


def line_at(file: IO[bytes], number: int, start: int) -> Line:
    """The line of a file that begins at this offset, unchecked. number: the line's, from 1."""
    file.seek(start)
    return Line(number, start, file.readline().removesuffix(b"\n"))


def intact(content: bytes) -> bool:
    """Whether a line's checksum is that of its content."""
    body, end = content[:-_CRC_LENGTH], content[-_CRC_LENGTH:]
    match = _CRC.fullmatch(end)
    return match is not None and int(match[1], 16) == zlib.crc32(body)


def check(path: Path, line: Line) -> None:
    """Raise Damaged unless the line is what was written."""
    if not intact(line.content):
        has_one = _CRC.fullmatch(line.content[-_CRC_LENGTH:]) is not None
        raise _damaged(
            path, line, "its checksum does not fit" if has_one else "it ends with no checksum"
        )


def read(path: Path, kind: type[T]) -> Iterator[T]:
    """The records of a file, checked and decoded; raises Damaged at the first that cannot be."""
    decoder = msgspec.json.Decoder(kind)
    for line in lines(path):
        check(path, line)
        yield decode(path, line, decoder)


def decode(path: Path, line: Line, decoder: "msgspec.json.Decoder[T]") -> T:
    """The record of a line that has been checked; raises Damaged if it is another kind of record."""
    try:
        return decoder.decode(line.content)
    except msgspec.DecodeError as error:
        raise _damaged(path, line, str(error)) from error


def torn(path: Path) -> int:
    """The length of what follows the last newline, in bytes."""
    if not path.exists():
        return 0
    with path.open("rb") as file:
        return _length_of_tail(file)


def with_checksum(content: bytes) -> bytes:
    """A JSON object as a line with a checksum, without the newline."""
    body = content.rstrip()[:-1]
    return b'%b,"crc":"%08x"}' % (body, zlib.crc32(body))


def _damaged(path: Path, line: Line, why: str) -> Damaged:
    return Damaged(f"{path} line {line.number}", f"is damaged: {why}", remedy(path))


def remedy(path: Path) -> str:
    """What to do about a damaged line of a file of a run."""
    inside = path.parent.name in ("scores", "likelihoods")
    folder = path.parent.parent if inside else path.parent
    return f"`powerbench verify --repair {folder}` quarantines it"


# -- writing --------------------------------------------------------------------------------------


class Appender:
    """The writer of a file of records. Obtained from `appending`."""

    def __init__(self, path: Path, file: IO[bytes], wait: bool, check_lease: CheckLease) -> None:
        self.path, self._file, self._wait, self._check_lease = path, file, wait, check_lease
        self._piece: tuple[int, int] | None = None  # where one may be left, and its length at most

    def write(self, record: Any) -> None:
        """Append a record; when this returns, it is on the disk.

        If the disk is full it waits until there is space, unless `wait` is false; raises OSError
        otherwise. Whatever is raised, of the record nothing is left that is read.
        """
        line = encode(record)
        retry_while_full(lambda: self._append(line), self.path, self._wait)

    def _append(self, line: bytes) -> None:
        # The file is open for appending: should a successor be at work already, nothing of it is overwritten.
        self._check_lease()
        self._drop_piece()
        self._piece = self._file.seek(0, os.SEEK_END), len(line)
        try:
            rest = memoryview(line)
            while rest:
                rest = rest[self._file.write(rest) :]
            os.fsync(self._file.fileno())
        except BaseException:
            with suppress(OSError, UserError):  # left to the next attempt, or to the next writer
                self._check_lease()
                self._drop_piece()
            raise
        self._piece = None

    def _drop_piece(self) -> None:
        """Cut off what is left of an unfinished line, unless there is more than it can be."""
        if self._piece is not None:
            begin, most = self._piece
            if 0 < self._file.seek(0, os.SEEK_END) - begin <= most:
                self._file.truncate(begin)
            self._piece = None


def _unleased() -> None:
    """Checks nothing, for a file that nobody else writes."""


@contextmanager
def appending(
    path: Path, wait: bool = True, check_lease: CheckLease = _unleased
) -> Iterator[Appender]:
    """Append to a file of records, of which the caller is the only writer; cuts a torn line off first.

    wait: for space, where the disk is full; otherwise writing raises OSError.
    check_lease: is called before anything is changed; raises UserError if the caller may write no more.
    """
    if not path.exists():
        path.touch()
        _sync(path.parent)
    with path.open("a+b", buffering=0) as file:
        length = _length_of_tail(file)
        if length:
            end = file.seek(-length, os.SEEK_END)
            if intact(file.read(length)):  # only its newline is missing

                def end_it() -> None:
                    check_lease()
                    file.write(b"\n")

                retry_while_full(end_it, path, wait)
            else:
                file.truncate(end)
                logger.warning(f"{path}: cut off a torn last line of {length} bytes")
        yield Appender(path, file, wait, check_lease)


def write_atomic(path: Path, content: bytes, durable: bool = False) -> None:
    """Write a whole file at once: a crash of the process leaves the old one or the new one.

    durable: so does a crash of the machine.
    """
    with _replacing(path, durable) as file:
        file.write(content)


def drop_lines(path: Path, numbers: Container[int]) -> None:
    """Take lines, named by their numbers, out of a file: at once and durably, and only by the one writer
    of the file."""
    with _replacing(path, durable=True) as file:
        for line in lines(path):
            if line.number not in numbers:
                file.write(line.content + b"\n")


@contextmanager
def _replacing(path: Path, durable: bool) -> Iterator[IO[bytes]]:
    """A file that takes the place of another when it is complete."""
    unfinished = path.with_name(f".{path.name}.{unique_suffix()}")
    try:
        with unfinished.open("wb") as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        unfinished.replace(path)
        if durable:
            _sync(path.parent)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def unique_suffix() -> str:
    """Names what only this thread makes, among all processes of all machines."""
    return f"{platform.node()}.{os.getpid()}.{threading.get_ident()}"


def _sync(folder: Path) -> None:
    """Have the names in a folder on the disk, where the system can do so."""
    with suppress(OSError):
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def retry_while_full(write: Callable[[], T], path: Path, wait: bool = True) -> T:
    """Write; if the disk is full, say so and try again until it is not.

    wait: false to raise OSError instead.
    """
    paused = False
    while True:
        try:
            written = write()
        except OSError as error:
            if not wait or error.errno not in FULL:
                raise
            if not paused:
                logger.warning(f"paused: {path}: {error.strerror}; free some space, and it goes on")
            paused = True
            time.sleep(RETRY)
        else:
            if paused:
                logger.info("there is space again: going on")
            return written


def _length_of_tail(file: IO[bytes]) -> int:
    end = file.seek(0, os.SEEK_END)
    start, tail = end, b""
    while start > 0 and b"\n" not in tail:
        start = max(0, start - 65536)
        file.seek(start)
        tail = file.read(end - start)
    return len(tail) - tail.rfind(b"\n") - 1
