"""AlpacaEval 2.0: 805 instructions, judged against GPT-4-turbo's responses (Dubois et al. 2024)."""

import csv
import hashlib
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from powerbench.errors import UserError, require
from powerbench.tasks.common import (
    provenance,
    require_kind,
    require_settings,
    require_style,
    through_chat,
    unique,
)
from powerbench.tasks.reading import Row, decoded, read_file, read_hub
from powerbench.types import Problem, Prompt

STYLES = ("official", "chat")
GAMED_COLUMNS = ("index", "preference", "std_delta_len", "instruction_difficulty")


class Gamed(NamedTuple):
    """What the length-controlled win rate is computed from, beside the judge's preferences."""

    source: Mapping[str, str]
    """Where it came from, and its sha256."""
    meta: Sequence[Mapping[str, Any]]
    """By instruction, its `difficulty` (on the scale of logits), and `gamed`: pairs of preference and
    standardised length difference of the baseline asked to be verbose, and to be concise."""


@dataclass(frozen=True)
class AlpacaEval:
    """Problems in the format of AlpacaEval's outputs: instruction, output, generator.

    path: a local file instead of the hub; `bundled:<name>` is one that comes with powerbench.
    file: the file on the hub; `datasets` refuses the script beside it, so it is read as it is.
    gamed: a local file with the judge's annotations of the baseline's verbose and concise variants (a
        row's `index` is the instruction's position), for the length-controlled win rate, instead of
        `gamed_file` on the hub. A local set without it, or `gamed_file: null`, has the win rate only.
    prompt_style: `official` is the instruction as raw text for every model, `chat` one user turn.
    chat: `model` (as prompt_style has it), `always` or `never`.
    proposal_temperature: the paper sets 0.5 for this task.
    stop_tokens: strings of one token each that end a response, beside the model's own.
    """

    name: str = "alpaca_eval"
    path: str | None = None
    hub: str = "tatsu-lab/alpaca_eval"
    revision: str = "2edc6fad8be6b14ea7230aabfd08188da6b8b814"
    file: str = "alpaca_eval_gpt4_baseline.json"
    gamed: str | None = None
    gamed_file: str | None = "df_gamed.csv"
    prompt_style: str = "official"
    chat: str = "model"
    proposal_temperature: float | None = 0.5
    stop_tokens: Sequence[str] = ()

    def __post_init__(self) -> None:
        require_style(self.prompt_style, STYLES)
        require_settings(self.chat, self.proposal_temperature)

    def problems(self, kind: str) -> list[Problem]:
        require_kind(kind)
        return list(unique(self._problem(i, row) for i, row in enumerate(self.rows)))

    def source(self) -> Mapping[str, Any]:
        gamed = {} if self.controls is None else {"gamed": self.controls.source}
        if self.path is None:
            origin = {"hub": self.hub, "revision": self.revision, "file": self.file}
        else:
            origin = {"path": self.path}
        return provenance(self.rows, **origin) | gamed

    @cached_property
    def rows(self) -> list[Row]:
        """The data set as it is stored."""
        if self.path is None:
            return read_hub(self.hub, self.revision, self._load)
        return read_file(self.path)

    @cached_property
    def controls(self) -> Gamed | None:
        """What the length-controlled win rate needs of each instruction; None without it."""
        if self.gamed is not None:
            return read_gamed(Path(self.gamed).expanduser(), len(self.rows), {"path": self.gamed})
        if self.path is not None or self.gamed_file is None:
            return None
        try:
            file = self._download(self.gamed_file)
        except Exception as error:
            reason = (str(error).splitlines() or [""])[0]
            raise UserError(
                f"cannot load {self.gamed_file} of {self.hub} at {self.revision[:7]} from the hub "
                f"({type(error).__name__}: {reason}); set task.gamed=<local csv>, or "
                f"task.gamed_file=null to do without the length-controlled win rate"
            ) from error
        origin = {"hub": self.hub, "revision": self.revision, "file": self.gamed_file}
        return read_gamed(file, len(self.rows), origin)

    def _load(self) -> Iterable[Mapping[str, Any]]:
        return [row.record for row in read_file(str(self._download(self.file)))]

    def _download(self, file: str) -> Path:
        from huggingface_hub import hf_hub_download  # slow to import

        return Path(hf_hub_download(self.hub, file, revision=self.revision, repo_type="dataset"))

    def _problem(self, i: int, row: Row) -> Problem:
        instruction = row.filled("instruction")
        control = {} if self.controls is None else self.controls.meta[i]
        return Problem(
            id=str(i),
            prompt=Prompt(instruction, through_chat(self.chat, style=self.prompt_style == "chat")),
            gold=row.filled("output"),
            meta={"instruction": instruction, "generator": row.text("generator"), **control},
        )


def read_gamed(file: Path, instructions: int, origin: Mapping[str, str]) -> Gamed:
    """The annotations in a csv of GAMED_COLUMNS, a row each; undecided ones give the difficulty only.

    Raises UserError if there is no such file, for a column or an instruction that is not there, and
    for a value that is not a number, or not one that its column may hold.
    """
    try:
        content = file.read_bytes()
        reader = csv.DictReader(io.StringIO(decoded(content), newline=""))
        columns, rows = reader.fieldnames or (), list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"cannot read task.gamed={file}: {error}") from error
    for column in GAMED_COLUMNS:
        require(column in columns, f"{file} lacks the column {column!r}; see task.gamed")
    meta: dict[int, dict[str, Any]] = {}
    for number, row in enumerate(rows, 1):
        where = f"{file} row {number}"
        index = _number(row, "index", where)
        require(
            index in range(instructions),
            f"{where}: 'index' must be one of the {instructions} instructions, 0 to "
            f"{instructions - 1}, got {row['index']}; see task.gamed",
        )
        difficulty = _number(row, "instruction_difficulty", where)
        control = meta.setdefault(int(index), {"difficulty": difficulty, "gamed": []})
        if row["preference"]:
            preference = _number(row, "preference", where)
            inside = 0 <= preference <= 1
            require(
                inside, f"{where}: 'preference' must be in [0, 1], got {preference}; see task.gamed"
            )
            control["gamed"].append([preference, _number(row, "std_delta_len", where)])
    for i in range(instructions):
        require(i in meta, f"{file} has no row with {i} in the column 'index'; see task.gamed")
    digest = hashlib.sha256(content).hexdigest()
    return Gamed({**origin, "sha256": digest}, [meta[i] for i in range(instructions)])


def _number(row: Mapping[str, str | None], column: str, where: str) -> float:
    try:
        value = float(row[column] or "")
    except ValueError:
        value = math.nan
    message = f"{where}: {column!r} must be a number, got {row[column]!r}; see task.gamed"
    require(math.isfinite(value), message)
    return value
