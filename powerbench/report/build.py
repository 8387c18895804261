"""The report of a set of runs: tables, figures, markdown and the page."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from powerbench.errors import require
from powerbench.report.figures import draw
from powerbench.report.figures.style import Drawing
from powerbench.report.page.render import render
from powerbench.report.selection import Selection, select
from powerbench.report.summary import Results, labels, main, rank
from powerbench.report.tables import (
    chains,
    disagreement,
    equal_cost,
    fidelity,
    lengths,
    paired,
    published,
    results,
)
from powerbench.report.tables.table import Table, as_csv, as_latex, markdown
from powerbench.store import Run


class Report:
    """What is said of some runs: every part is computed once, when it is asked for."""

    def __init__(self, results: Sequence[Results]) -> None:
        self.results = sorted(results, key=lambda r: rank(r.summary))

    @cached_property
    def chains(self) -> dict[int, chains.Chains]:
        """By the id of a run's results, where it has steps. Reads those runs again."""
        found = {
            id(r): chains.read(r)
            for r in self.results
            if any(s.proposals for s in r.samples.values())
        }
        return {key: each for key, each in found.items() if each is not None}

    @cached_property
    def tables(self) -> list[Table]:
        """All that hold anything, in the order in which they are read."""
        summaries = [r.summary for r in self.results]
        own = [r.summary for r in main(self.results)]
        named = zip(self.results, labels(summaries), strict=True)
        every = [
            results.results(own),
            results.variants([s for s in summaries if all(s is not each for each in own)]),
            published.beside(summaries),
            paired.table(self.results),
            equal_cost.table(self.results),
            results.cost(summaries),
            lengths.table(summaries),
            chains.table(
                (r, name, self.chains[id(r)]) for r, name in named if id(r) in self.chains
            ),
            fidelity.table(self.results),
        ]
        return [table for table in every if table.rows]


def write_report(runs: Sequence[Run], out: Path) -> Path:
    """Write the report of some runs; return the page's path. Raises UserError if there is no run."""
    require(len(runs) > 0, "a report needs at least one run; see `powerbench run`")
    return write(list(map(Results.read, runs)), out)


def write(results: Sequence[Results], out: Path) -> Path:
    """Write out/report.md, out/page.html, out/figures and out/tables; return the page's path."""
    report = Report(results)
    out.mkdir(parents=True, exist_ok=True)
    selection = select(report.results)
    drawings = draw(report.results, report.chains, out / "figures")
    write_tables(report.tables, out / "tables")
    (out / "report.md").write_text(_markdown(report, drawings, selection))
    page = out / "page.html"
    page.write_text(render(report.results, report.tables, drawings, selection))
    return page


def write_tables(found: Sequence[Table], folder: Path) -> None:
    """Every table as folder/<name>.csv and .tex."""
    folder.mkdir(parents=True, exist_ok=True)
    for table in found:
        (folder / f"{table.name}.csv").write_text(as_csv(table))
        (folder / f"{table.name}.tex").write_text(as_latex(table))


def _markdown(report: Report, drawings: Sequence[Drawing], selection: Selection) -> str:
    figures = [
        f"## {d.title}\n\n![{d.title}](figures/{d.name}.png)\n\n{d.caption}\n" for d in drawings
    ]
    first, *others = map(markdown, report.tables)
    disputed = disagreement.markdown(report.results, selection)
    parts = ["# powerbench report\n", first, *figures, *others, disputed]
    return "\n".join(part for part in parts if part)
