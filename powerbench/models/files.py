"""The files of a local model: its name, whether they are whole, and a digest of what is in them.

What counts is what the library reads: the weights that it would choose, the configuration, the tokenizer
and its chat template. A README, a log or an optimizer's state beside them changes nothing.
"""

import hashlib
import json
import os
import struct
import sys
import tempfile
import time
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from powerbench.cache import cache_folder
from powerbench.errors import UserError, require

WEIGHT_ENDINGS = (".gguf", ".safetensors", ".bin", ".pt", ".pth")
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""In the order in which the library prefers them; of each the sharded form comes second."""
SETTINGS = (
    "config.json",
    "generation_config.json",
    "adapter_*",
    "tokenizer*",
    "vocab*",
    "merges*",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template*",
    "*.jinja",
    "*.model",
    "*.tiktoken",
    "*.py",
)
POINTER = b"version https://git-lfs.github.com/spec/"
WORTH_KEEPING = 2**24
"""Bytes from which on a file's digest is kept in the cache."""
WORTH_TELLING = 2**31
"""Bytes from which on reading them is worth a line: some seconds."""
SETTLED = 2.0
"""Seconds: a file changed later than this ago may change once more without its times showing it."""


def name_of(id: str) -> str:
    """What a model is called: the last part of its id, whole but for the ending of a weight file.

    Raises UserError where the id has none.
    """
    path = Path(id.removeprefix("package:")).expanduser()
    name = path.name if path.name not in ("", "..") else path.resolve().name
    ending = path.suffix.lower()
    if ending in WEIGHT_ENDINGS and not path.is_dir():
        name = name[: -len(ending)]
    require(bool(name), f"model.id={id!r} gives the model no name; set model.name")
    return name


def require_name(name: str) -> str:
    """The name, if a folder can have it. Raises UserError otherwise."""
    fits = name not in (".", "..") and "/" not in name and name.isprintable()
    require(fits, f"model.name={name!r} cannot name a folder; choose one without a slash")
    return name


# -- which files, and whether they are whole --------------------------------------------------------


def model_files(folder: Path) -> list[Path]:
    """What the library reads of a folder, sorted. Raises UserError for a shard that is not there."""
    found = {file for pattern in SETTINGS for file in folder.glob(pattern) if file.is_file()}
    return sorted(found | set(_weights(folder)))


def require_whole(files: Sequence[Path]) -> None:
    """Raise UserError for a file that is not what its name says: empty, a pointer, a page, cut off."""
    for file in files:
        with file.open("rb") as opened:
            start, size = opened.read(512), file.stat().st_size
        again = "download it again"
        if start.startswith(POINTER):
            raise UserError(
                f"{file} is a Git LFS pointer, not the file itself: run `git lfs pull` in its folder, "
                f"or {again}"
            )
        page = start.lstrip().lower().startswith((b"<!doctype", b"<html"))
        require(not page, f"{file} is a web page, such as an error's, not a model's file: {again}")
        if file.suffix.lower() in (*WEIGHT_ENDINGS, ".json", ".model"):
            require(size > 0, f"{file} is empty: {again}")
        if file.suffix.lower() == ".safetensors":
            _require_whole_safetensors(file, size, start)
        if file.suffix.lower() == ".gguf":
            require(start.startswith(b"GGUF"), f"{file} is no GGUF file: {again}")
        if file.suffix.lower() == ".bin" and start.startswith(b"PK"):
            require(zipfile.is_zipfile(file), f"{file} is cut off ({size:,} bytes): {again}")


def _weights(folder: Path) -> list[Path]:
    for name in WEIGHTS:
        if (folder / name).is_file():
            return [folder / name]
        index = folder / f"{name}.index.json"
        if index.is_file():
            return [index, *_shards(index)]
    return sorted(folder.glob("*.safetensors"))


def _shards(index: Path) -> list[Path]:
    require_whole([index])
    try:
        names = set(json.loads(index.read_bytes())["weight_map"].values())
        shards = [index.parent / name for name in sorted(names)]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{index} lists no shards ({error!r}): download it again") from error
    for shard in shards:
        there = shard.is_file()
        require(there, f"{index} names {shard.name}, which is not there: download it again")
    return shards


def _require_whole_safetensors(file: Path, size: int, start: bytes) -> None:
    """The header says where the last tensor ends (the format's description, huggingface/safetensors)."""
    (length,) = struct.unpack("<Q", start[:8]) if size >= 8 else (0,)
    if not 2 <= length <= 10**8:
        raise UserError(f"{file} is no safetensors file: download it again")
    with file.open("rb") as opened:
        opened.seek(8)
        header = opened.read(length)
    ends = [0]
    if len(header) == length:
        try:
            tensors = {k: v for k, v in json.loads(header).items() if k != "__metadata__"}
            ends += [tensor["data_offsets"][1] for tensor in tensors.values()]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{file} is no safetensors file: download it again") from error
    whole = 8 + length + max(ends)
    if size < whole:
        raise UserError(
            f"{file} is cut off ({size:,} of {whole:,} bytes or more): download it again"
        )


# -- what is in them --------------------------------------------------------------------------------


def digest(files: Sequence[Path]) -> str:
    """sha256 over the names and the whole contents of files: of one file, that of its contents.

    Copies have the same, wherever they lie and whenever they were touched. Every byte counts: a model
    tuned in one row of one matrix is another one. It stays cheap because a large file is read once: its
    sha256 is kept in the cache beside its inode, size, and times of change (`mtime` and `ctime`, to the
    nanosecond), and taken from there until one of these differs.
    """
    new = sum(f.stat().st_size for f in files if _kept(f) is None)
    if new >= WORTH_TELLING:
        print(f"reading {new / 2**30:.0f} GiB of weights, once, to know them", file=sys.stderr)
    with ThreadPoolExecutor(4) as pool:
        each = list(pool.map(_sha256, files))
    if len(each) == 1:
        return each[0]
    listed = "".join(f"{sha256} {file.name}\n" for sha256, file in zip(each, files, strict=True))
    return hashlib.sha256(listed.encode(errors="surrogateescape")).hexdigest()


def _sha256(file: Path) -> str:
    if (kept := _kept(file)) is not None:
        return kept
    before = _state(file)
    with file.open("rb") as opened:
        sha256 = hashlib.file_digest(opened, "sha256").hexdigest()
    changed = max(before[2:]) / 1e9
    if before[1] >= WORTH_KEEPING and before == _state(file) and time.time() - changed > SETTLED:
        _keep(file, before, sha256)
    return sha256


def _state(file: Path) -> list[int]:
    """Inode, size, and times of change. No device's number: that differs between machines."""
    stat = file.stat()
    return [stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]


def _place(file: Path) -> Path:
    name = hashlib.sha256(os.fsencode(file.resolve())).hexdigest()[:32]
    return cache_folder() / "digests" / f"{name}.json"


def _kept(file: Path) -> str | None:
    try:
        found = json.loads(_place(file).read_bytes())
        return str(found["sha256"]) if found["state"] == _state(file) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _keep(file: Path, state: list[int], sha256: str) -> None:
    place = _place(file)
    with suppress(OSError):  # a cache that cannot be written costs time only
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("wb", dir=place.parent, delete=False) as out:
            out.write(json.dumps({"state": state, "sha256": sha256}).encode())
        Path(out.name).replace(place)
