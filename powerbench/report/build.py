"""The report of a set of runs: tables, figures, markdown and the page."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from powerbench.errors import require
from powerbench.report.figures import draw
from powerbench.report.figures.style import Drawing
from powerbench.report.labels import main_runs, sort_key
from powerbench.report.page.render import render
from powerbench.report.selection import Selection, select
from powerbench.report.summary import Results
from powerbench.report.tables import (
    chains,
    disagreement,
    equal_cost,
    exchanges,
    fidelity,
    lengths,
    matched_best_of_n,
    paired,
    populations,
    published,
    results,
    slopes,
    training,
    variety,
)
from powerbench.report.tables.table import Table, markdown, write_tables


class Report:
    """The parts of the report of some runs; each is computed once, when it is asked for."""

    def __init__(self, results: Sequence[Results]) -> None:
        self.results = sorted(results, key=lambda r: sort_key(r.summary))

    @cached_property
    def tables(self) -> list[Table]:
        """All that hold anything, in the order in which they are read."""
        summaries = [r.summary for r in self.results]
        own = [r.summary for r in main_runs(self.results)]
        every = [
            results.results(own),
            results.variants([s for s in summaries if all(s is not each for each in own)]),
            published.beside(summaries),
            slopes.table(self.results),
            slopes.problem_table(self.results, slopes.SHOWN),
            paired.table(self.results),
            equal_cost.table(self.results),
            equal_cost.table_of_passes(self.results),
            matched_best_of_n.table(self.results),
            results.cost(summaries),
            lengths.table(summaries),
            training.table(own),
            chains.table(self.results),
            populations.table(self.results),
            exchanges.table(self.results),
            fidelity.table(self.results),
        ]
        return [table for table in every if table.rows]

    @cached_property
    def details(self) -> list[Table]:
        """Tables in full of which the report shows the first rows: their files hold all."""
        every = [slopes.problem_table(self.results)]
        return [table for table in every if table.rows]


def write(results: Sequence[Results], out: Path) -> Path:
    """Write out/report.md, out/page.html, out/figures and out/tables; return the page's path.

    Raises UserError if there is no run.
    """
    require(len(results) > 0, "a report needs at least one run; see `powerbench run`")
    report = Report(results)
    out.mkdir(parents=True, exist_ok=True)
    selection = select(report.results)
    drawings = draw(report.results, out / "figures")
    write_tables([*report.tables, *report.details], out / "tables")
    (out / "report.md").write_text(_markdown(report, drawings, selection), encoding="utf-8")
    page = out / "page.html"
    page.write_text(render(report.results, report.tables, drawings, selection), encoding="utf-8")
    return page


def comparison(
    results: Sequence[Results],
    tokens: float | None = None,
    passes: float | None = None,
    seconds: float | None = None,
) -> list[Table]:
    """The tables of `powerbench compare`: at equal tokens, at equal passes, at equal wall-clock, and variety.

    tokens, passes, seconds: for a problem; see `equal_cost.at_equal_budgets`.
    """
    ordered = sorted(results, key=lambda r: sort_key(r.summary))
    every = [*equal_cost.at_equal_budgets(ordered, tokens, passes, seconds), variety.table(ordered)]
    return [table for table in every if table.rows]


def _markdown(report: Report, drawings: Sequence[Drawing], selection: Selection) -> str:
    figures = [
        f"## {d.title}\n\n![{d.title}](figures/{d.name}.png)\n\n{d.caption}\n" for d in drawings
    ]
    first, *others = map(markdown, report.tables)
    disputed = disagreement.markdown(report.results, selection)
    parts = ["# powerbench report\n", first, *figures, *others, disputed]
    return "\n".join(part for part in parts if part)
