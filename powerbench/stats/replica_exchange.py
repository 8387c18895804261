"""Replica exchange, from its recorded sweeps: acceptance, round trips, a ladder of equal acceptance.

A sweep is told by its origins: for each rung, from the lowest, the rung that its response was on before it.
"""

from collections.abc import Sequence
from itertools import accumulate

import numpy as np


def accepted(origins: Sequence[int]) -> list[bool]:
    """Of each pair of neighbours, from the lowest, whether it exchanged; pairs were tried in that order, or are
    apart."""
    now, found = list(range(len(origins))), []
    for r in range(len(origins) - 1):
        found.append(now[r] != origins[r])
        if found[r]:
            now[r], now[r + 1] = now[r + 1], now[r]
    return found


def round_trips(sweeps: Sequence[Sequence[int]]) -> list[int]:
    """How many sweeps each round trip took: from a response's arrival on the lowest rung, over the highest one,
    to its next arrival on the lowest. Of all responses of one chain; those under way at its end are left out.

    sweeps: the origins of each sweep of a chain.
    """
    if not sweeps or len(sweeps[0]) < 2:
        return []
    rungs = list(range(len(sweeps[0])))
    """Which response is on each rung."""
    began: dict[int, int] = {}
    """When a response came to the lowest rung last, having been on the highest one before."""
    seen_top, trips = {rungs[-1]}, []
    for time, origins in enumerate(sweeps, 1):
        rungs = [rungs[r] for r in origins]
        seen_top.add(rungs[-1])
        if (lowest := rungs[0]) in seen_top:
            seen_top.remove(lowest)
            if lowest in began:
                trips.append(time - began[lowest])
            began[lowest] = time
    return trips


def independent_round_trip(rungs: int, acceptance: float) -> float:
    """Mean sweeps of a round trip, were every exchange of an ordered sweep accepted with the same chance,
    whatever happened before: K (1 + (K - 1) (1 - A) / A), arXiv 2609.38104. Twice that for even and odd pairs
    in turn."""
    return rungs * (1 + (rungs - 1) * (1 - acceptance) / acceptance)


def equalised(ladder: Sequence[float], acceptance: Sequence[float]) -> tuple[float, ...]:
    """The ladder with the same ends whose exchanges would all be accepted equally often.

    ladder: alpha_1 < ... < alpha_K; acceptance: of its K - 1 neighbouring pairs. The share of rejections is
    taken for evenly spread between two rungs, and divided in equal parts (Syed et al. 2022, J. R. Stat. Soc. B
    84:321); repeated with new acceptances it settles. The aim is that of arXiv 2609.38104, Remark 3.2.
    """
    upto = list(accumulate((1 - a for a in acceptance), initial=0.0))
    if upto[-1] == 0:
        return tuple(ladder)
    inner = np.interp(np.linspace(0, upto[-1], len(ladder)), upto, ladder)[1:-1]
    return ladder[0], *inner.tolist(), ladder[-1]
