"""Where to restart from by a response's entropies: what `entropy_cut` and `entropy_gated` share."""

import math
from collections.abc import Sequence
from itertools import pairwise

from powerbench.errors import require


def restart_law(entropy: Sequence[float], exponent: float, uniform: float) -> tuple[float, ...]:
    """lambda: the probability of a restart at each position, given its next-token entropies.

    exponent: the power of an entropy rise that it is proportional to. uniform: the share that is uniform.
    """
    rises = [max(0.0, after - before) for before, after in pairwise((0.0, *entropy))]
    if (largest := max(rises)) == 0:
        return (1 / len(rises),) * len(rises)
    raw = [(rise / largest) ** exponent for rise in rises]
    total = math.fsum(raw)
    return tuple((1 - uniform) * r / total + uniform / len(rises) for r in raw)


def require_restarts(exponent: float, uniform: float) -> None:
    """Raise UserError unless `restart_law` can have these settings."""
    require(
        0 < exponent < math.inf,
        f"sampler.exponent must be > 0 and finite (the paper: 4), got {exponent}",
    )
    require(0 <= uniform <= 1, f"sampler.uniform, a share, must be from 0 to 1, got {uniform}")
