"""The paper's Table 1: rendered from its one yaml, and what a run of ours says of a number in it."""

from collections.abc import Sequence
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import NamedTuple

import msgspec
import yaml

from powerbench.report.summary import Summary, labels
from powerbench.report.tables.table import Cell, Column, Table, TextCell, markdown, write_tables
from powerbench.stats.intervals import Estimate, wilson, z_of

FILE = Path(__file__).with_name("published.yaml")

POWER = 0.8
"""Chance of seeing a difference that a run "could have shown"."""

ENOUGH = 0.05
"""A run that could not have shown a difference of this size is too small to tell: it is about what power
sampling gains over low temperature in Table 1."""


class PublishedTask(msgspec.Struct, frozen=True):
    """A benchmark of the table."""

    title: str
    problems: int
    metric: str


class PublishedModel(msgspec.Struct, frozen=True):
    """A model of the table, with a value in [0, 1] for each method and task."""

    title: str
    grpo: str | None
    """The model of ours that is its trained checkpoint, if there is one."""
    values: dict[str, dict[str, float]]


class Published(msgspec.Struct, frozen=True):
    """All of it."""

    source: str
    tasks: dict[str, PublishedTask]
    methods: dict[str, str]
    models: dict[str, PublishedModel]
    lengths: dict[str, dict[str, dict[str, float]]]
    """Of responses, tokens: by model, task and method."""

    def row(self, model: str, sampler: str) -> tuple[str, str] | None:
        """The model and the method under which the paper has a run of ours; None if it has none."""
        for name, each in self.models.items():
            if model == name and sampler in each.values:
                return name, sampler
            if model == each.grpo and sampler == "base":
                return name, "grpo"
        return None

    def value(self, task: str, model: str, sampler: str) -> float | None:
        """What the paper has for a run of ours; None if nothing."""
        row = self.row(model, sampler)
        return None if row is None else self.models[row[0]].values[row[1]].get(task)

    def length(self, task: str, model: str, sampler: str) -> float | None:
        """The mean length that the paper has for a run of ours, in tokens; None if nothing."""
        row = self.row(model, sampler)
        return None if row is None else self.lengths.get(row[0], {}).get(task, {}).get(row[1])


class Agreement(StrEnum):
    """What a run says of a published value, which is taken for exact."""

    INSIDE = "inside"
    """Within the run's 95% interval, which is narrow enough to mean something."""
    OUTSIDE = "outside"
    TOO_FEW = "too few problems to tell"


class Judged(NamedTuple):
    """A published value beside a run."""

    published: float
    agreement: Agreement
    detectable: float
    """The smallest difference that the run would have shown with a chance of 0.8, at a level of 0.05."""


@cache
def published() -> Published:
    """The published numbers."""
    return msgspec.convert(yaml.safe_load(FILE.read_text(encoding="utf-8")), Published)


def judge(summary: Summary) -> Judged | None:
    """What a run says of the paper's number for its task, model and sampler; None if it has none.

    AlpacaEval's number is the length-controlled win rate. A sampler's variants have no number.
    """
    value = published().value(summary.task, summary.model, summary.sampler)
    found = _ours(summary)
    if value is None or found is None or summary.changes:
        return None
    return agreement(found, value)


def _ours(summary: Summary) -> Estimate | None:
    """What is to be compared with the paper's number."""
    return summary.length_controlled if summary.task == "alpaca_eval" else summary.value


def agreement(found: Estimate, value: float, enough: float = ENOUGH) -> Judged:
    """Whether an estimate's interval holds a published value, or is too wide to tell.

    enough: the difference that it must have been able to show, in the value's unit.
    """
    low, high = found.interval
    error = (high - low) / (2 * z_of(0.95))
    detectable = error * (z_of(0.95) + z_of(2 * POWER - 1))
    if not low <= value <= high:
        return Judged(value, Agreement.OUTSIDE, detectable)
    return Judged(
        value, Agreement.INSIDE if detectable <= enough else Agreement.TOO_FEW, detectable
    )


# -- the tables -----------------------------------------------------------------------------------


def table() -> Table:
    """Table 1: model, method, and a cell for each task; a 95% interval follows from value and n alone."""
    paper = published()
    tasks = paper.tasks.values()
    columns = [Column("model"), Column("method")]
    columns += [Column(f"{task.title} (n = {task.problems})") for task in tasks]
    rows = [
        (
            model.title,
            title,
            *(
                _cell(model.values.get(method, {}).get(name), task)
                for name, task in paper.tasks.items()
            ),
        )
        for model in paper.models.values()
        for method, title in paper.methods.items()
    ]
    note = (
        f"{paper.source}. One response a problem; [Wilson's 95% interval], from the number of problems "
        "alone."
    )
    return Table("published", "Published", columns, rows, by=1, note=note)


def beside(summaries: Sequence[Summary]) -> Table:
    """The runs that have a published number, each beside it."""
    named = zip(summaries, labels(summaries), strict=True)
    judged = [(s, name, found) for s, name in named if (found := judge(s)) is not None]
    rows = [
        (
            s.task,
            s.model,
            name,
            _beside(value, published().tasks[s.task]),
            _ours(s),
            str(said),
            TextCell(f"± {detectable:.3f}", {"could have shown": detectable}),
        )
        for s, name, (value, said, detectable) in judged
    ]
    columns = (
        Column("task"),
        Column("model"),
        Column("run"),
        Column("published [95%]"),
        Column("here [95%]"),
        Column("agreement", "whether the interval here holds the published value, taken for exact"),
        Column(
            "could have shown",
            f"the smallest difference that this many answers show with a chance of {POWER:.0%}; above "
            f"{ENOUGH:.2f}, a value inside the interval means little",
        ),
    )
    note = (
        f"{published().source}. The paper's settings are not asked of a run, nor all of its problems: see its "
        "provenance."
    )
    return Table("beside", "Beside the paper", columns, rows, by=2, note=note)


def _beside(value: float, task: PublishedTask) -> Cell:
    cell = _cell(value, task)
    return TextCell(cell.text, {"published": value}) if isinstance(cell, TextCell) else cell


def write_published(out: Path) -> list[Path]:
    """Table 1 as out/published.md, .csv and .tex."""
    files = write_tables([table()], out)
    page = out / "published.md"
    page.write_text(markdown(table(), level=1), encoding="utf-8")
    return [page, *files]


def _cell(value: float | None, task: PublishedTask) -> Cell:
    if value is None:
        return None
    if task.metric != "accuracy":
        return TextCell(f"{100 * value:.2f}%", {task.title: value})
    return Estimate(value, wilson(round(value * task.problems), task.problems), task.problems)
