"""Reads a data set, from a file or the hub, as rows: what a task makes its problems of."""

import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from powerbench.errors import UserError, require, unknown

BUNDLED = Path(__file__).parent / "data"
FORMATS = "JSON lines, a JSON array, CSV (each also with gzip), or Parquet"
UTF_16 = (b"\xff\xfe", b"\xfe\xff")
"""How UTF-16 begins, as Windows PowerShell writes it."""
UNSEEN = re.compile("[\\s\u200b-\u200f\u2060\ufeff]+")
"""Blanks, and characters without a width, which are no content either."""
EMPTY_MATHS = re.compile(
    r"\\(?:boxed|fbox|mbox|left|right|displaystyle|q?quad|(?:text|math)[a-z]*)(?![a-zA-Z])"
    r"|\\[\s,;:!()\[\]]|[${}~.]"
)
"""Delimiters, wrappers and spaces of LaTeX: an answer of nothing else is none."""


@dataclass(frozen=True)
class Row:
    """One record of a data set."""

    record: Mapping[str, Any]
    where: str
    """The file and line, or the hub's name and index: what an error names."""

    def __getitem__(self, field: str) -> Any:
        if field not in self.record:
            raise UserError(f"{self.where} lacks the field {field!r}; see task.path")
        return self.record[field]

    def text(self, field: str) -> str:
        """A field that must be a string."""
        value = self[field]
        require(
            isinstance(value, str),
            f"{self.where}: {field!r} must be a string, got {value!r}; see task.path",
        )
        return value

    def filled(self, field: str) -> str:
        """A field that must be a string with more than blanks in it."""
        value = self.text(field)
        require(bool(UNSEEN.sub("", value)), f"{self.where}: {field!r} is blank; see task.path")
        return value

    def cell(self, field: str) -> str:
        """A field that must hold text or a number, as text: 27 and 27.0 are `27`."""
        value = self[field]
        missing = value is None or value != value  # NaN, an empty cell of a table
        require(not missing, f"{self.where}: {field!r} is missing; see task.path")
        if isinstance(value, int | float) and not isinstance(value, bool):
            whole = isinstance(value, float) and value.is_integer()
            return str(int(value)) if whole else str(value)
        return self.filled(field)

    def answer(self, field: str) -> str:
        """A mathematical answer: a string with more in it than blanks and empty LaTeX, such as `$$`."""
        value = self.filled(field)
        content = UNSEEN.sub("", EMPTY_MATHS.sub("", value))
        require(bool(content), f"{self.where}: {field!r} is blank ({value!r}); see task.path")
        return value


def read_file(path: str) -> list[Row]:
    """The records of a data file, or of a bundled one, `bundled:<name>`.

    Text is UTF-8, or UTF-16 with its byte order mark. The content tells gzip, Parquet and JSON; CSV is
    told by the file's name. Raises UserError if there is no such file, or nothing in it, or a line that
    is not a record, or text that is none (half of a surrogate pair).
    """
    file = _locate(path)
    content = _bytes(file, path)
    if content.startswith(b"PAR1"):
        rows = _parquet(content, file)
    elif file.name.lower().removesuffix(".gz").endswith(".csv"):
        rows = _csv(_text(content, path), file)
    else:
        rows = _records(_text(content, path), file)
    return _whole(rows)


def read_hub(
    hub: str,
    revision: str,
    load: Callable[[], Iterable[Mapping[str, Any]]],
    remedy: str = "set task.path=<local jsonl>",
) -> list[Row]:
    """The records that `load` fetches from the hub.

    Raises UserError, whatever the reason: no network, no access, no such revision.
    """
    try:
        records = list(load())
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0]
        raise UserError(
            f"cannot load {hub} at {revision[:7]} from the hub ({type(error).__name__}: {reason}); "
            f"{remedy}"
        ) from error
    return _whole([Row(record, f"{hub} item {i}") for i, record in enumerate(records, 1)])


def decoded(content: bytes) -> str:
    """UTF-8 or UTF-16 as text, without a byte order mark. Raises UnicodeDecodeError."""
    return content.decode("utf-16" if content.startswith(UTF_16) else "utf-8-sig")


# -- formats --------------------------------------------------------------------------------------


def _records(content: str, file: Path) -> list[Row]:
    """JSON: an array of records, or a record a line."""
    if content.lstrip().startswith("["):
        rows = [Row(x, f"{file} item {i}") for i, x in enumerate(_json(content, str(file)), 1)]
    else:
        places = ((line, f"{file} line {i}") for i, line in enumerate(content.split("\n"), 1))
        rows = [Row(_json(line, where), where) for line, where in places if line.strip()]
    require(bool(rows), f"{file} is empty; task.path must name a file with one problem a line")
    for row in rows:
        require(isinstance(row.record, dict), f"{row.where} is not a JSON object; see task.path")
    return rows


def _csv(content: str, file: Path) -> list[Row]:
    """The rows of a CSV file (RFC 4180) below its header, as strings; blank rows are left out.

    Every line end is read as a line feed, inside quotes too: a copy that another system saved is the
    same data set. Raises UserError for a quote that does not close, or a row that is not as wide as
    the header.
    """
    reader = csv.reader(io.StringIO(content), strict=True)
    try:
        table = [cells for cells in reader if any(cell.strip() for cell in cells)]
    except csv.Error as error:
        raise UserError(
            f"{file} line {reader.line_num} is not CSV ({error}); see task.path"
        ) from error
    require(len(table) > 1, f"{file} is empty; task.path must name a file with one problem a row")
    header, *rows = table
    for i, cells in enumerate(rows, 1):
        wide = f"{len(cells)} cells where the header has {len(header)}"
        require(len(cells) == len(header), f"{file} row {i} has {wide}; see task.path")
    records = (dict(zip(header, cells, strict=True)) for cells in rows)
    return [Row(record, f"{file} row {i}") for i, record in enumerate(records, 1)]


def _parquet(content: bytes, file: Path) -> list[Row]:
    import pyarrow as pa  # slow to import
    import pyarrow.parquet as pq

    try:
        records = pq.read_table(pa.BufferReader(content)).to_pylist()
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = (str(error).splitlines() or [""])[0]
        raise UserError(f"{file} is not a whole Parquet file ({reason}); see task.path") from error
    require(bool(records), f"{file} is empty; task.path must name a file with one problem a row")
    return [Row(record, f"{file} row {i}") for i, record in enumerate(records, 1)]


# -- steps ----------------------------------------------------------------------------------------


def _locate(path: str) -> Path:
    scheme, _, name = path.rpartition(":")
    if scheme != "bundled":
        file = Path(path).expanduser()
        require(not file.is_dir(), f"task.path={path} is a folder; name a file in it: {FORMATS}")
        require(file.is_file(), f"task.path={path}: there is no such file")
        return file
    file = BUNDLED / name
    if not file.is_file():
        raise unknown("bundled file", name, (f.name for f in BUNDLED.glob("*.jsonl")))
    return file


def _bytes(file: Path, path: str) -> bytes:
    """The content, without gzip."""
    try:
        content = file.read_bytes()
        return gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"cannot read task.path={path}: {error}") from error


def _text(content: bytes, path: str) -> str:
    try:
        return decoded(content).replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise UserError(
            f"cannot read task.path={path}: {error}; it must be {FORMATS}, text in UTF-8"
        ) from error


def _json(content: str, where: str) -> Any:
    try:
        return json.loads(content)
    except ValueError as error:
        hint = "" if content.lstrip()[:1] in "[{" else f"; task.path must be {FORMATS}"
        raise UserError(f"{where} is not JSON ({error}){hint or '; see task.path'}") from error
    except RecursionError as error:
        raise UserError(f"{where} is nested too deeply; see task.path") from error


def _whole(rows: list[Row]) -> list[Row]:
    """The rows, all of whose strings are text. Raises UserError for half of a surrogate pair."""
    for row in rows:
        for field, value in row.record.items():
            try:
                json.dumps([field, value], ensure_ascii=False, default=str).encode()
            except UnicodeEncodeError as error:
                half = ascii(error.object[error.start])
                raise UserError(
                    f"{row.where}: {field!r} holds {half}, half of a character that was cut "
                    f"in two, which is no text; see task.path"
                ) from error
    return rows
