"""Values with their intervals at places along an axis, as figures draw them."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from powerbench.report.figures.style import Style, Styled
from powerbench.stats.intervals import Estimate

SMALL = "."
"""The marker of best-of-n."""


class Dots(Styled):
    """Values of one sampler, with their intervals, at places along an axis."""

    def __init__(
        self,
        label: str,
        style: Style,
        x: Sequence[float],
        y: Sequence[Estimate],
        slopes: Sequence[float | None] = (),
    ) -> None:
        """slopes: of the curve at each place, where they are known: drawn as strokes."""
        self.label, self.style, self.x, self.y, self.slopes = label, style, x, y, slopes


def whiskers(
    axes: Axes, x: Sequence[float], y: Sequence[Estimate], style: Style, marker: str | None = None
) -> None:
    """The intervals, and the dots in the style's marker or in another."""
    means = np.array([each.mean for each in y])
    ends = np.array([each.interval for each in y]).reshape(-1, 2)
    ends = np.where(np.isfinite(ends), ends, means[:, None])  # one problem tells nothing of others
    low, high = np.maximum(0, means - ends[:, 0]), np.maximum(0, ends[:, 1] - means)
    shape = style.marker if marker is None else marker
    axes.errorbar(
        x, means, (low, high), color=style.colour, ls="none", elinewidth=0.9, marker=shape
    )
