"""How chains go: acceptance by block and by restart position, and the climb of the log-likelihood."""

from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from powerbench.report.chains import TENTHS, Rate
from powerbench.report.figures.style import (
    STYLE_FILE,
    Curve,
    Drawing,
    Panel,
    Style,
    add_legend,
    curves,
    head,
    in_order,
    panels,
    save,
    span,
)
from powerbench.report.labels import main_runs
from powerbench.report.summary import Results
from powerbench.stats.intervals import Interval

CAPTION = (
    "chains",
    "Chains",
    "Left: accepted steps among those that decoded a proposal, by block. Middle: the same, by where the "
    "proposal restarts, as a share of the horizon. Right: log-likelihood gained since a block’s first state, "
    "by step. 95% intervals over problems.",
)
HEIGHT, WIDTH = 2.5, 9.9
"""Of a row, inches."""


def draw(results: Sequence[Results], folder: Path) -> list[Drawing]:
    """A row for each task and model that has chains."""
    shown = [c for c in curves(main_runs(results)) if c.results.chains is not None]
    if not shown:
        return []
    found = panels(shown)
    with rc_context(fname=STYLE_FILE):
        figure = Figure(figsize=(WIDTH, HEIGHT * len(found) + 0.5), layout="constrained")
        grid = figure.subplots(len(found), 3, squeeze=False)
        for row, panel in zip(grid, found, strict=True):
            _row(row, panel)
        add_legend(figure, in_order(found))
    return [save(figure, folder, *CAPTION)]


def _row(row: Sequence[Axes], panel: Panel[Curve]) -> None:
    of = [(c.style, c.results.chains) for c in panel.curves if c.results.chains is not None]
    notes = (
        f"{span(sum(r.proposals for r in each.by_block) for _, each in of)} proposals",
        "by restart position",
        "by step",
    )
    for axes, note in zip(row, notes, strict=True):
        head(axes, panel.title if axes is row[0] else "", note)
    for style, each in of:
        _rates(row[0], style, each.by_block, lambda place: place + 1.0)
        _rates(row[1], style, each.by_position, lambda place: (place + 0.5) / TENTHS)
        steps = [float(n) for n in range(len(each.rise))]
        means, intervals = [e.mean for e in each.rise], [e.interval for e in each.rise]
        _line(row[2], style, steps, means, intervals)
    row[0].set_xticks(sorted({r.place + 1 for _, each in of for r in each.by_block}))
    row[0].set_xlabel("block")
    row[1].set_xlabel("restart (share of the horizon)")
    row[1].set_xlim(0, 1)
    for axes in row[:2]:
        axes.set_ylim(0, 1.02)
    row[0].set_ylabel("acceptance")
    row[2].set_xlabel("step")
    row[2].set_ylabel("log p gained (nats)")


def _rates(axes: Axes, style: Style, rates: Sequence[Rate], x: Callable[[int], float]) -> None:
    places = [x(rate.place) for rate in rates]
    _line(axes, style, places, [r.accepted for r in rates], [r.interval for r in rates])


def _line(
    axes: Axes, style: Style, x: Sequence[float], y: Sequence[float], of: Sequence[Interval]
) -> None:
    low, high = zip(*of, strict=True) if of else ((), ())
    axes.fill_between(x, low, high, color=style.colour, alpha=0.13, linewidth=0)
    axes.plot(x, y, color=style.colour, ls=style.line, marker=style.marker)
