"""The paper's figures from runs: pass@k curves (Fig. 5), log-likelihood and confidence (Fig. 4)."""

from collections.abc import Callable, Iterable, Sequence
from itertools import cycle, groupby
from math import ceil
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from matplotlib import rc_context, rc_params_from_file
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator, PercentFormatter, ScalarFormatter

from powerbench.report.measured import Measured, confidence, logp_per_token
from powerbench.report.summary import SAMPLERS, Results, labels, sampler_rank

STYLE = Path(__file__).with_name("figures.mplstyle")
INK = str(rc_params_from_file(STYLE, use_default_template=False)["text.color"])
"""The one colour of text and axes; the page replaces it by its own, light or dark."""
OKABE_ITO = (INK, "#0072b2", "#e69f00", "#d55e00", "#cc79a7", "#009e73", "#56b4e9")
"""Okabe and Ito 2008; ink for black, and without the yellow that vanishes on white."""
Line = Literal["-", "--", ":", "-."]
LINES: tuple[Line, ...] = ("-", "--", ":", "-.")
MARKERS = "osD^vPX"
SHARE = "share of responses"

PASS_AT_K = (
    "pass_at_k",
    "pass@k",
    "Chance that at least one of k responses is right: unbiased estimate, mean over problems, with "
    "95% bootstrap bands over problems. Problems without a full set of decided responses are left "
    "out.",
)
LOG_LIKELIHOOD = (
    "log_likelihood",
    "Log-likelihood",
    "Length-averaged log-likelihood of the responses under the base model. Vertical lines: means.",
)
CONFIDENCE = (
    "confidence",
    "Confidence",
    "Minus the entropy of the base model’s next-token distribution, averaged over each response’s "
    "positions. Vertical lines: means.",
)


class Drawing(NamedTuple):
    """A figure on disk, as `<name>.png` and `<name>.svg`."""

    name: str
    title: str
    caption: str
    svg: Path


class Mark(NamedTuple):
    """How one sampler is drawn, in every panel."""

    colour: str
    line: Line
    marker: str


class Curve(NamedTuple):
    """One run in one panel."""

    results: Results
    label: str
    mark: Mark


def draw(results: Sequence[Results], folder: Path) -> list[Drawing]:
    """Draw what the runs allow into `folder`: figures without data are left out.

    results: in the order in which samplers are to be listed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    curves = _curves(results)
    several = [c for c in curves if len(c.results.summary.pass_at_k) > 1]
    filled = [c for c in curves if any(s.tokens for s in c.results.samples.values())]
    drawings = []
    if several:
        figure = _figure(several, _pass_at_k, "k (responses per problem)", "pass@k")
        drawings.append(_save(figure, folder, *PASS_AT_K))
    if filled:
        figure = _figure(filled, _histogram(logp_per_token), "log p (nats / token)", SHARE)
        drawings.append(_save(figure, folder, *LOG_LIKELIHOOD))
        figure = _figure(filled, _histogram(confidence), "−entropy (nats / token)", SHARE)
        drawings.append(_save(figure, folder, *CONFIDENCE))
    return drawings


def _curves(results: Sequence[Results]) -> list[Curve]:
    summaries = [r.summary for r in results]
    names = labels(summaries)
    marks = _marks(zip(names, (s.sampler for s in summaries), strict=True))
    return [Curve(r, name, marks[name]) for r, name in zip(results, names, strict=True)]


def _marks(runs: Iterable[tuple[str, str]]) -> dict[str, Mark]:
    """A mark for each (label, sampler): a known sampler has the same colour in every report."""
    ordered = sorted(set(runs), key=lambda run: (sampler_rank(run[1]), run[0]))
    first = {sampler: label for label, sampler in reversed(ordered)}
    own = {
        first[sampler]: (colour, LINES[0])
        for sampler, colour in zip(SAMPLERS, OKABE_ITO, strict=False)
        if sampler in first
    }
    spare = cycle([look for look in _looks() if look not in own.values()])
    looks = {label: own[label] if label in own else next(spare) for label, _ in ordered}
    shapes = zip(looks.items(), cycle(MARKERS), strict=False)
    return {label: Mark(*look, marker) for (label, look), marker in shapes}


def _looks() -> list[tuple[str, Line]]:
    return [(colour, line) for line in LINES for colour in OKABE_ITO]


def _figure(
    curves: Sequence[Curve], plot: Callable[[Axes, Sequence[Curve]], str], x: str, y: str
) -> Figure:
    """Small multiples, one for each task and model, with one legend.

    plot: fills a panel, and says how many it shows.
    """
    panels = [list(panel) for _, panel in groupby(curves, _panel)]
    columns = 2 if len(panels) == 4 else min(3, len(panels))
    rows = ceil(len(panels) / columns)
    with rc_context(fname=STYLE):
        figure = Figure(figsize=(3.3 * columns + 0.3, 2.5 * rows + 0.5), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
        for axes, panel in zip(grid.flat, panels, strict=False):
            note = plot(axes, panel)
            axes.set_title(_panel(panel[0]), pad=18)
            axes.annotate(note, (0, 1), (0, 6), "axes fraction", "offset points", fontsize=8)
            axes.set_xlabel(x)
        for axes in grid[:, 0]:
            axes.set_ylabel(y)
        for axes in grid.flat[len(panels) :]:
            axes.set_visible(False)
        _legend(figure, curves, 2 * columns)
    return figure


def _panel(curve: Curve) -> str:
    return f"{curve.results.summary.task} · {curve.results.summary.model}"


def _legend(figure: Figure, curves: Sequence[Curve], widest: int) -> None:
    ordered = sorted(curves, key=lambda c: (sampler_rank(c.results.summary.sampler), c.label))
    marks = {c.label: c.mark for c in ordered}
    figure.legend(
        [Line2D([], [], color=m.colour, linestyle=m.line) for m in marks.values()],
        list(marks),
        loc="outside upper left",
        ncols=ceil(len(marks) / ceil(len(marks) / widest)),
        handlelength=1.6,
    )


def _pass_at_k(axes: Axes, curves: Sequence[Curve]) -> str:
    for curve in curves:
        points, mark = curve.results.summary.pass_at_k, curve.mark
        ks = [p.k for p in points]
        low, high = zip(*(p.interval for p in points), strict=True)
        axes.fill_between(ks, low, high, color=mark.colour, alpha=0.13, linewidth=0)
        axes.plot(ks, [p.mean for p in points], color=mark.colour, ls=mark.line, marker=mark.marker)
    ticks = sorted({p.k for curve in curves for p in curve.results.summary.pass_at_k})
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.set_ylim(0, 1.02)
    return f"n = {_span(c.results.summary.pass_at_k_problems for c in curves)} problems"


def _histogram(
    of: Callable[[Iterable[Measured]], list[float]],
) -> Callable[[Axes, Sequence[Curve]], str]:
    def plot(axes: Axes, curves: Sequence[Curve]) -> str:
        values = [of(c.results.samples.values()) for c in curves]
        together = np.concatenate(values)
        bins = int(np.clip(2 * len(together) ** 0.5, 12, 60))
        edges = np.linspace(*_range(together), bins + 1)
        for curve, sample in zip(curves, values, strict=True):
            mark, shares = curve.mark, np.histogram(sample, edges)[0] / len(sample)
            axes.stairs(shares, edges, fill=True, color=mark.colour, alpha=0.16, linewidth=0)
            axes.stairs(shares, edges, color=mark.colour, linestyle=mark.line, linewidth=1.2)
            axes.axvline(float(np.mean(sample)), color=mark.colour, linestyle=mark.line, lw=0.8)
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        return f"n = {_span(map(len, values))} responses per sampler"

    return plot


def _range(values: np.ndarray) -> tuple[float, float]:
    """From the least to the greatest value; wider where all are the same but for rounding."""
    low, high = float(values.min()), float(values.max())
    return (low, high) if high - low > 1e-9 * max(1.0, abs(high)) else (low - 0.5, high + 0.5)


def _span(values: Iterable[int]) -> str:
    ordered = sorted(values)
    low, high = ordered[0], ordered[-1]
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _save(figure: Figure, folder: Path, name: str, title: str, caption: str) -> Drawing:
    with rc_context(fname=STYLE):
        figure.savefig(folder / f"{name}.png", facecolor="white")
        figure.savefig(folder / f"{name}.svg", transparent=True, metadata={"Date": None})
    return Drawing(name, title, caption, folder / f"{name}.svg")
