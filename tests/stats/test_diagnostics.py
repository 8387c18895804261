"""R-hat and effective sample size are what their definitions say.

Run: pytest tests/stats/test_diagnostics.py
"""

import math

import numpy as np
import pytest

from powerbench.stats.diagnostics import diagnose


def gelman_rubin(x: np.ndarray) -> float:
    """Gelman and Rubin 1992, from the definition. x: [chains, draws]."""
    n = x.shape[1]
    within = x.var(axis=1, ddof=1).mean()
    between = n * x.mean(axis=1).var(ddof=1)
    return float(math.sqrt(((n - 1) / n * within + between / n) / within))


@pytest.mark.parametrize(("chains", "draws", "apart"), [(2, 4, 0.0), (4, 10, 0.0), (16, 10, 2.0)])
def test_r_hat_is_gelmans_and_rubins(chains: int, draws: int, apart: float) -> None:
    rng = np.random.default_rng(chains)
    x = rng.normal(size=(chains, draws)) + apart * rng.normal(size=(chains, 1))
    found = diagnose(x.tolist()).r_hat
    assert found == pytest.approx(gelman_rubin(x))
    assert found is not None and (found > 1.5) == (apart > 0)


@pytest.mark.parametrize("rho", [-0.3, 0.0, 0.5, 0.9])
def test_the_sample_size_of_an_autoregression_is_known(rho: float) -> None:
    """n (1 - rho) / (1 + rho), exactly, for a first-order autoregression in its stationary law."""
    rng, n = np.random.default_rng(1), 20_000
    x = np.empty((4, n))
    x[:, 0] = rng.normal(size=4) / math.sqrt(1 - rho**2)
    for t in range(1, n):
        x[:, t] = rho * x[:, t - 1] + rng.normal(size=4)
    found = diagnose(x.tolist()).ess
    assert found == pytest.approx(n * (1 - rho) / (1 + rho), rel=0.12)


def test_where_nothing_can_be_told_nothing_is() -> None:
    assert diagnose([[1.0, 2.0, 3.0]]) == (None, None)
    assert diagnose([[1.0] * 5, [1.0] * 5]) == (None, None)
    apart = [[0.1, 0.2, 0.15, 0.12], [100.1, 100.3, 100.2, 100.1]]
    assert diagnose(apart).ess is None  # four draws have no lags to sum over
    assert diagnose([[1.0, 2.0, 1.0, 2.0, 1.0, 2.0]]).ess is None  # at ArviZ's bound
    assert diagnose([[1.0] * 5, [2.0] * 5]) == (1.0, math.inf)
