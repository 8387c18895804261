"""Keeps the signals of a scheduler or a terminal away from helper processes."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

SCHEDULERS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""Signals that tell a job to end, or that its time is nearly over."""


@contextmanager
def shielded() -> Iterator[None]:
    """Start processes here that the signals of a scheduler or of a terminal do not reach.

    Slurm warns and preempts a job by signals to every process of it, helpers among them; those must not
    end before this process, which is asked to see to them. They inherit what this thread blocks.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SCHEDULERS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
