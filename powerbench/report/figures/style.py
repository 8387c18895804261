"""How figures look: a style for each sampler, small multiples by task and model, three formats."""

import textwrap
from collections.abc import Callable, Iterable, Sequence
from itertools import cycle
from math import ceil
from pathlib import Path
from typing import Generic, Literal, NamedTuple, TypeVar

from matplotlib import rc_context, rc_params_from_file
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from powerbench.report.labels import labels, sampler_sort_key
from powerbench.report.summary import Results, Summary
from powerbench.report.variants import sampler_order

STYLE_FILE = Path(__file__).with_name("style.mplstyle")
INK = str(rc_params_from_file(STYLE_FILE, use_default_template=False)["text.color"])
"""The one colour of text and axes; the page replaces it by its own, light or dark."""
OKABE_ITO = (INK, "#0072b2", "#e69f00", "#d55e00", "#cc79a7", "#009e73", "#56b4e9")
"""Okabe and Ito 2008; ink for black, and without the yellow that vanishes on white."""
Line = Literal["-", "--", ":", "-."]
LINES: tuple[Line, ...] = ("-", "--", ":", "-.")
MARKERS = "osD^vPX"
LEGEND_ROW = 0.2
"""Height of a row of a legend, inches."""

C = TypeVar("C", bound="Styled")


class Drawing(NamedTuple):
    """A figure on disk, as `<name>.png`, `.svg` and `.pdf`."""

    name: str
    title: str
    caption: str
    svg: Path


class Style(NamedTuple):
    """How one sampler is drawn, in every panel."""

    colour: str
    line: Line
    marker: str


class Styled:
    """Has a label and a style in a legend."""

    label: str
    style: Style


class Curve(Styled):
    """One run in one panel."""

    def __init__(self, results: Results, label: str, style: Style) -> None:
        self.results, self.label, self.style = results, label, style

    @property
    def summary(self) -> Summary:
        """Its run's."""
        return self.results.summary


class Panel(NamedTuple, Generic[C]):
    """A part of a figure: of one task and model, as a rule."""

    title: str
    curves: Sequence[C]


def curves(results: Sequence[Results]) -> list[Curve]:
    """Runs with their labels and styles."""
    summaries = [r.summary for r in results]
    names = labels(summaries)
    styles = assign_styles(zip(names, (s.sampler for s in summaries), strict=True))
    return [Curve(r, name, styles[name]) for r, name in zip(results, names, strict=True)]


def title(summary: Summary) -> str:
    """Of a run's panel."""
    return f"{summary.task} · {summary.model}"


def panels(found: Iterable[Curve]) -> list[Panel[Curve]]:
    """The runs of each task and model together."""
    grouped: dict[str, list[Curve]] = {}
    for curve in found:
        grouped.setdefault(title(curve.summary), []).append(curve)
    return [Panel(name, each) for name, each in grouped.items()]


def assign_styles(runs: Iterable[tuple[str, str]]) -> dict[str, Style]:
    """A style for each (label, sampler): a known sampler has the same colour in every report."""
    ordered = sorted(set(runs), key=lambda run: (sampler_sort_key(run[1]), run[0]))
    first = {sampler: label for label, sampler in reversed(ordered)}
    own = {
        first[sampler]: (colour, LINES[0])
        for sampler, colour in zip(sampler_order(), OKABE_ITO, strict=False)
        if sampler in first
    }
    spare = cycle([line for line in _style_cycle() if line not in own.values()])
    lines = {label: own[label] if label in own else next(spare) for label, _ in ordered}
    # As many markers as colours: shifted by one each time, so that no pair comes twice.
    count = len(MARKERS)
    return {
        label: Style(*line, MARKERS[(i + i // count) % count])
        for i, (label, line) in enumerate(lines.items())
    }


def _style_cycle() -> list[tuple[str, Line]]:
    return [(colour, line) for line in LINES for colour in OKABE_ITO]


def multiples(
    found: Sequence[Panel[C]],
    plot: Callable[[Axes, Sequence[C]], str],
    x: str,
    y: str,
    width: float = 3.3,
) -> Figure:
    """Small multiples with one legend.

    plot: fills a panel, and returns the note on how many it shows. width: of a panel, inches.
    """
    columns = 2 if len(found) == 4 else min(3, len(found))
    rows, entries = ceil(len(found) / columns), in_order(found)
    across = max(width, 6.0 if len(entries) > 6 and columns == 1 else 0.0) * columns + 0.3
    lines = sum(1 + folded(label).count("\n") for label, _ in entries)
    tall = LEGEND_ROW * ceil(lines / legend_columns(entries, across))
    with rc_context(fname=STYLE_FILE):
        figure = Figure(figsize=(across, 2.5 * rows + 0.3 + tall), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
        for axes, panel in zip(grid.flat, found, strict=False):
            note = plot(axes, panel.curves)
            head(axes, panel.title, note)
            axes.set_xlabel(x)
        for axes in grid[:, 0]:
            axes.set_ylabel(y)
        for axes in grid.flat[len(found) :]:
            axes.set_visible(False)
        add_legend(figure, entries)
    return figure


def head(axes: Axes, name: str, note: str) -> None:
    """A panel's title, and the note below it."""
    axes.set_title(name, pad=18)
    axes.annotate(note, (0, 1), (0, 6), "axes fraction", "offset points", fontsize=8)


def in_order(found: Sequence[Panel[C]]) -> list[tuple[str, Style]]:
    """The labels and styles of a figure, in the order in which samplers are listed."""
    every = {curve.label: curve.style for panel in found for curve in panel.curves}
    return sorted(every.items(), key=lambda each: (sampler_sort_key(each[0].split()[0]), each[0]))


def legend_columns(entries: Sequence[tuple[str, Style]], width: float) -> int:
    """How many entries of a legend stand side by side, in rows of like length. width: in inches."""
    lines = (len(line) for label, _ in entries for line in folded(label).splitlines())
    most = max(1, int(width / (0.5 + 0.07 * max(lines, default=1))))
    return ceil(len(entries) / ceil(len(entries) / most)) if entries else 1


def folded(label: str) -> str:
    """A label in lines that a legend can hold."""
    return textwrap.fill(label, 28)


def add_legend(figure: Figure, entries: Sequence[tuple[str, Style]]) -> None:
    """One legend above all panels."""
    figure.legend(
        [
            Line2D([], [], color=m.colour, linestyle=m.line, marker=m.marker, markersize=3.5)
            for _, m in entries
        ],
        [folded(label) for label, _ in entries],
        loc="outside upper left",
        ncols=legend_columns(entries, figure.get_figwidth()),
        handlelength=1.6,
    )


def span(values: Iterable[int]) -> str:
    """A number, or the range of several: `12 to 16`."""
    ordered = sorted(values)
    low, high = ordered[0], ordered[-1]
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def save(figure: Figure, folder: Path, name: str, title: str, caption: str) -> Drawing:
    """Write a figure as PNG, SVG and PDF: the same runs give the same files."""
    with rc_context(fname=STYLE_FILE):
        figure.savefig(folder / f"{name}.png", facecolor="white")
        figure.savefig(folder / f"{name}.svg", transparent=True, metadata={"Date": None})
        figure.savefig(folder / f"{name}.pdf", metadata={"CreationDate": None})
    return Drawing(name, title, caption, folder / f"{name}.svg")
