"""The report of a set of runs: markdown, figures, and the page."""

from collections.abc import Sequence
from pathlib import Path

from powerbench.errors import require
from powerbench.report import disagreement, pairs, published
from powerbench.report.figures import Drawing, draw
from powerbench.report.page import render
from powerbench.report.selection import Selection, select
from powerbench.report.summary import Results, rank
from powerbench.report.tables import markdown
from powerbench.store import Run


def write_report(runs: Sequence[Run], out: Path) -> Path:
    """Write the report of some runs; return the page's path. Raises UserError if there is no run."""
    require(len(runs) > 0, "a report needs at least one run; see `powerbench run`")
    return write(list(map(Results.read, runs)), out)


def write(results: Sequence[Results], out: Path) -> Path:
    """Write out/report.md, out/page.html and out/figures/*.png|svg; return the page's path."""
    results = sorted(results, key=lambda r: rank(r.summary))
    out.mkdir(parents=True, exist_ok=True)
    selection = select(results)
    drawings = draw(results, out / "figures")
    (out / "report.md").write_text(_markdown(results, drawings, selection))
    page = out / "page.html"
    page.write_text(render(results, drawings, selection))
    return page


def _markdown(results: Sequence[Results], drawings: Sequence[Drawing], selection: Selection) -> str:
    figures = [
        f"## {d.title}\n\n![{d.title}](figures/{d.name}.png)\n\n{d.caption}\n" for d in drawings
    ]
    table = markdown([r.summary for r in results])
    compared = [published.beside([r.summary for r in results]), pairs.markdown(results)]
    compared += [disagreement.markdown(results, selection)]
    parts = ["# powerbench report\n", table, *figures, *compared]
    return "\n".join(part for part in parts if part)
