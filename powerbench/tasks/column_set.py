"""A problem set whose columns are named by settings: what `math_set`, `code_set` and `choice_set` share."""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from powerbench.errors import UserError, require, require_integer, unknown
from powerbench.tasks.common import (
    provenance,
    require_kind,
    require_settings,
    require_style,
    through_chat,
)
from powerbench.tasks.reading import Row, read_file, read_hub
from powerbench.types import Problem, Prompt

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
ENDINGS = re.compile(r"(\.(jsonl?|csv|parquet|gz))+$", re.IGNORECASE)
QUESTION = "{question}"
FEW_SHOT = "few_shot"


@dataclass(frozen=True, kw_only=True)
class ColumnSet(ABC):
    """Problems in the rows of a file, or of a data set on the hub, by the names of its columns.

    name: names the run folder and the random streams; None: the file's name without its ending, or the
        last part of the hub id.
    path: a local file (JSON lines, a JSON array, CSV, Parquet), one that comes with powerbench
        (`bundled:<name>`), or a hub id, owner/name; None: `hub`.
    hub, subset, split, revision: the data set on the hub, read by `datasets`.
    question: the column of what is asked; of several names the first that is a column.
    id: the column of the problems' ids; None: the rows' numbers, from 1.
    prompt_style: one of the set's styles; `few_shot`, worked examples as raw text.
    prompt: a template of your own instead, with {question} in it.
    examples: a file of worked examples for `few_shot`, with the fields `question` and `solution`.
    shots: how many of them are shown, the first ones; None: all.
    chat: `model` (raw text for a base model and for `few_shot`, one user turn otherwise), `always`, `never`.
    stop_tokens: strings of one token each that end a response, beside the model's own.
    one_line: whether a response ends with its line; None: for `few_shot`, where every example's solution is one
        line.
    where: only the rows whose columns have one of the values given, compared as text: {level: [1, 2]}.
    every: of these rows, every so-many-th, from the first: 2 takes half of them.
    """

    STYLES: ClassVar[Mapping[str, str]]
    """Templates, by name."""
    RAW: ClassVar[tuple[str, ...]] = (FEW_SHOT,)
    """Styles that are raw text for every model."""

    name: str | None = None
    path: str | None = None
    hub: str | None = None
    subset: str | None = None
    split: str = "test"
    revision: str | None = None
    question: str | Sequence[str] = "question"
    id: str | None = None
    prompt_style: str = "plain"
    prompt: str | None = None
    examples: str | None = None
    shots: int | None = None
    chat: str = "model"
    proposal_temperature: float | None = None
    stop_tokens: Sequence[str] = ()
    one_line: bool | None = None
    where: Mapping[str, Any] | None = None
    every: int = 1

    def __post_init__(self) -> None:
        require_style(self.prompt_style, (*self.STYLES, FEW_SHOT))
        require_settings(self.chat, self.proposal_temperature)
        origin = self.path or self.hub
        require(
            bool(origin), "task.path must be a local file or a hub id (owner/name), got nothing"
        )
        require(
            self.prompt is None or QUESTION in self.prompt,
            f"task.prompt must hold {QUESTION}, where the question goes, got {self.prompt!r}",
        )
        if self.shots is not None:
            require_integer("task.shots", self.shots, 1)
        require_integer("task.every", self.every, 1)
        if self.name is None:
            name = ENDINGS.sub("", Path(str(origin).removeprefix("bundled:")).name)
            object.__setattr__(self, "name", name)
        require("/" not in str(self.name), f"task.name={self.name!r} cannot name a folder")

    # -- what each kind of set says -------------------------------------------------------------------

    @abstractmethod
    def columns(self) -> Mapping[str, str | Sequence[str] | None]:
        """The columns that must be there, by the setting that names them; of several names one."""

    @abstractmethod
    def problem(self, row: Row, id: str, kind: str) -> Problem:
        """The problem of a row."""

    @abstractmethod
    def example(self, shown: str, solution: str | None) -> str:
        """A worked example as `few_shot` shows it, or, without a solution, the problem to be solved."""

    def example_question(self, row: Row) -> str:
        """What an example's question looks like: as a problem's."""
        return row.filled("question")

    # -- the task -------------------------------------------------------------------------------------

    def problems(self, kind: str) -> list[Problem]:
        require_kind(kind)
        self._require_columns()
        places: dict[str, str] = {}
        problems = []
        numbered = [each for each in enumerate(self.rows, 1) if self._wanted(each[1])]
        require(bool(numbered), f"task.where={self.where} leaves none of {len(self.rows)} rows")
        for number, row in numbered[:: self.every]:
            id = str(number) if self.id is None else row.cell(self.id)
            require(
                id not in places,
                f"{row.where}: the problem id {id!r} stands in {places.get(id)} already; see task.id",
            )
            places[id] = row.where
            problems.append(self.problem(row, id, kind))
        return problems

    def source(self) -> Mapping[str, Any]:
        if self.file is not None:
            return provenance(self.rows, path=self.file)
        chosen = {"hub": self.hub_id, "subset": self.subset, "split": self.split}
        chosen["revision"] = self.revision
        return provenance(self.rows, **{k: v for k, v in chosen.items() if v is not None})

    @cached_property
    def rows(self) -> Sequence[Row]:
        """The data set as it is stored."""
        return self.read(self.split) if self.file is None else read_file(self.file)

    @property
    def file(self) -> str | None:
        """The local file; None for a set on the hub."""
        return None if self.path is None or self._names_hub(self.path) else self.path

    @property
    def hub_id(self) -> str:
        return str(self.path or self.hub)

    def read(self, split: str) -> list[Row]:
        """The rows of a split on the hub. Raises UserError if they cannot be had."""

        def load() -> Iterable[Mapping[str, Any]]:
            from datasets import load_dataset  # slow to import

            return load_dataset(self.hub_id, self.subset, split=split, revision=self.revision)

        remedy = "set task.path=<local jsonl, csv or parquet>"
        if self.path is not None:
            remedy = (
                f"there is no local file {self.path} either; see task.path, and for the hub task.subset, "
                f"task.split and task.revision"
            )
        return read_hub(self.hub_id, self.revision or "main", load, remedy)

    @property
    def few_shot(self) -> bool:
        """Whether worked examples stand before a problem."""
        return self.prompt is None and self.prompt_style == FEW_SHOT

    @property
    def ends_with_line(self) -> bool:
        """Whether a response ends at the first token that has a line's end in it.

        One stop token would not do: after a solution a model may write a period and two line ends as one, and
        go on to a problem of its own, whose box would count.
        """
        if self.one_line is None:
            return self.few_shot and not any("\n" in solution for _, solution in self._examples)
        return self.one_line

    def asked(self, shown: str, kind: str, **fields: str) -> Prompt:
        """The prompt for what is shown of a problem. fields: what else a template may hold."""
        if self.few_shot:
            text = "".join(f"{each}\n\n" for each in self._worked) + self.example(shown, None)
        else:
            text = self.STYLES[self.prompt_style] if self.prompt is None else self.prompt
            for name, value in fields.items():
                text = text.replace(f"{{{name}}}", value)
            text = text.replace(QUESTION, shown)
        turn = kind != "base" and (self.prompt is not None or self.prompt_style not in self.RAW)
        return Prompt(text, through_chat(self.chat, turn))

    def text_of(self, row: Row, names: str | Sequence[str]) -> str:
        """The content of a column, or of the first of several that the row has."""
        return row.cell(column_of(names, row.record))

    def _names_hub(self, path: str) -> bool:
        return bool(HUB_ID.fullmatch(path)) and not Path(path).expanduser().exists()

    def _wanted(self, row: Row) -> bool:
        return all(
            row.cell(column) in {str(value) for value in listed(values)}
            for column, values in (self.where or {}).items()
        )

    def _require_columns(self) -> None:
        there = list(dict.fromkeys(column for row in self.rows for column in row.record))
        for setting, names in {**self.columns(), "id": self.id, "question": self.question}.items():
            if names is not None and column_of(names, there) not in there:
                raise unknown(f"column task.{setting} =", column_of(names, there), there)
        for column in self.where or {}:
            if column not in there:
                raise unknown("column task.where =", column, there)

    @cached_property
    def _examples(self) -> list[tuple[str, str]]:
        """What is shown of each example, and its solution."""
        require(
            self.examples is not None,
            "task.prompt_style=few_shot needs task.examples, a file with the fields question and solution",
        )
        try:
            rows = read_file(str(self.examples))
            shots = len(rows) if self.shots is None else self.shots
            require(
                shots <= len(rows), f"task.shots={shots}, but {self.examples} has {len(rows)} rows"
            )
            return [(self.example_question(row), row.filled("solution")) for row in rows[:shots]]
        except UserError as error:
            raise UserError(str(error).replace("task.path", "task.examples")) from error

    @cached_property
    def _worked(self) -> list[str]:
        return [self.example(shown, solution) for shown, solution in self._examples]


def column_of(names: str | Sequence[str], there: Iterable[str]) -> str:
    """The column that a setting names: of several names the first that is there, or else the first."""
    several = listed(names)
    return next((name for name in several if name in there), several[0])


def listed(value: Any) -> Sequence[Any]:
    """Several values, where a setting may have one or a list of them."""
    return [value] if isinstance(value, str | int | float) else list(value)
