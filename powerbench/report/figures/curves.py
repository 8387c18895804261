"""Accuracy against its cost, and by task (the paper's first figure)."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator

from powerbench.report.chosen import best_of_n, is_plain
from powerbench.report.figures.dots import SMALL, Dots, whiskers
from powerbench.report.figures.style import (
    Curve,
    Drawing,
    Panel,
    assign_styles,
    curves,
    multiples,
    panels,
    save,
    span,
)
from powerbench.report.labels import main_runs
from powerbench.report.series import Series, series
from powerbench.report.summary import Results, Summary
from powerbench.report.tables.published import judge, published
from powerbench.stats.intervals import Estimate

# -- by task --------------------------------------------------------------------------------------

TEASER = (
    "teaser",
    "Samplers by task",
    "Value (accuracy, or preference over the baseline) of each sampler, with 95% intervals over problems. Open "
    "diamonds: the paper’s numbers, where it has them.",
)


FIGURE_1 = (
    "figure_1",
    "Base, power sampling, GRPO",
    "The paper’s Figure 1: value of the base model, of power sampling from it, and of its checkpoint trained "
    "with GRPO, with 95% intervals over problems. Open diamonds: the paper’s numbers.",
)


def draw_bars(results: Sequence[Results], folder: Path) -> list[Drawing]:
    """A panel for each model, a group of bars for each task; and Figure 1, where a trained checkpoint is."""
    shown = [c for c in curves(main_runs(results)) if _value(c.summary) is not None]
    if not shown:
        return []
    models = dict.fromkeys(c.summary.model for c in shown)
    by_model = [Panel(model, [c for c in shown if c.summary.model == model]) for model in models]
    return [
        _drawn(found, folder, named)
        for found, named in ((by_model, TEASER), (_with_grpo(shown), FIGURE_1))
        if found
    ]


def _drawn(found: Sequence[Panel[Curve]], folder: Path, named: tuple[str, str, str]) -> Drawing:
    groups = max(len({c.summary.task for c in panel.curves}) for panel in found)
    figure = multiples(found, _bars, "", "value", width=max(3.3, 1.5 * groups))
    return save(figure, folder, *named)


def _with_grpo(shown: Sequence[Curve]) -> list[Panel[Curve]]:
    """Of each model: base and power sampling from it, and base sampling from its trained checkpoint."""
    names = ("base", "power", "GRPO")
    styles = assign_styles(zip(names, ("base", "power", "grpo"), strict=True))
    found = []
    for model, each in published().models.items():
        trained = [c for c in shown if (c.summary.model, c.summary.sampler) == (each.grpo, "base")]
        own = [c for c in shown if c.summary.model == model and c.summary.sampler in names]
        tasks = {c.summary.task for c in trained} & {c.summary.task for c in own}
        labelled = [
            *((c, c.summary.sampler) for c in own),
            *((c, "GRPO") for c in trained),
        ]
        bars = [Curve(c.results, n, styles[n]) for c, n in labelled if c.summary.task in tasks]
        if bars:
            found.append(Panel(model, bars))
    return found


WIDEST = 0.25
"""Of a bar, where the tasks are 1 apart."""


def _bars(axes: Axes, shown: Sequence[Curve]) -> str:
    tasks = list(dict.fromkeys(c.summary.task for c in shown))
    samplers = list(dict.fromkeys(c.label for c in shown))
    width = min(0.8 / len(samplers), WIDEST)
    for c in shown:
        s, value = c.summary, _value(c.summary)
        assert value is not None
        x = tasks.index(s.task) + (samplers.index(c.label) - (len(samplers) - 1) / 2) * width
        axes.bar(x, value.mean, 0.9 * width, color=c.style.colour, alpha=0.75, linewidth=0)
        whiskers(axes, [x], [value], c.style, marker="none")
        judged = judge(s)
        if judged is not None:
            axes.plot(
                x, judged.published, marker="D", mfc="none", mec=c.style.colour, ms=5, ls="none"
            )
    axes.set_xticks(range(len(tasks)), tasks, fontsize=8)
    axes.set_xlim(-0.6, len(tasks) - 0.4)
    axes.set_ylim(0, 1.02)
    return f"n = {span(value.n for c in shown if (value := _value(c.summary)))} problems"


# -- against cost ---------------------------------------------------------------------------------


class Currency(NamedTuple):
    """What a cost is counted in."""

    figure: str
    """The name of its figures."""
    name: str
    """In their titles."""
    unit: str
    of: Callable[[Summary], float | None]
    """The cost of a whole run; None if it is not known."""


FLOPS = Currency("compute", "compute", "FLOPs", lambda s: s.flops)
TOKENS = Currency("compute", "compute", "tokens decoded", lambda s: s.decoded)
PASSES = Currency("passes", "decoding passes", "decoding passes", lambda s: s.passes)

VALUES = (
    "Value against {unit} a problem, rejected proposals{more} included. Lines with small dots: "
    "the likeliest as a whole of n responses of a plain sampler (exact over all subsets), from n = 1, of the "
    "problems that have n; lines with large dots: a chain at several numbers of steps. 95% intervals over "
    "problems."
)
LIKELIHOODS = (
    "Log-likelihood per token under the base model, mean over responses, against {unit} a problem. 95% "
    "intervals over problems."
)


def draw_costs(results: Sequence[Results], folder: Path) -> list[Drawing]:
    """Each sampler as a curve or a point: in FLOPs, or in tokens where these are not known, then in passes."""
    shown = [c for c in curves(main_runs(results)) if c.summary.decoded]
    if not shown:
        return []
    compute = FLOPS if all(c.summary.flops for c in shown) else TOKENS
    by_steps = [s for s in series(results) if s.setting == "steps"]
    drawings = []
    for each in (compute, PASSES):
        known = [c for c in shown if each.of(c.summary) is not None]
        drawings += _draw(known, by_steps, each, folder)
    return drawings


def _draw(
    shown: Sequence[Curve], by_steps: Sequence[Series], currency: Currency, folder: Path
) -> list[Drawing]:
    name, unit, axis = currency.name, currency.unit, f"{currency.unit} a problem"
    drawings = []
    valued = [c for c in shown if c.summary.value is not None]
    if valued:
        found = _with_something_beside(
            Panel(panel.title, [_values(c, by_steps, currency) for c in panel.curves])
            for panel in panels(valued)
        )
        figure, more = multiples(found, _compute, axis, "value"), " and prefills"
        caption = VALUES.format(unit=unit, more=more if currency is FLOPS else "")
        drawings.append(save(figure, folder, currency.figure, f"Value against {name}", caption))
    likely = [c for c in shown if c.summary.logp is not None]
    if likely:
        found = _with_something_beside(
            Panel(panel.title, [_likelihoods(c, by_steps, currency) for c in panel.curves])
            for panel in panels(likely)
        )
        figure = multiples(found, _likelihood, axis, "log p (nats / token)")
        title, caption = f"Log-likelihood against {name}", LIKELIHOODS.format(unit=unit)
        drawings.append(save(figure, folder, f"{currency.figure}_likelihood", title, caption))
    return drawings


def _with_something_beside(panels: Iterable[Panel[Dots]]) -> list[Panel[Dots]]:
    """Those with more than a single point, which has nothing to be compared with; all, where there are none."""
    found = list(panels)
    return [p for p in found if sum(len(dots.x) for dots in p.curves) > 1] or found


def _values(c: Curve, by_steps: Sequence[Series], currency: Currency) -> Dots:
    """A run and what follows from it: best-of-n of a plain sampler, a chain at several numbers of steps."""
    runs = [s for s in _at_several_steps(c, by_steps) if s.value and _cost(s, currency)]
    best = best_of_n(c.results)
    if len(runs) == 1 and is_plain(c.results) and best.means_something:
        each, found = _cost(c.summary, currency), best.curve()
        style = c.style._replace(marker=SMALL)
        return Dots(c.label, style, [b.n * each for b in found], [b.value for b in found])
    return Dots(
        c.label, c.style, [_cost(s, currency) for s in runs], [s.value for s in runs if s.value]
    )


def _likelihoods(c: Curve, by_steps: Sequence[Series], currency: Currency) -> Dots:
    runs = [s for s in _at_several_steps(c, by_steps) if s.logp_interval and _cost(s, currency)]
    x = [_cost(s, currency) for s in runs]
    return Dots(c.label, c.style, x, [s.logp_interval for s in runs if s.logp_interval])


def _at_several_steps(c: Curve, by_steps: Sequence[Series]) -> list[Summary]:
    """A run, or all of the series of steps that it is of."""
    s = c.summary
    own = [x for x in by_steps if (x.task, x.model, x.sampler) == (s.task, s.model, s.sampler)]
    for found in own:
        if any(p.results is c.results for p in found.points):
            return [p.results.summary for p in found.points]
    return [s]


def _cost(summary: Summary, currency: Currency) -> float:
    """Of a response, mean; 0 if it is not known."""
    return (currency.of(summary) or 0) / max(1, summary.responses)


def _compute(axes: Axes, shown: Sequence[Dots]) -> str:
    _against_cost(axes, shown)
    axes.set_ylim(0, 1.02)
    return f"n = {span(y.n for dots in shown for y in dots.y)} problems"


def _likelihood(axes: Axes, shown: Sequence[Dots]) -> str:
    _against_cost(axes, shown)
    return f"n = {span(y.n for dots in shown for y in dots.y)} problems"


def _against_cost(axes: Axes, shown: Sequence[Dots]) -> None:
    for dots in shown:
        x, mean = dots.x, [y.mean for y in dots.y]
        if dots.style.marker == SMALL:
            low, high = zip(*(y.interval for y in dots.y), strict=True)
            axes.fill_between(x, low, high, color=dots.style.colour, alpha=0.10, linewidth=0)
            axes.plot(
                x, mean, color=dots.style.colour, ls=dots.style.line, lw=1, marker=SMALL, ms=3
            )
            continue
        axes.plot(x, mean, color=dots.style.colour, ls=dots.style.line)
        whiskers(axes, x, dots.y, dots.style)
    axes.set_xscale("log")
    places = [x for dots in shown for x in dots.x]
    left, right = min(places), max(places)
    if right < 3 * left:  # a point or two: room for numbers on both sides
        left, right = left / 2, right * 2
        axes.set_xlim(left, right)
    if right < 30 * left:  # too short for a power of ten or two
        ticks = _round(left, right, (1, 2, 5))
        if len(ticks) < 3:
            ticks = _round(left, right, (1, 1.5, 2, 3, 4, 5, 7))
        axes.xaxis.set_major_locator(FixedLocator(ticks))
        axes.set_xticklabels([_short(tick) for tick in ticks])
        axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())


def _short(x: float) -> str:
    return f"{x:.1e}".replace(".0e", "e").replace("e+", "e") if x >= 1e5 else f"{x:g}"


def _round(low: float, high: float, digits: Sequence[float]) -> list[float]:
    """Numbers between two others that begin with these digits."""
    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    candidates = [m * 10.0**d for d in decades for m in digits]
    return [c for c in candidates if low <= c <= high]


def _value(summary: Summary) -> Estimate | None:
    """The value as in the paper's table: AlpacaEval's is the length-controlled win rate."""
    return summary.length_controlled or summary.value
