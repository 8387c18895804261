"""The paper's Table 1, and what a run of ours says of the numbers that papers publish for it."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import NamedTuple

from powerbench.report.labels import labels
from powerbench.report.literature import (
    PublishedTask,
    Value,
    literature,
    published_values,
    values_for,
)
from powerbench.report.summary import Summary
from powerbench.report.tables.sources import all_sources, cell, cited, swaps
from powerbench.report.tables.table import (
    Cell,
    Column,
    Table,
    TextCell,
    markdown,
    text,
    write_tables,
)
from powerbench.stats.intervals import Estimate, z_of

POWER = 0.8
"""Chance of seeing a difference that a run "could have shown"."""

ENOUGH = 0.05
"""A run that could not have shown a difference of this size is too small to tell: it is about what power
sampling gains over low temperature in Table 1."""


class PublishedRow(NamedTuple):
    """A model of the paper's table, with a value in [0, 1] for each method and task."""

    title: str
    grpo: str | None
    """The model of ours that is its trained checkpoint, if there is one."""
    values: Mapping[str, Mapping[str, float]]


class Published(NamedTuple):
    """The paper's table."""

    source: str
    tasks: Mapping[str, PublishedTask]
    methods: Mapping[str, str]
    """Their titles, in the paper's order; grpo is base sampling from the trained checkpoint."""
    models: Mapping[str, PublishedRow]
    lengths: Mapping[str, Mapping[str, Mapping[str, float]]]
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
    """The paper's numbers, from those of all sources."""
    every = literature()
    paper = every.sources[every.paper]
    methods = dict.fromkeys(m for values in paper.values.values() for m in values)
    tasks = dict.fromkeys(
        task for values in paper.values.values() for each in values.values() for task in each
    )
    return Published(
        source=f"{paper.cite}, {paper.where}",
        tasks={name: every.tasks[name] for name in tasks},
        methods={name: every.methods[name].title for name in methods},
        models={
            name: PublishedRow(every.models[name].title, every.models[name].grpo, values)
            for name, values in paper.values.items()
        },
        lengths=every.lengths,
    )


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
    own = [v for v in published_values() if v.source == literature().paper]
    cells = {(v.model, v.method, v.task): cell(v) for v in own}
    columns = [Column("model"), Column("method")]
    columns += [Column(f"{task.title} (n = {task.n})") for task in tasks]
    rows = [
        (model.title, title, *(cells.get((name, method, task)) for task in paper.tasks))
        for name, model in paper.models.items()
        for method, title in paper.methods.items()
    ]
    note = (
        f"{paper.source}. One response a problem; [Wilson's 95% interval], from the number of problems "
        "alone."
    )
    return Table("published", "Published", columns, rows, by=1, note=note)


def beside(summaries: Sequence[Summary]) -> Table:
    """The runs that have published numbers, each beside what every source measured: the paper first."""
    rows = [
        (
            s.task,
            s.model,
            name,
            _published(value),
            found,
            *_said(agreement(found, value.value)),
            literature().sources[value.source].short,
        )
        for s, name in zip(summaries, labels(summaries), strict=True)
        if (found := _ours(s)) is not None
        for value in values_for(s)
    ]
    note = (
        "The sources' settings are not asked of a run, nor all of their problems: see its provenance. "
        + "; ".join(cited(dict.fromkeys(row[-1] for row in rows)))
        + "."
    )
    return Table("beside", "Beside the papers", BESIDE, rows, by=2, note=note)


def _said(judged: Judged) -> tuple[str, TextCell]:
    shown = f"± {judged.detectable:.3f}"
    return str(judged.agreement), TextCell(shown, {"could have shown": judged.detectable})


BESIDE = (
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
    Column("source", "who measured it: values that a source only quotes are left out"),
)


def _published(value: Value) -> Cell:
    shown = cell(value)
    return (
        shown if isinstance(shown, TextCell) else TextCell(text(shown), {"published": value.value})
    )


def write_published(out: Path) -> list[Path]:
    """Table 1, the table of all sources and that of exchanges: out/published.md, and each as .csv and .tex."""
    tables = [table(), all_sources(), swaps()]
    files = write_tables(tables, out)
    page = out / "published.md"
    page.write_text("\n".join(markdown(each, level=1) for each in tables), encoding="utf-8")
    return [page, *files]
