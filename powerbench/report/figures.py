"""The paper's figures from runs: pass@k curves (Fig. 5), log-likelihood and confidence (Fig. 4)."""

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from math import ceil
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from matplotlib import rc_context, rc_params_from_file
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator, PercentFormatter, ScalarFormatter

from powerbench.report.summary import (
    SAMPLERS,
    Results,
    confidence,
    labels,
    logp_per_token,
    sampler_rank,
)
from powerbench.types import Sample

STYLE = Path(__file__).with_name("figures.mplstyle")
INK = str(rc_params_from_file(STYLE, use_default_template=False)["text.color"])
"""The one colour of text and axes; the page replaces it by its own, light or dark."""
OKABE_ITO = (INK, "#0072b2", "#e69f00", "#d55e00", "#cc79a7", "#009e73", "#56b4e9")
"""Okabe and Ito 2008; ink for black, and without the yellow that vanishes on white."""
LINES: tuple[Literal["-", "--", ":", "-."], ...] = ("-", "--", ":", "-.")
MARKERS = "osD^vPX"


class Drawing(NamedTuple):
    """A figure on disk, as `<name>.png` and `<name>.svg`."""

    name: str
    title: str
    caption: str
    svg: Path


class Mark(NamedTuple):
    """How one sampler is drawn, in every panel."""

    colour: str
    line: Literal["-", "--", ":", "-."]
    marker: str


class Curve(NamedTuple):
    """One run in one panel."""

    results: Results
    label: str
    mark: Mark


class Panel(NamedTuple):
    """One of the small multiples: a task under a model."""

    title: str
    curves: list[Curve]


def draw(results: Sequence[Results], folder: Path) -> list[Drawing]:
    """Draw what the runs allow into `folder`: figures without data are left out.

    results: in the order in which samplers are to be listed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    curves = [r for r in results if r.summary.pass_at_k and r.summary.pass_at_k[-1].k > 1]
    filled = [r for r in results if any(s.tokens for s in r.samples.values())]
    drawings = []
    if curves:
        caption = (
            "Chance that at least one of k responses is right, mean over problems (unbiased "
            "estimate), with 95% bootstrap bands over problems."
        )
        figure = _figure(_panels(curves), _pass_at_k, "k (responses per problem)", "pass@k")
        drawings.append(_save(figure, folder, "pass_at_k", "pass@k", caption))
    if filled:
        for name, title, of, caption in (
            (
                "log_likelihood",
                "Log-likelihood",
                logp_per_token,
                "Length-averaged log-likelihood of the responses under the base model.",
            ),
            (
                "confidence",
                "Confidence",
                confidence,
                "Minus the entropy of the next-token distribution, averaged over positions.",
            ),
        ):
            units = "log p per token (nats)" if of is logp_per_token else "−entropy (nats / token)"
            figure = _figure(_panels(filled), _histogram(of), units, "share of responses")
            marked = f"{caption} Vertical lines: means over responses."
            drawings.append(_save(figure, folder, name, title, marked))
    return drawings


def _panels(results: Sequence[Results]) -> list[Panel]:
    names = labels([r.summary for r in results])
    marks = _marks(zip(names, (r.summary.sampler for r in results), strict=True))
    curves = [Curve(r, name, marks[name]) for r, name in zip(results, names, strict=True)]
    by_panel = groupby(curves, lambda c: f"{c.results.summary.task} · {c.results.summary.model}")
    return [Panel(title, list(of_panel)) for title, of_panel in by_panel]


def _marks(runs: Iterable[tuple[str, str]]) -> dict[str, Mark]:
    """A mark for each (label, sampler): the known samplers keep their colour in every report."""
    marks: dict[str, Mark] = {}
    for label, sampler in sorted(set(runs), key=lambda run: (sampler_rank(run[1]), run[0])):
        home = SAMPLERS.index(sampler) if sampler in SAMPLERS else len(SAMPLERS)
        turns = ((home + i) % len(OKABE_ITO) for i in range(len(OKABE_ITO)))
        used = [mark.colour for mark in marks.values()]
        colour = min((OKABE_ITO[turn] for turn in turns), key=used.count)
        line = LINES[used.count(colour) % len(LINES)]
        marks[label] = Mark(colour, line, MARKERS[len(marks) % len(MARKERS)])
    return marks


def _figure(
    panels: Sequence[Panel], plot: Callable[[Axes, Panel], None], x: str, y: str
) -> Figure:
    """Small multiples with one legend: `plot` fills each."""
    columns = min(3, len(panels))
    rows = ceil(len(panels) / columns)
    with rc_context(fname=STYLE):
        figure = Figure(figsize=(3.3 * columns + 0.3, 2.5 * rows + 0.5), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
        for axes, panel in zip(grid.flat, panels, strict=False):
            plot(axes, panel)
            axes.set_title(panel.title)
            axes.set_xlabel(x)
        for axes in grid[:, 0]:
            axes.set_ylabel(y)
        for axes in grid.flat[len(panels) :]:
            axes.set_visible(False)
        marks = {c.label: c.mark for panel in panels for c in panel.curves}
        figure.legend(
            [Line2D([], [], color=m.colour, linestyle=m.line) for m in marks.values()],
            list(marks),
            loc="outside upper left",
            ncols=min(len(marks), 2 * columns),
            handlelength=1.6,
        )
    return figure


def _pass_at_k(axes: Axes, panel: Panel) -> None:
    for curve in panel.curves:
        points, mark = curve.results.summary.pass_at_k, curve.mark
        ks = [p.k for p in points]
        low, high = zip(*(p.interval for p in points), strict=True)
        axes.fill_between(ks, low, high, color=mark.colour, alpha=0.13, linewidth=0)
        axes.plot(
            ks,
            [p.mean for p in points],
            color=mark.colour,
            linestyle=mark.line,
            marker=mark.marker,
            markersize=3.5,
        )
    ticks = sorted({p.k for curve in panel.curves for p in curve.results.summary.pass_at_k})
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.set_ylim(0, 1.02)
    _note(axes, "n = {} problems", {c.results.summary.problems for c in panel.curves})


def _histogram(of: Callable[[Iterable[Sample]], list[float]]) -> Callable[[Axes, Panel], None]:
    def plot(axes: Axes, panel: Panel) -> None:
        values = [of(c.results.samples.values()) for c in panel.curves]
        together = np.concatenate(values)
        edges = np.histogram_bin_edges(together, bins=int(np.clip(len(together) ** 0.5, 8, 40)))
        for curve, sample in zip(panel.curves, values, strict=True):
            mark, weights = curve.mark, np.full(len(sample), 1 / len(sample))
            axes.hist(
                sample, edges.tolist(), weights=weights, color=mark.colour, alpha=0.16, linewidth=0
            )
            axes.hist(
                sample,
                edges.tolist(),
                weights=weights,
                histtype="step",
                color=mark.colour,
                linestyle=mark.line,
                linewidth=1.2,
            )
            axes.axvline(float(np.mean(sample)), color=mark.colour, linestyle=mark.line, lw=0.8)
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        _note(axes, "n = {} responses each", {len(sample) for sample in values})

    return plot


def _note(axes: Axes, text: str, n: set[int]) -> None:
    span = f"{min(n):,}" if len(n) == 1 else f"{min(n):,} to {max(n):,}"
    axes.text(
        0.02, 0.98, text.format(span), transform=axes.transAxes, va="top", fontsize=8, alpha=0.65
    )


def _save(figure: Figure, folder: Path, name: str, title: str, caption: str) -> Drawing:
    with rc_context(fname=STYLE):
        figure.savefig(folder / f"{name}.png", facecolor="white")
        figure.savefig(folder / f"{name}.svg", transparent=True, metadata={"Date": None})
    return Drawing(name, title, caption, folder / f"{name}.svg")
