"""Accuracy against a setting (Figure 6): by sampler, by model, and as a gain over the setting's zero."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from powerbench.report.figures.dots import Dots, whiskers
from powerbench.report.figures.style import (
    Curve,
    Drawing,
    Panel,
    Style,
    assign_styles,
    curves,
    multiples,
    save,
    span,
)
from powerbench.report.labels import main_runs
from powerbench.report.series import Series, series
from powerbench.report.slopes import by_problem
from powerbench.report.summary import Results, Summary
from powerbench.report.tables.paired import values
from powerbench.stats.intervals import Estimate, Interval
from powerbench.stats.paired import paired_difference
from powerbench.stats.slopes import slopes

NAMES = {"alpha": "α", "steps": "Metropolis–Hastings steps a block"}
"""The axis labels of settings that are not their names."""

STROKE = 1.12
"""How far a stroke reaches: from a place divided by this to it multiplied by it."""


def draw(results: Sequence[Results], folder: Path) -> list[Drawing]:
    """A figure for each setting that has at least three values; power sampling's by model, where there are
    several (Figure 6, left), and its gain by steps (Figure 6, right)."""
    every = [s for s in series(results) if all(p.results.summary.value for p in s.points)]
    power = [s for s in every if s.sampler == "power"]
    return [
        *_by_sampler(results, every, folder),
        *_by_model([s for s in power if s.setting == "alpha"], folder),
        *_gain([s for s in power if s.setting == "steps"], folder),
    ]


# -- by sampler -----------------------------------------------------------------------------------


def _by_sampler(results: Sequence[Results], every: Sequence[Series], folder: Path) -> list[Drawing]:
    drawings = []
    for setting in dict.fromkeys(s.setting for s in every):
        found = [s for s in every if s.setting == setting]
        where = dict.fromkeys((s.task, s.model) for s in found)
        across = [c for c in curves(main_runs(results)) if _is_across(c.summary, found)]
        styles = _styles([*found, *across])
        figure_panels = [
            Panel(
                f"{task} · {model}",
                [
                    _dots(s, s.sampler, styles[s.sampler])
                    for s in found
                    if (s.task, s.model) == (task, model)
                ]
                + [
                    Dots(c.label, styles[c.label], [], [c.summary.value])
                    for c in across
                    if (c.summary.task, c.summary.model) == (task, model) and c.summary.value
                ],
            )
            for task, model in where
        ]
        figure = multiples(figure_panels, _against, NAMES.get(setting, setting), "value")
        name = NAMES.get(setting, setting)
        strokes = any(s is not None for p in figure_panels for d in p.curves for s in d.slopes)
        caption = (
            f"Value against {name} with 95% intervals over problems; all other settings as in the sampler’s "
            "main run. Dashed: samplers that do not depend on it."
            + (" Strokes: the slope that a point’s own responses imply, dP/dα." if strokes else "")
            + (" The paper’s panel has power sampling alone." if setting == "alpha" else "")
        )
        drawings.append(save(figure, folder, f"against_{setting}", f"Against {name}", caption))
    return drawings


def _is_across(summary: Summary, found: Sequence[Series]) -> bool:
    """Whether a main run stands beside a series, and its sampler has none of its own there."""
    there = [s for s in found if (s.task, s.model) == (summary.task, summary.model)]
    plain = summary.value is not None and found[0].setting not in summary.settings
    return plain and bool(there)


def _styles(of: Iterable[Series | Curve]) -> dict[str, Style]:
    names = (
        (x.sampler, x.sampler) if isinstance(x, Series) else (x.label, x.summary.sampler)
        for x in of
    )
    return assign_styles(names)


def _dots(found: Series, label: str, style: Style) -> Dots:
    points = [(p.x, p.results.summary.value, _slope(found, p.results)) for p in found.points]
    shown = [(x, value, slope) for x, value, slope in points if value is not None]
    x, y, strokes = zip(*shown, strict=True)
    return Dots(label, style, x, y, strokes)


def _slope(found: Series, results: Results) -> float | None:
    """dP/dalpha at a point of a curve against alpha, if its run tells."""
    of = slopes(by_problem(results)) if found.setting == "alpha" else None
    return of.slope.mean if of else None


def _against(axes: Axes, shown: Sequence[Dots]) -> str:
    for dots in shown:
        if not dots.x:
            axes.axhline(dots.y[0].mean, color=dots.style.colour, linestyle="--", lw=1)
            continue
        axes.plot(dots.x, [y.mean for y in dots.y], color=dots.style.colour, ls=dots.style.line)
        whiskers(axes, dots.x, dots.y, dots.style)
        for x, y, slope in zip(dots.x, dots.y, dots.slopes, strict=False):
            if slope is not None:
                ends = np.array([x / STROKE, x, x * STROKE])
                heights = y.mean + slope * (ends - x)
                axes.plot(ends, heights, color=dots.style.colour, lw=2.4, alpha=0.45, marker="none")
    _ticks(axes, {x for dots in shown for x in dots.x})
    axes.set_ylim(0, 1.02)
    return f"n = {span(y.n for dots in shown for y in dots.y)} problems"


def _ticks(axes: Axes, at: Iterable[float]) -> None:
    places = sorted(at)
    if places[0] > 0 and places[-1] >= 8 * places[0]:
        axes.set_xscale("log", base=2)
        axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(places, [f"{x:g}" for x in places])


# -- by model: the paper's own panels ----------------------------------------------------------------


def _by_model(found: Sequence[Series], folder: Path) -> list[Drawing]:
    """Figure 6, left: a curve for each model, for tasks that several models have."""
    tasks = dict.fromkeys(s.task for s in found)
    several = [t for t in tasks if len({s.model for s in found if s.task == t}) > 1]
    if not several:
        return []
    styles = assign_styles((s.model, s.model) for s in found)
    shown = [
        Panel(task, [_dots(s, s.model, styles[s.model]) for s in found if s.task == task])
        for task in several
    ]
    figure = multiples(shown, _against, NAMES["alpha"], "value")
    caption = (
        "Figure 6, left: value of power sampling against α, model by model, with 95% intervals over problems. "
        "Strokes: the slope that a point’s own responses imply, dP/dα."
    )
    return [save(figure, folder, "against_alpha_models", "Power sampling against α", caption)]


def _gain(found: Sequence[Series], folder: Path) -> list[Drawing]:
    """Figure 6, right: what steps add to none, paired by problem, for tasks whose series begin at 0."""
    whole = [s for s in found if s.points[0].x == 0]
    if not whole:
        return []
    styles = assign_styles((s.model, s.model) for s in whole)
    panels = [
        Panel(task, [_gains(s, styles[s.model]) for s in whole if s.task == task])
        for task in dict.fromkeys(s.task for s in whole)
    ]
    figure = multiples(panels, _gained, NAMES["steps"], "value gained over 0 steps")
    caption = (
        "Figure 6, right: what power sampling gains over its first drafts (0 steps), paired by problem, with "
        "95% intervals over problems. The paper has it for Qwen2.5-Math-7B and Qwen2.5-7B on MATH500: 3 to 4 "
        "points by two steps, no more than that again up to ten."
    )
    return [save(figure, folder, "gain_steps", "Gain by steps", caption)]


def _gains(found: Series, style: Style) -> Dots:
    none, x, y = values(found.points[0].results), [0.0], list[Estimate]()
    y.append(Estimate(0.0, Interval(0.0, 0.0), len(none)))
    for point in found.points[1:]:
        difference = paired_difference(none, values(point.results))
        if difference is not None:
            x.append(point.x)
            interval = Interval(difference.low, difference.high)
            y.append(Estimate(difference.mean, interval, difference.n))
    return Dots(found.model, style, x, y)


def _gained(axes: Axes, shown: Sequence[Dots]) -> str:
    axes.axhline(0, lw=0.6, ls=":", color="grey")
    for dots in shown:
        axes.plot(dots.x, [y.mean for y in dots.y], color=dots.style.colour, ls=dots.style.line)
        whiskers(axes, dots.x, dots.y, dots.style)
    _ticks(axes, {x for dots in shown for x in dots.x})
    return f"n = {span(y.n for dots in shown for y in dots.y)} problems"
