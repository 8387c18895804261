"""The edges of a command's process: its console, its exit codes, how it ends."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from rich.console import Console

from powerbench.errors import UserError, one_line

EXIT_SOME_FAILED = 1
EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130


TIED = "POWERBENCH_TIED"
"""Set for a process that is to end when its standard input does, which its parent holds open."""


def console() -> Console:
    """Full width where the output is a file, so that tables keep their shape."""
    wide = None if sys.stdout.isatty() else 132
    return Console(width=int(os.environ.get("COLUMNS") or 0) or wide, highlight=False)


def teller(console: Console) -> Callable[[str], None]:
    """Prints lines as they are, whatever their length.

    A line that cannot be printed, such as to a log on a full disk, is no reason to stop.
    """

    def tell(line: str) -> None:
        with suppress(OSError):
            console.print(line, soft_wrap=True, markup=False)

    return tell


@contextmanager
def mistakes_in_one_line() -> Iterator[None]:
    """Report what the user can mend, or the system refuses, in one line; exit with code 2."""
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
