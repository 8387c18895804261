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

Row = dict[str, str]
"""By column: its cells."""


def tables(text: str) -> list[tuple[str, list[Row]]]:
    """Each table of a markdown text: the last heading of third order before it, and its rows."""
    found, heading, lines = [], "", list[list[str]]()
    for line in [*text.splitlines(), ""]:
        if match := HEADING.match(line):
            heading = match[1].strip()
        if line.startswith("|"):
            lines.append([cell.strip() for cell in line.strip("|").split("|")])
        elif lines:
            head, _, *rows = lines
            found.append((heading, [dict(zip(head, row, strict=True)) for row in rows]))
            lines = []
    return found


def numbers(rows: list[Row]) -> set[str]:
    """Those in their cells, signed ones also without the sign: "behind by 0.030" is a difference of -0.030."""
    found = {n for row in rows for cell in row.values() for n in NUMBER.findall(cell)}
    return found | {n.lstrip("+−") for n in found}


def told(prose: str) -> set[str]:
    """The numbers with decimals outside tables, code and links."""
    lines = (line for line in prose.splitlines() if not line.startswith(("|", "    ")))
    return set(NUMBER.findall(re.sub(r"\]\([^)]*\)|`[^`]*`", "", "\n".join(lines))))


@cache
def reported(folder: Path) -> list[tuple[str, Row]]:
    """Every row of the report of these runs as the code makes it now, under its task and model."""
    report = Report([Results.read(run) for run in find_runs([folder])])
    text = "\n".join(markdown(table) for table in report.tables)
    return [(heading, row) for heading, rows in tables(text) for row in rows]


def stands_in(row: Row, rows: list[Row]) -> bool:
    """Whether some row has the same cells in the columns of the same names."""
    return any(row.items() <= each.items() for each in rows)


def test_every_row_of_the_page_is_a_row_of_the_report() -> None:
    """Some of its columns, under the same task and model."""
    shown = tables(PAGE)
    assert len(shown) >= 3
    for heading, rows in shown:
        where = [row for found, row in reported(ANSWER) if found.startswith(heading)]
        for row in rows:
            assert stands_in(row, where), (heading, row)


def test_every_number_of_the_page_stands_in_one_of_its_tables() -> None:
    there = numbers([row for _, rows in tables(PAGE) for row in rows])
    assert told(PAGE) <= there, sorted(told(PAGE) - there)


def test_the_readme_shows_rows_and_numbers_of_these_reports() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = [rows for _, rows in tables(text) if any("power" in row.values() for row in rows)]
    assert len(shown) == 2
    for folder, rows in zip((ANSWER, EXAMPLE), shown, strict=True):
        for row in rows:
            assert stands_in(row, [each for _, each in reported(folder)]), (folder, row)
    answer, example = text.split("## Try it")
    on_the_page = numbers([row for _, rows in tables(PAGE) for row in rows])
    assert told(answer) <= on_the_page, sorted(told(answer) - on_the_page)
    example = example[: example.index("## Run something")]
    in_the_report = numbers([row for _, row in reported(EXAMPLE)])
    assert told(example) <= in_the_report, sorted(told(example) - in_the_report)
