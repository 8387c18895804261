"""Run folders on disk: records with checksums, leases, checkpoints, provenance, repair, export."""

from powerbench.store.run_folder import Run, find_runs

__all__ = ["Run", "find_runs"]
