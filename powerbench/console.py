"""The edges of a command's process: its console, its exit codes, how it ends."""

import io
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any, TextIO

from rich.console import Console

from powerbench.errors import UserError, one_line

EXIT_SOME_FAILED = 1
EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141


TIED = "POWERBENCH_TIED"
"""Set for a process that is to end when its standard input does, which its parent holds open."""


class _Outlet(io.FileIO):
    """A standard stream that goes nowhere once it cannot be written: its disk is full, its reader gone.

    must_arrive: whether that raises OSError, once, or nobody is to care.
    """

    def __init__(self, number: int, must_arrive: bool) -> None:
        super().__init__(number, "wb", closefd=False)
        self.must_arrive = must_arrive

    def write(self, content: Any) -> int:
        try:
            return super().write(content)
        except OSError as error:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.fileno())
            os.close(null)
            if self.must_arrive:
                raise type(error)(error.errno, error.strerror, "standard output") from error
            return len(content)


def speak_utf_8() -> None:
    """Start this process anew in Python's UTF-8 mode where the locale knows ASCII only, such as POSIX.

    There, no name of a file and no file that a library opens could hold another letter.
    """
    if sys.getfilesystemencoding() == "ascii":
        os.execv(sys.executable, [sys.orig_argv[0], "-X", "utf8", *sys.orig_argv[1:]])


def open_streams(must_arrive: bool) -> None:
    """Make the standard streams take any text, whatever their encoding, and exist if they were closed.

    must_arrive: whether what is printed is what the command is for. If not, as for a run, whose result is
    its folder, a full disk or a closed pipe behind the output ends nothing.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:  # closed: else the next file that is opened would take its place
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
            os.set_inheritable(number, True)
    sys.stdout = _stream(sys.stdout, 1, must_arrive, original=sys.__stdout__)
    sys.stderr = _stream(sys.stderr, 2, False, original=sys.__stderr__)


def _stream(
    stream: TextIO | None, number: int, must_arrive: bool, original: TextIO | None
) -> TextIO:
    if stream is None or stream is original:  # not what a test or a notebook has put in its place
        raw = io.BufferedWriter(_Outlet(number, must_arrive))
        encoding = "utf-8" if stream is None else stream.encoding
        if stream is not None:
            stream.flush()
        return io.TextIOWrapper(
            raw, encoding, "replace", line_buffering=raw.isatty() or number == 2
        )
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="replace")
    return stream


@cache
def console() -> Console:
    """The one console of this process: tables, log lines and a progress bar that stays below them.

    Full width where the output is a file, so that tables keep their shape.
    """
    wide = None if sys.stdout.isatty() else 132
    return Console(width=int(os.environ.get("COLUMNS") or 0) or wide, highlight=False)


class ConsoleHandler(logging.Handler):
    """Prints log lines as they are, whatever their length, on the console.

    A line that cannot be printed, such as to a file on a full disk, is no reason to stop.
    """

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError):
            console().print(record.getMessage(), soft_wrap=True, markup=False, emoji=False)


def show_log() -> None:
    """Print the package's log, in every process that runs a command or a job of a sweep."""
    log = logging.getLogger("powerbench")
    log.handlers = [ConsoleHandler()]
    log.setLevel(logging.INFO)
    log.propagate = False  # a launcher or a tracker may have put a handler of its own on the root


@contextmanager
def mistakes_in_one_line() -> Iterator[None]:
    """Report what the user can fix, or the system refuses, in one line; exit with code 2."""
    try:
        yield
    except BrokenPipeError:  # as in `powerbench list | head`
        sys.exit(EXIT_BROKEN_PIPE)
    except (UserError, OSError) as error:
        print(f"powerbench: {one_line(error)}", file=sys.stderr)
        sys.exit(EXIT_BAD_INPUT)


def end_with_parent() -> None:
    """In a process that is tied to its parent: stop, as at SIGTERM, when the parent is no more."""
    if TIED in os.environ:
        del os.environ[TIED]
        threading.Thread(target=_wait_for_end, daemon=True).start()


def _wait_for_end() -> None:
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGTERM)
