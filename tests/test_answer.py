"""The page of runs/answer, and the README, show what the runs there give, and say what their tables say.

Run: pytest tests/test_answer.py
"""

import re
from functools import cache
from pathlib import Path

from powerbench.report.build import Report
from powerbench.report.summary import Results
from powerbench.report.tables.table import markdown
from powerbench.store import find_runs

ROOT = Path(__file__).parents[1]
ANSWER, EXAMPLE = ROOT / "runs" / "answer", ROOT / "runs" / "example"
PAGE = (ANSWER / "README.md").read_text(encoding="utf-8")
NUMBER = re.compile(r"(?<![\w.-])[+−]?\d+\.\d+(?!\w)")
HEADING = re.compile(r"^### (.+)$", re.M)

Row = tuple[str, ...]


def tables(text: str) -> list[tuple[str, list[Row]]]:
    """Each table of a markdown text: the last heading of third order before it, and its rows of cells."""
    found, heading, rows = [], "", list[Row]()
    for line in [*text.splitlines(), ""]:
        if match := HEADING.match(line):
            heading = match[1].strip()
        if line.startswith("|"):
            rows.append(tuple(cell.strip() for cell in line.strip("|").split("|")))
        elif rows:
            found.append((heading, rows[2:]))
            rows = []
    return found


@cache
def reported(folder: Path) -> list[tuple[str, Row]]:
    """Every row of the report of these runs as the code makes it now, under its task and model."""
    report = Report([Results.read(run) for run in find_runs([folder])])
    text = "\n".join(markdown(table) for table in report.tables)
    return [(heading, row) for heading, rows in tables(text) for row in rows]


def test_every_row_of_the_page_is_a_row_of_the_report() -> None:
    """Its cells are some of that row's, under the same task and model."""
    shown = tables(PAGE)
    assert len(shown) >= 3
    for heading, rows in shown:
        where = [row for found, row in reported(ANSWER) if found.startswith(heading)]
        for row in rows:
            assert any(set(row) <= set(each) for each in where), (heading, row)


def test_every_number_of_the_page_stands_in_one_of_its_tables() -> None:
    prose = "\n".join(line for line in PAGE.splitlines() if not line.startswith(("|", "`", "    ")))
    told = set(NUMBER.findall(re.sub(r"\]\([^)]*\)|`[^`]*`", "", prose)))
    rows = [row for _, several in tables(PAGE) for row in several]
    shown = {number for row in rows for cell in row for number in NUMBER.findall(cell)}
    there = shown | {n.lstrip("+−") for n in shown}  # "ahead by 0.030" is a difference of −0.030
    assert told <= there, sorted(told - there)


def test_the_readme_shows_rows_of_these_reports() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = [rows for _, rows in tables(text) if any(row[0] == "power" for row in rows)]
    assert len(shown) == 2
    for folder, rows in zip((ANSWER, EXAMPLE), shown, strict=True):
        for row in rows:
            assert any(set(row) <= set(each) for _, each in reported(folder)), (folder, row)
