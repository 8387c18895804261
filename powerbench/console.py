"""The edges of a command's process: its console, its exit codes, how it ends."""

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache

from rich.console import Console

from powerbench.errors import UserError, one_line

EXIT_SOME_FAILED = 1
EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130


TIED = "POWERBENCH_TIED"
"""Set for a process that is to end when its standard input does, which its parent holds open."""


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
