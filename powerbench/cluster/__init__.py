"""Sweeps of runs: launchers, workers, what became of their jobs, and progress."""

from powerbench.machine.threads import choose_threads

choose_threads()  # here, since a scheduler starts its jobs with a module of this folder
