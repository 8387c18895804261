"""Diagnostics of Markov chains from one number per state: effective sample size (ESS) and R-hat.

Both are ArviZ's, without ranks and without splitting chains in halves: a block has ten steps.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from arviz_stats.base.array import array_stats

MIN_DRAWS = 4
"""Draws of a chain below which there is neither ESS nor R-hat."""
MIN_LAGGED_DRAWS = 5
"""Draws of a chain below which there is no ESS: there are no lags to sum over."""


class Diagnostics(NamedTuple):
    """Of several chains for one target; None where a number cannot be computed."""

    ess: float | None
    """Independent draws that would tell as much of the mean as one chain's, from 0 to its draws or above."""
    r_hat: float | None
    """The chains' spread together over the mean spread within one: 1 where they agree."""


def diagnose(chains: Sequence[Sequence[float]]) -> Diagnostics:
    """Effective sample size of one chain (Geyer's initial sequences over all of them) and R-hat.

    chains: [chains, draws], all of one length. Gelman and Rubin 1992; Vehtari et al. 2021, Bayesian
    Analysis 16:667, eqs. 3, 4 and 10. Both need MIN_DRAWS draws of a chain, not all of them the same; R-hat
    needs two chains, and the sample size MIN_LAGGED_DRAWS draws. Chains that never move, each at a place of
    its own, are one draw each.
    """
    draws = np.asarray(chains, float)
    if draws.ndim != 2 or draws.shape[1] < MIN_DRAWS or not np.ptp(draws):
        return Diagnostics(None, None)
    if not np.ptp(draws, axis=1).any():
        return Diagnostics(1.0, math.inf)
    axes = {"chain_axis": 0, "draw_axis": 1, "method": "identity"}
    with np.errstate(divide="ignore", invalid="ignore"):
        together = float(array_stats.ess(draws, **axes))
        r_hat = float(array_stats.rhat(draws, **axes)) if len(draws) > 1 else math.nan
    most = draws.size * math.log10(draws.size)  # ArviZ's bound, which tells of the bound alone
    told = draws.shape[1] >= MIN_LAGGED_DRAWS and together < most * (1 - 1e-9)
    return Diagnostics(
        together / len(draws) if told else None, None if math.isnan(r_hat) else r_hat
    )
