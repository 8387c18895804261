"""A table of values, written the same way everywhere: as markdown, on the page, as CSV and as LaTeX."""

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from powerbench.stats.intervals import Estimate

NOTHING = "–"
"""Stands for what does not apply, or is not known yet."""

ESCAPES = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "−": "$-$",
    "×": r"$\times$",
    "±": r"$\pm$",
    "α": r"$\alpha$",
    "–": "--",
    "·": r"$\cdot$",
    "’": "'",
}


class TextCell(NamedTuple):
    """A cell whose text says several things, each of which has its own column in CSV."""

    text: str
    values: Mapping[str, Any]


Cell = str | int | float | Estimate | TextCell | None
"""None: does not apply, or is not known yet. An estimate is shown with its interval."""


class Column(NamedTuple):
    """One quantity: its heading, what it is, and how its numbers are written."""

    heading: str
    meaning: str = ""
    form: str = ".3f"


@dataclass(frozen=True)
class Table:
    """Rows of values under columns; the first `by` columns name the group that a row is in."""

    name: str
    """Of its files."""
    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    by: int = 0
    names: int = 1
    """How many columns after these are text, which is set to the left."""
    note: str = ""

    def groups(self) -> list["Group"]:
        """The rows by group, in their order, as text."""
        found = groupby(self.rows, lambda row: tuple(str(cell) for cell in row[: self.by]))
        return [
            Group(
                names,
                [self._texts(row)[self.by :] for row in rows],
                [row[self.by :] for row in rows],
            )
            for names, each in found
            for rows in [list(each)]
        ]

    def used(self, groups: Sequence["Group"] | None = None) -> list[int]:
        """Which columns, without those that name the groups, hold something in any row; the names and the
        first quantity in any case."""
        rows = [row for group in groups or self.groups() for row in group.rows]
        several = range(len(self.columns) - self.by)
        return [i for i in several if i <= self.names or any(r[i] != NOTHING for r in rows)]

    def heads(self) -> Sequence[Column]:
        """The columns without those that name the groups."""
        return self.columns[self.by :]

    def _texts(self, row: Sequence[Cell]) -> list[str]:
        return [text(cell, column.form) for cell, column in zip(row, self.columns, strict=True)]


class Group(NamedTuple):
    """Rows that belong together, without the cells that name them."""

    names: tuple[str, ...]
    rows: list[list[str]]
    """As text."""
    cells: list[Sequence[Cell]]
    """As values."""

    @property
    def title(self) -> str:
        """What the rows are of."""
        return " · ".join(self.names)


def text(cell: Cell, form: str = ".3f") -> str:
    """A cell as it is shown: an estimate as `0.748 [0.708, 0.784]`."""
    match cell:
        case None:
            return NOTHING
        case str():
            return cell
        case TextCell():
            return cell.text
        case Estimate():
            low, high = cell.interval
            if math.isinf(high - low):  # nothing is known of it
                return _number(cell.mean, form)
            return f"{_number(cell.mean, form)} [{_number(low, form)}, {_number(high, form)}]"
        case int():
            return _number(cell, ",")
        case _:
            return _number(cell, form)


def _number(x: float, form: str) -> str:
    return f"{x:{form}}".replace("-", "−")


def write_tables(tables: Sequence[Table], folder: Path) -> list[Path]:
    """Write every table as folder/<name>.csv and folder/<name>.tex; return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for table in tables:
        for kind, content in (("csv", as_csv(table)), ("tex", as_latex(table))):
            file = folder / f"{table.name}.{kind}"
            file.write_text(content, encoding="utf-8")
            files.append(file)
    return files


# -- markdown -------------------------------------------------------------------------------------


def line(cells: Sequence[str]) -> str:
    """A row of a table in markdown."""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def markdown(table: Table, level: int = 2) -> str:
    """A section: one table for each group, then what the columns mean, and the note."""
    sections = [f"{'#' * level} {table.title}"]
    for group in table.groups():
        shown = table.used([group])
        lines = [line([table.heads()[i].heading for i in shown])]
        lines += [line(["---" if i < table.names else "---:" for i in shown])]
        lines += [line([row[i] for i in shown]) for row in group.rows]
        title = [f"{'#' * (level + 1)} {group.title}\n"] if group.names else []
        sections.append("\n".join([*title, *lines]))
    meanings = [table.heads()[i] for i in table.used() if table.heads()[i].meaning]
    if meanings:
        sections.append("\n".join(f"- **{c.heading}**: {c.meaning}" for c in meanings))
    return "\n\n".join([*sections, *([table.note] if table.note else [])]) + "\n"


# -- CSV ------------------------------------------------------------------------------------------


def as_csv(table: Table) -> str:
    """Comma-separated values (RFC 4180, with plain newlines): numbers in full, nothing where there is none.

    An estimate has three columns: its mean, and the ends of its interval.
    """
    rows = records(table)
    heads = dict.fromkeys(head for row in rows for head in row)
    out = io.StringIO()
    writer = csv.DictWriter(out, list(heads), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def records(table: Table) -> list[dict[str, Any]]:
    """Its rows as plain values by heading: what CSV has."""
    return [dict(_values(table.columns, row)) for row in table.rows]


def _values(columns: Sequence[Column], row: Sequence[Cell]) -> Iterator[tuple[str, Any]]:
    for column, cell in zip(columns, row, strict=True):
        name = column.heading.removesuffix(" [95%]")
        match cell:
            case Estimate():
                yield name, cell.mean
                yield f"{name}, low", cell.interval.low
                yield f"{name}, high", cell.interval.high
            case TextCell():
                yield from cell.values.items()
            case _:
                yield name, cell


# -- LaTeX ----------------------------------------------------------------------------------------


def as_latex(table: Table) -> str:
    """A tabular for booktabs: a rule between groups, whose names stand in their first row only."""
    groups = table.groups()
    shown = table.used(groups)
    heads = [*table.columns[: table.by], *(table.heads()[i] for i in shown)]
    left = table.by + sum(i < table.names for i in shown)
    bodies = [
        "\n".join(
            _row([*(group.names if n == 0 else [""] * table.by), *(row[i] for i in shown)])
            for n, row in enumerate(group.rows)
        )
        for group in groups
    ]
    return "\n".join(
        [
            rf"\begin{{tabular}}{{{'l' * left}{'r' * (len(heads) - left)}}}",
            r"\toprule",
            _row([column.heading for column in heads]),
            r"\midrule",
            "\n\\midrule\n".join(bodies),
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )


def _row(cells: Sequence[str]) -> str:
    return " & ".join("".join(ESCAPES.get(c, c) for c in cell) for cell in cells) + r" \\"
