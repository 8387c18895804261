"""AlpacaEval 2.0's length-controlled win rate of a judged run.

Dubois et al. 2024, arXiv 2404.04475. Rates are fractions in [0, 1], lengths are in characters. The
instruction is the unit: its replicates share its weight, and stay together in cross-validation.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from powerbench.types import Problem

Array = NDArray[np.float64]

FOLDS = 5
MIN_INSTRUCTIONS = 2 * FOLDS
"""The fewest decided instructions that a fit is made of: two for each fold."""
CS: tuple[float, ...] = tuple(np.logspace(-4, 4, 10).tolist())
"""Inverse strengths of the L1 penalty, from which cross-validation chooses."""
GAMED_WEIGHT = 0.2 / 2
"""Of a gamed annotation, in units of an instruction: lambda = 0.2, for two variants of the baseline."""


class Gamed(NamedTuple):
    """The judge's preference on the baseline when it was asked to be verbose, or concise."""

    preference: float
    """Probability, in [0, 1], that the variant beats the baseline proper."""
    delta: float
    """Baseline's length minus the variant's, in standard deviations of that difference."""


class Annotation(NamedTuple):
    """One judged response."""

    instruction: str
    """The problem's id."""
    preference: float | None
    """Probability, in [0, 1], that the response beats the baseline's; None: undecided."""
    baseline_length: int
    length: int
    difficulty: float | None = None
    """The instruction's, on the scale of logits, as published with the gamed annotations."""
    gamed: tuple[Gamed, ...] = ()


class WinRate(NamedTuple):
    """A mean over instructions."""

    value: float
    standard_error: float | None
    """None if there is only one instruction."""
    n: int
    """Instructions."""


class Weights(NamedTuple):
    """logit P(preferred) = length * tanh(delta) + difficulty * instruction's difficulty + model."""

    length: float
    difficulty: float
    model: float


class LengthControlled(NamedTuple):
    """The length-controlled win rate, and the fit that it is computed from."""

    rate: WinRate
    """Over all instructions, undecided ones too. Its standard error is the published one, that of the
    mean of predictions: it takes the fit for exact, and is far too small."""
    weights: Weights
    standard_error: float
    """Of the rate over other instructions, with what the fit owes to the ones at hand; given C."""
    C: float
    """Chosen from CS by cross-validation."""
    regularised: bool
    """Whether gamed annotations were there to hold the fit to the baseline, as the leaderboard does."""


class Unfitted(NamedTuple):
    """There is no length-controlled win rate."""

    reason: str


def annotation(problem: Problem, length: int, preference: float | None) -> Annotation:
    """A response to a problem of the AlpacaEval task, and its score. length: in characters."""
    return Annotation(
        instruction=problem.id,
        preference=preference,
        baseline_length=len(problem.gold),
        length=length,
        difficulty=problem.meta.get("difficulty"),
        gamed=tuple(Gamed(*pair) for pair in problem.meta.get("gamed", ())),
    )


def at_equal_length(weights: Weights, difficulties: Sequence[float]) -> WinRate:
    """The win rate that a fit predicts for responses exactly as long as the baseline's.

    difficulties: of the instructions. Raises ValueError if there is none.
    """
    if not difficulties:
        raise ValueError("difficulties must hold at least one instruction's")
    return _mean(expit(weights.difficulty * np.array(difficulties) + weights.model))


def length_controlled(annotations: Sequence[Annotation]) -> LengthControlled | Unfitted:
    """The win rate that would be left if every response were as long as the baseline's.

    A logistic regression on the preferences, without intercept: see Weights. It is L1-penalised, as
    strongly as gives the least held-out log loss; an instruction's fold is its position, in order of
    ids, modulo 5. The published code leaves the folds to an unstable sort and the optimum to a solver's
    tolerance; here the one optimum is found to rounding, so that the value is the same anywhere.

    Raises ValueError for a preference outside [0, 1].
    """
    ids = sorted({a.instruction for a in annotations}, key=lambda id: (len(id), id))
    difficulties = {a.instruction: a.difficulty for a in annotations if a.difficulty is not None}
    decided = len(_decided(annotations))
    if decided < MIN_INSTRUCTIONS:
        return Unfitted(
            f"{decided} decided instructions are too few: the fit takes {MIN_INSTRUCTIONS}"
        )
    if len(difficulties) < len(ids):
        return Unfitted(f"{len(ids) - len(difficulties)} instructions have no known difficulty")
    if len({a.baseline_length - a.length for a in annotations}) == 1:
        return Unfitted("every response differs in length from the baseline's by the same")
    rows = _rows(annotations, ids, difficulties)
    C = min(CS, key=lambda C: _held_out_loss(rows, C))
    weights = Weights(*_fit(rows, C).tolist())
    known = [difficulties[id] for id in ids]
    return LengthControlled(
        rate=at_equal_length(weights, known),
        weights=weights,
        standard_error=_standard_error(rows, weights, known),
        C=C,
        regularised=any(a.gamed for a in annotations),
    )


def _standard_error(rows: "_Rows", weights: Weights, difficulties: Sequence[float]) -> float:
    """By the influence of each instruction on the rate: its prediction's, and its pull on the weights.

    (White's sandwich, with instructions as clusters; a weight that the penalty holds at 0 stays there.)
    """
    w, n = np.array(weights), len(difficulties)
    free = w != 0
    p = expit(rows.x @ w)
    x = rows.x[:, free]
    pulls = np.zeros((n, free.sum()))
    np.add.at(pulls, rows.position.astype(int), x * (rows.weight * (p - rows.preference))[:, None])
    hessian = (x.T * (rows.weight * p * (1 - p))) @ x
    design = np.array([[0.0, difficulty, 1.0] for difficulty in difficulties])
    predicted = expit(design @ w)
    slope = (predicted * (1 - predicted)) @ design[:, free]
    centred = pulls - pulls.mean(axis=0)
    influence = predicted - centred @ np.linalg.lstsq(hessian, slope, rcond=None)[0]
    return float(np.std(influence, ddof=1)) / math.sqrt(n)


# -- the regression's rows ------------------------------------------------------------------------


class _Rows(NamedTuple):
    """Weighted examples, an entry of each column a row."""

    x: Array
    """Features in the order of Weights, [rows, 3]."""
    preference: Array
    weight: Array
    position: Array
    """Of the instruction, in order of ids."""

    def where(self, chosen: NDArray[np.bool_]) -> "_Rows":
        return _Rows(*(column[chosen] for column in self))

    def loss(self, weights: Array) -> float:
        """Log loss, nats, summed over rows."""
        logits = self.x @ weights
        return float(self.weight @ (np.logaddexp(0, logits) - self.preference * logits))


def _rows(
    annotations: Sequence[Annotation], ids: Sequence[str], difficulties: Mapping[str, float]
) -> _Rows:
    position = {id: i for i, id in enumerate(ids)}
    replicates = {id: len(values) for id, values in _decided(annotations).items()}
    gamed = {a.instruction: a.gamed for a in annotations}
    rows = []
    for a, delta in zip(annotations, _standardised(annotations), strict=True):
        if a.preference is not None:
            x = (math.tanh(delta), difficulties[a.instruction], 1.0)
            rows.append((x, a.preference, 1 / replicates[a.instruction], position[a.instruction]))
    for id in ids:
        for g in gamed[id]:
            x = (math.tanh(g.delta), difficulties[id], 0.0)
            rows.append((x, g.preference, GAMED_WEIGHT, position[id]))
    return _Rows(*map(np.array, zip(*rows, strict=True)))


def _standardised(annotations: Sequence[Annotation]) -> Array:
    """Each length difference over their standard deviation, in which instructions weigh the same."""
    replicates = Counter(a.instruction for a in annotations)
    weight = np.array([1 / replicates[a.instruction] for a in annotations])
    delta = np.array([a.baseline_length - a.length for a in annotations], dtype=np.float64)
    mean = weight @ delta / len(replicates)
    return delta / np.sqrt(weight @ (delta - mean) ** 2 / (len(replicates) - 1))


def _decided(annotations: Sequence[Annotation]) -> dict[str, list[float]]:
    """The preferences by instruction, undecided ones left out."""
    decided = defaultdict(list)
    for a in annotations:
        if a.preference is not None:
            if not 0 <= a.preference <= 1:
                raise ValueError(f"preference must be in [0, 1], got {a.preference}")
            decided[a.instruction].append(a.preference)
    return decided


def _mean(values: Array) -> WinRate:
    n = len(values)
    error = float(np.std(values, ddof=1)) / math.sqrt(n) if n > 1 else None
    return WinRate(float(np.mean(values)), error, n)


# -- its optimum ----------------------------------------------------------------------------------


def _held_out_loss(rows: _Rows, C: float) -> float:
    folds = [rows.position % FOLDS == k for k in range(FOLDS)]
    return sum(rows.where(fold).loss(_fit(rows.where(~fold), C)) for fold in folds)


def _fit(rows: _Rows, C: float) -> Array:
    """The weights of the least C * loss + |weights|_1.

    Proximal Newton with Armijo's rule (Lee, Sun and Saunders 2014, SIAM J. Optim. 24:1420). Ends
    when no step lowers the objective by more than rounding: the last one, then, is taken in full.
    """

    def objective(w: Array) -> float:
        return rows.loss(w) + float(np.abs(w).sum()) / C

    weights = np.zeros(rows.x.shape[1])
    while True:
        value, p = objective(weights), expit(rows.x @ weights)
        gradient = rows.x.T @ (rows.weight * (p - rows.preference))
        hessian = (rows.x.T * (rows.weight * p * (1 - p))) @ rows.x
        # Keeps the model of the objective solvable where features are collinear; its minimum stays.
        hessian += np.diag(1e-9 + 1e-10 * np.diag(hessian))
        step = _lasso(hessian, gradient - hessian @ weights, 1 / C) - weights
        slope = gradient @ step + (np.abs(weights + step) - np.abs(weights)).sum() / C
        for size in 0.5 ** np.arange(30):
            if objective(weights + size * step) < value + 0.1 * size * slope:
                weights = weights + size * step
                break
        else:
            return weights + step


def _lasso(hessian: Array, linear: Array, penalty: float) -> Array:
    """The minimum of w'Hw / 2 + linear'w + penalty * |w|_1: the best of all patterns of signs.

    Exact where descent by coordinates is slow, and with three weights there are but 27 patterns.
    """
    candidates = []
    for signs in product((-1.0, 0.0, 1.0), repeat=len(linear)):
        sign = np.array(signs)
        on = sign != 0
        w = np.zeros_like(linear)
        w[on] = -np.linalg.solve(hessian[np.ix_(on, on)], (linear + penalty * sign)[on])
        if (np.sign(w) == sign).all():
            candidates.append(w)
    return min(
        candidates, key=lambda w: w @ hessian @ w / 2 + linear @ w + penalty * np.abs(w).sum()
    )
