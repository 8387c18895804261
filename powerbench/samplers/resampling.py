"""Resampling: from weighted particles to as many of more equal weight, without bias.

A scheme is given weights that sum to one, and returns for each of n slots its ancestor and its new weight, in
units of the mean weight. Whatever the scheme, the expected sum of the new weights of what descends from a
particle is n times its weight, so that estimates stay unbiased.
"""

import math
from collections.abc import Callable, Generator, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

from powerbench.types import Choose, Key, Request

ROUNDING = 1e-12
"""Places of u that are closer than this count as one place."""

ETA = 3 + math.sqrt(8)
"""Chopthin's largest ratio of two weights: the effective sample size is then at least n 4 eta / (1 + eta)^2 =
n / 2 (its authors', and CCPS's, choice)."""


class Resampled(NamedTuple):
    """One entry per slot."""

    ancestors: tuple[int, ...]
    weights: tuple[float, ...]
    """In units of the mean weight before."""


Scheme = Callable[[Key, Sequence[float]], Generator[Request, int, Resampled]]


def systematic(key: Key, weights: Sequence[float]) -> Generator[Request, int, Resampled]:
    """Systematic resampling (Kitagawa 1996, J. Comp. Graph. Stat. 5:1): equal weights.

    One uniform u decides: slot i takes the particle in whose part of [0, 1) (u + i) / n lies.
    """
    n, edges, total = len(weights), [0.0], 0.0
    for w in weights:
        total += w
        edges.append(n * total)
    copies = yield from _points_in_parts(key, edges, n)
    return Resampled(_in_their_slots(copies), (1.0,) * n)


def chopthin(
    key: Key, weights: Sequence[float], eta: float = ETA
) -> Generator[Request, int, Resampled]:
    """Chopthin (Gandy & Lau 2016, IEEE Trans. Signal Process. 64): weights whose ratios are at most eta.

    With a found so that the expected numbers of copies sum to n: a light particle, w < a, survives with chance
    w / a, and then has weight a; one of weight up to eta a / 2 stays as it is; a heavy one has 2 w / (eta a)
    copies, rounded up or down at random, which share its weight. One uniform makes all these choices, such that
    n particles come out. New weights are not scaled to keep their sum, which would cost the unbiasedness.
    """
    n = len(weights)
    scaled = [n * w for w in weights]
    a = _level(scaled, eta)
    expected = [_copies(w, a, eta) for w in scaled]
    whole = [math.floor(each + ROUNDING) for each in expected]
    parts = [max(0.0, each - least) for each, least in zip(expected, whole, strict=True)]
    edges = [0.0, *accumulate(parts)]
    more = yield from _points_in_parts(key, edges, n - sum(whole))
    copies = [least + extra for least, extra in zip(whole, more, strict=True)]
    ancestors = _in_their_slots(copies)
    new = tuple(a if scaled[i] < a else scaled[i] / copies[i] for i in ancestors)
    return Resampled(ancestors, new)


SCHEMES: Mapping[str, Scheme] = {"systematic": systematic, "chopthin": chopthin}


def _copies(w: float, a: float, eta: float) -> float:
    """Expected number of copies of a particle of weight w."""
    return w / a if w < a else max(1.0, 2 * w / (eta * a))


def _level(weights: Sequence[float], eta: float) -> float:
    """The a at which the expected numbers of copies sum to the number of weights.

    The sum falls with a, in a piece between two breakpoints as light / a + middle + 2 heavy / (eta a).
    """
    n = len(weights)
    places = sorted({p for w in weights if w > 0 for p in (w, 2 * w / eta)})
    upper = next(
        (a for a in places if math.fsum(_copies(w, a, eta) for w in weights) <= n), places[-1]
    )
    below = max((p for p in places if p < upper), default=0.0)
    inside = (below + upper) / 2
    light = math.fsum(w for w in weights if w < inside)
    heavy = math.fsum(w for w in weights if w > eta * inside / 2)
    middle = sum(inside <= w <= eta * inside / 2 for w in weights)
    return upper if middle == n else (light + 2 * heavy / eta) / (n - middle)


def _points_in_parts(
    key: Key, edges: Sequence[float], count: int
) -> Generator[Request, int, list[int]]:
    """How many of the points u, u + 1, ... (`count` of them) lie in each part between two edges.

    u is uniform on [0, 1), and asked for as the interval between two places where the outcome changes, so that
    a law can be enumerated.
    """
    cuts = [0.0]
    for cut in sorted(edge % 1.0 for edge in edges[1:-1]):
        if cut - cuts[-1] > ROUNDING and cut < 1 - ROUNDING:
            cuts.append(cut)
    cuts.append(1.0)
    at = yield Choose(key, tuple(b - a for a, b in pairwise(cuts)))
    u = (cuts[at] + cuts[at + 1]) / 2
    points, part = [0] * (len(edges) - 1), 0
    for i in range(count):
        while part < len(points) - 1 and u + i >= edges[part + 1]:
            part += 1
        points[part] += 1
    return points


def _in_their_slots(copies: Sequence[int]) -> tuple[int, ...]:
    """A particle that survives keeps its slot, whatever its copies: its cache need not move."""
    spare = [i for i, count in enumerate(copies) for _ in range(count - 1)]
    return tuple(i if count else spare.pop(0) for i, count in enumerate(copies))
