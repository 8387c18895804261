"""The page: one HTML file with tables, figures, responses, and the provenance of each run."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from powerbench.report.figures.style import INK, Drawing
from powerbench.report.labels import labels
from powerbench.report.page.data import embed, page_data
from powerbench.report.page.sides import side_by_side
from powerbench.report.selection import Selection
from powerbench.report.summary import Results
from powerbench.report.tables import published
from powerbench.report.tables.disagreement import verifier_agreement
from powerbench.report.tables.sources import all_sources
from powerbench.report.tables.table import Table, text

HERE = Path(__file__).parent
SCRIPTS = ("elements.js", "chain.js", "rounds.js", "page.js")


def render(
    results: Sequence[Results],
    tables: Sequence[Table],
    drawings: Sequence[Drawing],
    selection: Selection,
) -> str:
    """The page's text. It loads nothing: styles, script, figures and data are inside.

    Responses may hold anything, `</script>` among it: the template escapes what it prints, and the
    script puts text into the page as text only.
    """
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    summaries = [r.summary for r in results]
    names = labels(summaries)
    data = page_data(results, selection)
    comparisons = [
        (s, name, c, text(c.value))
        for s, name, r in zip(summaries, names, results, strict=True)
        for c in verifier_agreement(r)
    ]
    return environment.get_template("page.html.j2").render(
        tables={table.name: table for table in tables},
        published=published.table(),
        sources=all_sources(),
        comparisons=comparisons,
        disputed=any(c.disagreements for _, _, c, _ in comparisons),
        tasks=len({s.task for s in summaries}),
        selection=selection,
        sides=side_by_side(results, data),
        figures=[(drawing, _inline(drawing.svg)) for drawing in drawings],
        runs=[(name, r.summary, _provenance(r)) for name, r in zip(names, results, strict=True)],
        style=Markup((HERE / "page.css").read_text(encoding="utf-8")),
        script=Markup("\n".join((HERE / name).read_text(encoding="utf-8") for name in SCRIPTS)),
        index=embed(data.index),
        chunks=map(embed, data.chunks),
    )


def _inline(svg: Path) -> Markup:
    """The figure as an element whose ink is the page's text colour."""
    text = svg.read_text(encoding="utf-8")
    return Markup(text[text.index("<svg") :].replace(INK, "currentColor"))


def _provenance(result: Results) -> dict[str, list[tuple[str, str]]]:
    run = result.run
    return {"manifest": list(_flat(run.manifest)), "config": list(_flat(run.config))}


def _flat(value: Any, name: str = "") -> Iterable[tuple[str, str]]:
    """Nested mappings as dotted keys with their values."""
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else str(key))
    else:
        yield name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
