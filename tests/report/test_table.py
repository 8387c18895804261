"""A table says the same as markdown, CSV and LaTeX.

Run: pytest tests/report/test_table.py
"""

import csv
import io
import math

import pytest

from powerbench.report.tables.table import (
    Cell,
    Column,
    Table,
    TextCell,
    as_csv,
    as_latex,
    markdown,
    text,
)
from powerbench.stats.intervals import Estimate, Interval

VALUE = Estimate(0.75, Interval(0.5, 0.875), 40)


@pytest.fixture
def table() -> Table:
    columns = (
        Column("task"),
        Column("sampler"),
        Column("value [95%]", "accuracy"),
        Column("gain", "nats", "+.1f"),
        Column("n"),
        Column("never"),
    )
    rows: list[tuple[Cell, ...]] = [
        ("a", "low_temp", VALUE, -1.25, TextCell("3 × 4", {"problems": 3, "replicates": 4}), None),
        ("a", "power", None, None, TextCell("0", {"problems": 0, "replicates": 0}), None),
        (
            "b",
            "50% & more|less",
            VALUE,
            2.0,
            TextCell("1 × 1", {"problems": 1, "replicates": 1}),
            None,
        ),
    ]
    return Table("some", "Some", columns, rows, by=1, note="A note.")


def test_cells_have_one_form() -> None:
    assert text(VALUE) == "0.750 [0.500, 0.875]"
    assert text(Estimate(2.0, Interval(-math.inf, math.inf), 1)) == "2.000"
    assert text(-0.25, ".2f") == "−0.25"
    assert text(12345) == "12,345"
    assert text(None) == "–"


def test_markdown_has_a_part_for_each_group_and_drops_what_is_empty(table: Table) -> None:
    written = markdown(table)
    assert written.startswith(
        "## Some\n\n### a\n\n| sampler | value [95%] | gain | n |\n| --- | ---: |"
    )
    assert "| low_temp | 0.750 [0.500, 0.875] | −1.2 | 3 × 4 |" in written
    assert "| power | – | – | 0 |" in written
    assert "### b" in written and "50% & more\\|less" in written
    assert "never" not in written
    assert "- **value [95%]**: accuracy" in written
    assert written.endswith("A note.\n")


def test_csv_has_numbers_in_full_and_nothing_where_there_is_none(table: Table) -> None:
    rows = list(csv.DictReader(io.StringIO(as_csv(table))))
    assert list(rows[0]) == [
        "task", "sampler", "value", "value, low", "value, high", "gain", "problems", "replicates", "never",
    ]  # fmt: skip
    assert (rows[0]["value, low"], rows[0]["gain"], rows[0]["replicates"]) == ("0.5", "-1.25", "4")
    assert (rows[1]["value"], rows[1]["gain"]) == ("", "")
    assert rows[2]["sampler"] == "50% & more|less"


def test_latex_is_escaped_and_names_each_group_once(table: Table) -> None:
    written = as_latex(table)
    assert r"\begin{tabular}{llrrr}" in written
    assert r"a & low\_temp & 0.750 [0.500, 0.875] & $-$1.2 & 3 $\times$ 4 \\" in written
    assert r" & power & -- & -- & 0 \\" in written
    assert r"b & 50\% \& more|less & " in written
    assert written.count(r"\midrule") == 2
