"""What tasks share: the protocol, reading a data set from a file or the hub, and checks of settings."""

import csv
import hashlib
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from powerbench.errors import UserError, require, unknown
from powerbench.types import KINDS, Problem

CHAT = ("model", "always", "never")
BUNDLED = Path(__file__).parent / "data"


class Task(Protocol):
    """A benchmark. Its fields are settings."""

    @property
    def name(self) -> str:
        """Names the run folder."""
        ...

    @property
    def proposal_temperature(self) -> float | None:
        """What the paper sets for this task; None: 1/alpha."""
        ...

    @property
    def stop_tokens(self) -> Sequence[str]:
        """Strings of one token each that end a response, beside the model's own stop tokens."""
        ...

    def problems(self, kind: str) -> list[Problem]:
        """All problems, prompted for a model of this kind: `base`, `rl` or `instruct`."""
        ...

    def source(self) -> Mapping[str, Any]:
        """Provenance: where the data came from, and the sha256 of its content."""
        ...


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
        require(bool(value.strip()), f"{self.where}: {field!r} is blank; see task.path")
        return value


# -- reading --------------------------------------------------------------------------------------


def read_file(path: str) -> list[Row]:
    """The records of a jsonl file, of a JSON array, or of a bundled file, `bundled:<name>`.

    Raises UserError if there is no such file, or nothing in it, or a line that is not a record.
    """
    file = _locate(path)
    try:
        content = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read task.path={path}: {error}") from error
    if content.lstrip().startswith("["):
        rows = [Row(x, f"{file} item {i}") for i, x in enumerate(_json(content, str(file)), 1)]
    else:
        places = ((line, f"{file} line {i}") for i, line in enumerate(content.split("\n"), 1))
        rows = [Row(_json(line, where), where) for line, where in places if line.strip()]
    require(bool(rows), f"{file} is empty; task.path must name a file with one problem a line")
    for row in rows:
        require(isinstance(row.record, dict), f"{row.where} is not a JSON object; see task.path")
    return rows


def read_csv(path: str) -> list[Row]:
    """The rows of a CSV file (RFC 4180, UTF-8) below its header, as strings; blank rows are left out.

    Every line end is read as a line feed, inside quotes too: a copy that another system saved is the
    same data set. Raises UserError if there is no such file, or no row in it, or a quote that does
    not close, or a row that is not as wide as the header.
    """
    file = _locate(path)
    try:
        reader = csv.reader(io.StringIO(file.read_text(encoding="utf-8-sig")), strict=True)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read task.path={path}: {error}") from error
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
    return [Row(record, f"{hub} item {i}") for i, record in enumerate(records, 1)]


def _locate(path: str) -> Path:
    scheme, _, name = path.rpartition(":")
    if scheme != "bundled":
        file = Path(path).expanduser()
        require(file.is_file(), f"task.path={path}: there is no such file")
        return file
    file = BUNDLED / name
    if not file.is_file():
        raise unknown("bundled file", name, (f.name for f in BUNDLED.glob("*.jsonl")))
    return file


def _json(content: str, where: str) -> Any:
    try:
        return json.loads(content)
    except ValueError as error:
        raise UserError(f"{where} is not JSON ({error}); see task.path") from error


# -- what is made of the rows ---------------------------------------------------------------------


def provenance(rows: Sequence[Row], **origin: str) -> dict[str, Any]:
    """Where the rows came from, how many they are, and the sha256 of their canonical JSON.

    The digest is that of the content, so the hub and a local copy of it give the same.
    """
    records = [row.record for row in rows]
    canonical = json.dumps(records, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    return {**origin, "rows": len(rows), "sha256": digest}


def unique(problems: Iterable[Problem]) -> Iterator[Problem]:
    """The problems as they come. Raises UserError at an id that came before."""
    seen = set()
    for problem in problems:
        require(problem.id not in seen, f"task: the problem id {problem.id!r} occurs twice")
        seen.add(problem.id)
        yield problem


def through_chat(chat: str, style: bool) -> bool:
    """Whether a prompt is a chat turn: as its style has it, unless task.chat says otherwise."""
    return style if chat == "model" else chat == "always"


def require_style(prompt_style: str, styles: Sequence[str]) -> None:
    """Raise UserError unless a task has this style."""
    if prompt_style not in styles:
        raise unknown("task.prompt_style", prompt_style, styles)


def require_settings(chat: str, proposal_temperature: float | None) -> None:
    """Raise UserError unless the settings that all tasks have are sound."""
    if chat not in CHAT:
        raise unknown("task.chat", str(chat), CHAT)
    require(
        proposal_temperature is None or proposal_temperature > 0,
        f"task.proposal_temperature must be > 0 (or null for 1/alpha), got {proposal_temperature}",
    )


def require_kind(kind: str) -> None:
    if kind not in KINDS:
        raise unknown("model.kind", kind, KINDS)
