"""Checkpoints of unfinished chains: one small file each, replaced at the end of every block.

They are written without waiting for the disk: what a crash of the machine loses costs time, not
samples. Long rows of numbers are packed, so that saving a response of thousands of tokens takes
less than a millisecond.
"""

import base64
import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

import powerbench
from powerbench.store import records
from powerbench.store.records import CheckLease, Damaged
from powerbench.types import Checkpoint, Keyed

logger = logging.getLogger(__name__)

PACKED = 16
"""Rows of at least this many numbers are packed."""

_KINDS = {int: ("i8", np.dtype("<i8")), float: ("f8", np.dtype("<f8"))}


@dataclass(frozen=True)
class CheckpointFile(Keyed):
    """What a file holds: the checkpoint of one chain."""

    version: str
    """Of powerbench: another one may not understand the state."""
    checkpoint: Checkpoint


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of a run folder, of all its shards."""

    folder: Path

    def path(self, problem: str, replicate: int) -> Path:
        """The file of one chain."""
        name = hashlib.blake2b(json.dumps([problem, replicate]).encode(), digest_size=12)
        return self.folder / f"{name.hexdigest()}.json"

    def save(
        self,
        problem: str,
        replicate: int,
        checkpoint: Checkpoint,
        check_lease: CheckLease = lambda: None,
    ) -> None:
        """Put a chain's checkpoint in the place of its last one.

        check_lease: as for `powerbench.store.records.appending`.
        """
        path = self.path(problem, replicate)
        packed = replace(checkpoint, state=_pack(checkpoint.state))
        saved = CheckpointFile(problem, replicate, powerbench.__version__, packed)
        content = records.encode(saved)

        def attempt() -> None:
            check_lease()
            records.write_atomic(path, content)

        records.retry_while_full(attempt, path)

    def load(self, problem: str, replicate: int) -> Checkpoint | None:
        """What a chain goes on from; None if there is nothing, or nothing that can be used."""
        path = self.path(problem, replicate)
        try:
            saved = read(path)
        except FileNotFoundError:
            return None
        except Damaged as error:
            logger.warning(f"{path} {error.why}; its chain starts from the beginning")
            return None
        if saved.version != powerbench.__version__:
            logger.warning(
                f"{path} is powerbench {saved.version}'s; its chain starts from the beginning"
            )
            return None
        return saved.checkpoint

    def remove(self, problem: str, replicate: int) -> None:
        """Forget a chain's checkpoint, if there is one."""
        self.path(problem, replicate).unlink(missing_ok=True)


def read(path: Path) -> CheckpointFile:
    """The content of a checkpoint's file. Raises Damaged, FileNotFoundError."""
    content = path.read_bytes()
    if not content.endswith(b"\n") or not records.intact(content[:-1]):
        raise Damaged(str(path), "is damaged: its checksum does not fit", "remove it")
    try:
        saved = msgspec.json.decode(content, type=CheckpointFile)
        return replace(saved, checkpoint=_unpacked(saved.checkpoint))
    except (msgspec.DecodeError, ValueError) as error:
        raise Damaged(str(path), f"is damaged: {error}", "remove it") from error


def _unpacked(checkpoint: Checkpoint) -> Checkpoint:
    return replace(checkpoint, state=_unpack(checkpoint.state))


def _pack(value: Any) -> Any:
    """The same data, long rows of numbers of one kind as the base64 of their bytes."""
    if isinstance(value, Mapping):
        return {key: _pack(each) for key, each in value.items()}
    if not isinstance(value, list | tuple):
        return value
    kinds = set(map(type, value))
    if len(value) >= PACKED and len(kinds) == 1 and (kind := kinds.pop()) in _KINDS:
        name, dtype = _KINDS[kind]
        return {name: base64.b64encode(np.array(value, dtype).tobytes()).decode()}
    return [_pack(each) for each in value]


def _unpack(value: Any) -> Any:
    if isinstance(value, list):
        return [_unpack(each) for each in value]
    if not isinstance(value, dict):
        return value
    for name, dtype in _KINDS.values():
        if value.keys() == {name}:
            return np.frombuffer(base64.b64decode(value[name]), dtype).tolist()
    return {key: _unpack(each) for key, each in value.items()}
