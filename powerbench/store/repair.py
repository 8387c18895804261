"""Quarantines damaged lines of a run folder, so that the run's command can make what they held again.

They go into a file beside, `<name>.damaged`, that nothing reads.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

from powerbench.store import Run, records
from powerbench.store.lease import acquire
from powerbench.store.owner import lease_of
from powerbench.store.run_folder import SAMPLES
from powerbench.store.scan import (
    Bad,
    Places,
    Records,
    chains_of,
    likelihoods_of,
    problems_of,
    samples_of,
    scores_of,
)
from powerbench.store.shard import Shard
from powerbench.store.writing import HEAD, sample_writer

logger = logging.getLogger(__name__)

REPAIRED = "repaired: the run's command makes what is missing again"
"""How the writer of a shard that has been repaired ends."""


def repair(run: Run, lease_timeout: float) -> None:
    """Quarantine damaged lines, and remove checkpoints that serve no more.

    lease_timeout: seconds without a heartbeat after which a writer on another machine counts as dead.
    Raises UserError if a process is writing what is damaged.
    """
    seen = Places()
    problems = problems_of(run)
    if _bad(problems, Places()):
        with acquire(run.path, HEAD, f"{run.path} (its head)", lease_timeout, briefly=True):
            _quarantine(problems, Places())
    for file in samples_of(run):
        before = Places(seen)
        if _bad(file, seen):
            seen = before
            with _writing(run, file, lease_timeout):
                _quarantine(file, seen)
    for file in (*scores_of(run), *likelihoods_of(run)):
        if _bad(file, Places()):
            with acquire(run.path, lease_of(run.path, file.path), str(file.path), lease_timeout):
                _quarantine(file, Places())
    for chain in chains_of(run, seen):
        if chain.useless is not None:
            chain.path.unlink(missing_ok=True)
            logger.info(f"{chain.path} {chain.useless.what}; removed")


def _bad(file: Records, seen: Places) -> list[Bad]:
    return [each for each in file.scan(seen) if isinstance(each, Bad)]


@contextmanager
def _writing(run: Run, file: Records, lease_timeout: float) -> Iterator[None]:
    """Hold a shard."""
    shard = Shard.from_suffix(file.path.stem.removeprefix(SAMPLES))
    with sample_writer(run, shard, lease_timeout) as writer:
        yield
        writer.progress.done = sum(1 for _ in records.lines(file.path))
        writer.end_as(REPAIRED)


def _quarantine(file: Records, seen: Places) -> None:
    with records.appending(file.path):
        pass  # the last line has an end now, or is cut off
    for left in file.path.parent.glob(f".{file.path.name}.*"):
        left.unlink()  # of a repair that was killed
    bad = _bad(file, seen)
    for line, why in bad:
        logger.info(f"{file.path} line {line.number} {why}; quarantined")
    if bad:
        with file.path.with_name(f"{file.path.name}.damaged").open("ab") as out:
            out.writelines(line.content + b"\n" for line, _ in bad)
            out.flush()
            os.fsync(out.fileno())
        logger.info(f"{file.path}: {len(bad)} lines are in {file.path.name}.damaged now")
    records.drop_lines(file.path, {line.number for line, _ in bad})
