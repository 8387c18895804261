"""Writing a run folder: one writer at a time of each file, on the disk when a call returns."""

import errno
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from powerbench.errors import UserError, require
from powerbench.store import records
from powerbench.store.checkpoints import Checkpoints
from powerbench.store.lease import Lease, acquire, revoke
from powerbench.store.owner import LEASE_TIMEOUT, lease_of
from powerbench.store.provenance import difference, with_session
from powerbench.store.records import Appender
from powerbench.store.run_folder import SAMPLES, Run
from powerbench.store.shard import WHOLE, Shard
from powerbench.types import Checkpoint, Likelihood, Problem, Progress, Sample, SampleKey, Score

HEAD = "head"
"""The name of the lease on problems.jsonl, config.yaml and manifest.json."""


class SampleWriter:
    """The one writer of a shard's samples. Obtained from `sample_writer`."""

    def __init__(self, run: Run, samples: Appender, held: Lease) -> None:
        self.progress: Progress = held.progress
        self._samples, self._lease = samples, held
        self._chains = Checkpoints(run.path / "chains")

    def write(self, sample: Sample) -> None:
        """Store a finished sample: on the disk when this returns.

        Waits while the disk is full. Raises LeaseLost if another process has taken the shard over.
        """
        self._samples.write(sample)
        self._chains.remove(sample.problem, sample.replicate)
        self.progress.done += 1
        self.progress.made_here += 1
        if self.progress.made_here == 1:  # from then on there is a rate to be shown
            self._lease.heartbeat()

    def save(self, key: SampleKey, checkpoint: Checkpoint) -> None:
        """Store where an unfinished chain stands, in the place of its last checkpoint."""
        self._chains.save(*key, checkpoint, self._lease.require_held)

    def resume(self, key: SampleKey) -> Checkpoint | None:
        """Where an unfinished chain stands; None if it has to start from the beginning."""
        return self._chains.load(*key)

    def end_as(self, how: str) -> None:
        """Record how this writer ended, where leaving the context would say that it is complete."""
        self._lease.ended = how

    def heartbeat(self) -> None:
        """Show the progress now, rather than at the next heartbeat."""
        self._lease.heartbeat()


def reserve(run: Run) -> None:
    """Make the folder. Raises UserError where that is not allowed."""
    try:
        run.path.mkdir(parents=True, exist_ok=True)
        if not os.access(run.path, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(run.path))
    except OSError as error:
        raise UserError(
            f"cannot write the run folder {run.path}: {error.strerror}; "
            f"set `runs=<a folder you can write to>`"
        ) from error


@contextmanager
def sample_writer(
    run: Run, shard: Shard = WHOLE, lease_timeout: float = LEASE_TIMEOUT
) -> Iterator[SampleWriter]:
    """Write a shard's samples, as the only one who does.

    lease_timeout: seconds without a heartbeat after which a writer on another machine counts as dead.
    Raises UserError if another process writes this shard, or one that overlaps with it.
    """
    reserve(run)
    (run.path / "chains").mkdir(exist_ok=True)
    file = run.samples_file(shard)
    what = f"{run.path} (shard {shard})" if shard != WHOLE else str(run.path)
    with acquire(run.path, lease_of(run.path, file), what, lease_timeout) as held:
        _require_apart(run, shard, what, lease_timeout)
        with records.appending(file, check_lease=held.require_held) as samples:
            yield SampleWriter(run, samples, held)


def _require_apart(run: Run, shard: Shard, what: str, lease_timeout: float) -> None:
    writers = run.path / "writers"
    for other in run.writers():
        theirs = Shard.from_suffix(other.name.removeprefix(SAMPLES))
        if theirs == shard or not theirs.overlaps(shard):
            continue
        if (alive := revoke(writers, other.name, what, lease_timeout)) is not None:
            raise UserError(
                f"{run.path}: shard {shard} overlaps with shard {theirs}, which is being written by "
                f"{alive.who}; wait for it, stop it, or choose shard=.../{theirs.of}"
            )


@contextmanager
def score_writer(
    run: Run,
    verifier: str,
    shard: Shard = WHOLE,
    lease_timeout: float = LEASE_TIMEOUT,
    check: Callable[[], None] = lambda: None,
) -> Iterator[Callable[[SampleKey, Score], None]]:
    """Append scores by one verifier, as the only one who does: on the whole run, or on one shard.

    lease_timeout: as for `sample_writer`.
    check: is called before each attempt to write; what it raises ends the wait for a full disk.
    """
    path = run.scores_file(verifier, shard)
    path.parent.mkdir(exist_ok=True)
    with acquire(run.path, lease_of(run.path, path), str(path), lease_timeout) as held:

        def may_write() -> None:
            check()
            held.require_held()

        with records.appending(path, check_lease=may_write) as file:
            yield lambda key, score: file.write(key._asdict() | asdict(score))


@contextmanager
def likelihood_writer(run: Run, model: str) -> Iterator[Callable[[Likelihood], None]]:
    """Append likelihoods of the run's responses under a model, as the only one who does.

    Raises UserError if another process does.
    """
    path = run.likelihoods_file(model)
    path.parent.mkdir(exist_ok=True)
    with (
        acquire(run.path, lease_of(run.path, path), str(path)) as held,
        records.appending(path, check_lease=held.require_held) as file,
    ):
        yield file.write


def create(
    run: Run,
    config: str,
    manifest: Mapping[str, Any],
    problems: Sequence[Problem],
) -> None:
    """Write the folder's head; where it is there already, note another machine or code in it.

    config: the composed configuration, as yaml.
    problems: replace those of the same id: what the model was shown is the same (the manifest's
        identity says so), but a reference answer may have been corrected.
    Raises UserError if what is there was made by another configuration, or by none that is known.
    """
    reserve(run)
    with acquire(run.path, HEAD, f"{run.path} (its head)", briefly=True):
        _require_same(run, manifest)
        ordered = {problem.id: problem for problem in problems}  # the task's order comes first
        others = [each for each in run.problems().values() if each.id not in ordered]
        lines = b"".join(map(records.encode, [*problems, *others]))
        records.write_atomic(run.path / "problems.jsonl", lines, durable=True)
        records.write_atomic(run.path / "config.yaml", config.encode(), durable=True)
        if (run.path / "manifest.json").exists():
            manifest = with_session(run.manifest, manifest)
        records.write_atomic(run.path / "manifest.json", _json(manifest), durable=True)


def add_to_manifest(run: Run, part: str, value: Mapping[str, Any]) -> None:
    """Note in the manifest what is known only after a run has begun, where it is not noted yet."""
    with acquire(run.path, HEAD, f"{run.path} (its head)", briefly=True):
        if part not in run.manifest:
            manifest = _json({**run.manifest, part: dict(value)})
            records.write_atomic(run.path / "manifest.json", manifest, durable=True)


def write_metrics(run: Run, metrics: Mapping[str, Any]) -> None:
    """Store a summary; what is not finite is stored as null."""
    records.write_atomic(run.path / "metrics.json", _json(_finite(metrics)))


def _require_same(run: Run, manifest: Mapping[str, Any]) -> None:
    if not (run.path / "manifest.json").exists():
        files = [run.samples_file(shard) for shard in run.shards()]
        full = next((file for file in files if file.stat().st_size), None)
        require(
            full is None,
            f"{run.path} holds samples but no manifest.json, so that what made them is not known: "
            f"restore it from a copy, or move the folder away",
        )
        return
    there, here = run.manifest, manifest
    if there.get("digest") != here.get("digest"):
        differences = difference(there.get("identity", {}), here.get("identity", {}))
        raise UserError(
            f"{run.path} was made by another configuration "
            f"({'; '.join(differences) or 'of which nothing is recorded'}): move the folder away, "
            f"or choose another with `runs=...`"
        )


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
