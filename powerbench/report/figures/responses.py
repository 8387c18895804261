"""Figures of responses: pass@k curves (Figures 5, 7 to 9), log-likelihood and confidence (Figure 4)."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, NullLocator, PercentFormatter, ScalarFormatter

from powerbench.report.figures.style import (
    Curve,
    Drawing,
    Panel,
    Style,
    Styled,
    assign_styles,
    curves,
    multiples,
    panels,
    save,
    span,
)
from powerbench.report.labels import labels
from powerbench.report.samples import SampleStats, confidence, logp_per_token
from powerbench.report.summary import Results

SHARE = "share of responses"
PASS_AT_K = (
    "pass_at_k",
    "pass@k",
    "Chance that at least one of k responses is right: unbiased estimate, mean over problems, with "
    "95% bootstrap bands over problems. Problems without a full set of decided responses are left "
    "out.",
)
MARKS = (
    "Vertical lines: means. Responses below the lowest hundredth of every sampler’s are "
    "counted in the first bin."
)
LOG_LIKELIHOOD = (
    "log_likelihood",
    "Log-likelihood",
    "Length-averaged log-likelihood of the responses under the base model. " + MARKS,
)
CONFIDENCE = (
    "confidence",
    "Confidence",
    "Minus the entropy of the base model’s next-token distribution, averaged over each response’s "
    "positions. " + MARKS,
)
X_LIKELIHOOD, X_CONFIDENCE = "log p (nats / token)", "−entropy (nats / token)"


class Spread(Styled):
    """One number of each response of a run."""

    def __init__(self, label: str, style: Style, values: list[float]) -> None:
        self.label, self.style, self.values = label, style, values


def draw(results: Sequence[Results], folder: Path) -> list[Drawing]:
    """What the runs allow."""
    every = curves(results)
    several = [c for c in every if len(c.summary.pass_at_k) > 1]
    filled = [c for c in every if logp_per_token(c.results.samples.values())]
    drawings = []
    if several:
        figure = multiples(panels(several), _pass_at_k, "k (responses per problem)", "pass@k")
        drawings.append(save(figure, folder, *PASS_AT_K))
    if filled:
        figure = multiples(_spreads(filled, logp_per_token), _histogram, X_LIKELIHOOD, SHARE)
        drawings.append(save(figure, folder, *LOG_LIKELIHOOD))
        figure = multiples(_spreads(filled, confidence), _histogram, X_CONFIDENCE, SHARE)
        drawings.append(save(figure, folder, *CONFIDENCE))
    return drawings


def draw_under_others(results: Sequence[Results], folder: Path) -> list[Drawing]:
    """Log-likelihood and confidence under one model of the responses of several (Figure 4)."""
    found = _under_others(results)
    if not found:
        return []
    drawings = []
    for which, x, name, what in (
        (0, X_LIKELIHOOD, "log_likelihood_under", "Log-likelihood under one model"),
        (1, X_CONFIDENCE, "confidence_under", "Confidence under one model"),
    ):
        figure = multiples([panel[which] for panel in found], _histogram, x, SHARE)
        caption = (
            "Responses of several models, all scored under the model that the panel names "
            "(powerbench rescore-likelihood). " + MARKS
        )
        drawings.append(save(figure, folder, name, what, caption))
    return drawings


def _under_others(results: Sequence[Results]) -> list[tuple[Panel[Spread], Panel[Spread]]]:
    """Log-likelihoods and confidences for each task and each model that scores others' responses."""
    names = dict(zip(map(id, results), labels([r.summary for r in results]), strict=True))
    judges = {
        (r.summary.task, model): None
        for r in results
        for model in r.run.scored_by()
        if model != r.summary.model
    }
    found = []
    for task, model in judges:
        rows: list[tuple[str, str, list[float], list[float]]] = []
        for r in results:
            s, samples = r.summary, list(r.samples.values())
            if s.task != task or not samples:
                continue
            if s.model == model and logp_per_token(samples):
                rows.append((names[id(r)], s.sampler, logp_per_token(samples), confidence(samples)))
            elif model in r.run.scored_by():
                scored = [each for each in r.run.likelihoods(model) if each.logp]
                label = f"{names[id(r)]} of {s.model}"
                logp = [sum(each.logp) / len(each.logp) for each in scored]
                sure = [-sum(each.entropy) / len(each.entropy) for each in scored]
                if scored:
                    rows.append((label, label, logp, sure))
        if not rows:
            continue
        styles = assign_styles((label, sampler) for label, sampler, _, _ in rows)
        head = f"{task} · under {model}"
        found.append(
            (
                Panel(head, [Spread(label, styles[label], v) for label, _, v, _ in rows]),
                Panel(head, [Spread(label, styles[label], v) for label, _, _, v in rows]),
            )
        )
    return found


def _spreads(
    found: Sequence[Curve], of: Callable[[Iterable[SampleStats]], list[float]]
) -> list[Panel[Spread]]:
    return [
        Panel(
            panel.title,
            [Spread(c.label, c.style, of(c.results.samples.values())) for c in panel.curves],
        )
        for panel in panels(found)
    ]


def _pass_at_k(axes: Axes, shown: Sequence[Curve]) -> str:
    for curve in shown:
        points, style = curve.summary.pass_at_k, curve.style
        ks = [p.k for p in points]
        low, high = zip(*(p.interval for p in points), strict=True)
        axes.fill_between(ks, low, high, color=style.colour, alpha=0.13, linewidth=0)
        axes.plot(
            ks, [p.mean for p in points], color=style.colour, ls=style.line, marker=style.marker
        )
    ticks = sorted({p.k for curve in shown for p in curve.summary.pass_at_k})
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.set_ylim(0, 1.02)
    return f"n = {span(c.summary.pass_at_k_problems for c in shown)} problems"


def _histogram(axes: Axes, shown: Sequence[Spread]) -> str:
    together = np.concatenate([each.values for each in shown])
    bins = int(np.clip(2 * len(together) ** 0.5, 12, 60))
    edges = np.linspace(*_range([each.values for each in shown]), bins + 1)
    for each in shown:
        values = np.maximum(each.values, edges[0])
        style, shares = each.style, np.histogram(values, edges)[0] / len(values)
        axes.stairs(shares, edges, fill=True, color=style.colour, alpha=0.16, linewidth=0)
        axes.stairs(shares, edges, color=style.colour, linestyle=style.line, linewidth=1.2)
        axes.axvline(float(np.mean(each.values)), color=style.colour, linestyle=style.line, lw=0.8)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    return f"n = {span(len(each.values) for each in shown)} responses per sampler"


def _range(each: Sequence[Sequence[float]]) -> tuple[float, float]:
    """From the least of the samplers' lowest hundredths to the greatest value; wider where all are the same but
    for rounding."""
    low, high = min(float(np.quantile(v, 0.01)) for v in each), max(map(max, each))
    return (low, high) if high - low > 1e-9 * max(1.0, abs(high)) else (low - 0.5, high + 0.5)
