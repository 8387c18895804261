"""Sets damaged lines of a run folder aside, so that the run's command can make what they held again.

What is set aside goes into a file beside, `<name>.damaged`, that nothing reads. A damaged line that holds
whole records after all keeps them: two lines whose newline is lost are two again, and a record without a
checksum, such as an earlier version's, is given one.
"""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields

import msgspec

from powerbench.store import Run, records
from powerbench.store.lease import leased
from powerbench.store.run_folder import SAMPLES
from powerbench.store.shard import of_suffix
from powerbench.store.verify import (
    Bad,
    Places,
    Records,
    chains_of,
    key_of,
    likelihoods_of,
    problems_of,
    samples_of,
    verdicts_of,
)

logger = logging.getLogger(__name__)

MENDED = "mended: the run's command makes what is missing again"
"""How the writer of a shard that has been mended ends."""


def mend(run: Run, lease_timeout: float) -> None:
    """Set damaged lines aside, and remove checkpoints that serve no more.

    lease_timeout: seconds without a beat after which a writer on another machine counts as dead.
    Raises UserError if a process is writing what is damaged.
    """
    seen = Places()
    problems = problems_of(run)
    if _bad(problems, Places()):
        with leased(run.path, "head", f"{run.path} (its head)", lease_timeout, briefly=True):
            _mend(problems, Places())
    for file in samples_of(run):
        before = Places(seen)
        if _bad(file, seen):
            seen = before
            with _writing(run, file, lease_timeout):
                _mend(file, seen)
    for file in (*verdicts_of(run), *likelihoods_of(run)):
        if _bad(file, Places()):
            name = f"{file.path.parent.name}-{file.path.stem}"
            with leased(run.path, name, str(file.path), lease_timeout):
                _mend(file, Places())
    for chain in chains_of(run, seen):
        if chain.useless is not None:
            chain.path.unlink(missing_ok=True)
            logger.info(f"{chain.path} {chain.useless.what}; removed")


def _bad(file: Records, seen: Places) -> list[Bad]:
    return [each for each in file.scan(seen) if isinstance(each, Bad)]


@contextmanager
def _writing(run: Run, file: Records, lease_timeout: float) -> Iterator[None]:
    """Hold a shard."""
    shard = of_suffix(file.path.stem.removeprefix(SAMPLES))
    with run.writing(shard, lease_timeout) as writing:
        yield
        writing.progress.done = sum(1 for _ in records.lines(file.path))
        writing.progress.ended = MENDED


def _mend(file: Records, seen: Places) -> None:
    with records.appending(file.path):
        pass  # the last line has an end now, or is cut off
    for left in file.path.parent.glob(f".{file.path.name}.*"):
        left.unlink()  # of a mending that was killed
    changed: dict[int, Sequence[bytes]] = {}
    aside = []
    for line, why in _bad(file, seen):
        kept = changed[line.number] = _whole(file, line.content, seen)
        rest = len(line.content) - sum(len(piece) + 1 for piece in kept)
        fate = [f"holds {len(kept)} whole records, which stay"] if kept else []
        if rest > 0 or not kept:
            aside.append(line.content + b"\n")
            fate.append("set aside")
        logger.info(f"{file.path} line {line.number} {why}; {', '.join(fate)}")
    if aside:
        with file.path.with_name(f"{file.path.name}.damaged").open("ab") as out:
            out.writelines(aside)
            out.flush()
            os.fsync(out.fileno())
        logger.info(f"{file.path}: {len(aside)} lines are in {file.path.name}.damaged now")
    records.rewrite(file.path, changed)


def _whole(file: Records, content: bytes, seen: Places) -> list[bytes]:
    """The records within a bad line that are whole, and not there already."""
    found = []
    for piece in records.salvage(content) or _sealed(file, content):
        try:
            record = msgspec.json.decode(piece, type=file.kind)
        except msgspec.DecodeError:
            continue
        key = key_of(record)
        if key in seen:
            continue
        if key is not None:
            seen[key] = file.name
        found.append(piece)
    return found


def _sealed(file: Records, content: bytes) -> list[bytes]:
    """A line that never had a checksum, with one. Any trace of a checksum says that it is damaged."""
    try:
        record = msgspec.json.decode(content, type=dict)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return []
    known = {field.name for field in fields(file.kind)}
    return [records.sealed(content)] if record.keys() <= known else []
