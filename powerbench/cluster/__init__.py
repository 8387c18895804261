"""Sweeps of runs: launchers, workers, what became of their jobs, and progress."""
