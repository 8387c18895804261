"""Win rates agree with the leaderboard; the length-controlled fit is the optimum, on any machine.

Run: pytest tests/stats/test_length_controlled.py
"""

import csv
import json
import math
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

from powerbench.stats.intervals import clustered
from powerbench.stats.length_controlled import (
    CS,
    Annotation,
    Array,
    Gamed,
    LengthControlled,
    Unfitted,
    Weights,
    annotation,
    at_equal_length,
    length_controlled,
)
from powerbench.types import Problem, Prompt

SHARED = Path(__file__).parents[2].parent / "shared/data/alpaca_eval"
MODELS = ("alpaca-7b", "claude-2", "gemma-7b-it")


def synthetic(n: int = 60, *, gamed: bool = False, longer: float = 1.0) -> list[Annotation]:
    """Judged responses by formula, every ninth verdict certain.

    longer: how much the judge likes longer responses.
    """
    annotations = []
    for i in range(n):
        difficulty, baseline, length = (
            math.sin(1.7 * i) - 0.5,
            500 + 53 * i % 700,
            300 + 37 * i % 1100,
        )
        logit = 0.8 * difficulty - 0.7 - longer * (baseline - length) / 500 + 2 * math.sin(5.3 * i)
        preference = 1 / (1 + math.exp(-logit))
        variants = (
            (Gamed(i % 11 / 10, -0.8 - i % 3), Gamed(i % 13 / 12, 0.3 + i % 4)) if gamed else ()
        )
        annotations.append(
            Annotation(
                instruction=str(i),
                preference=preference if i % 9 else round(preference),
                baseline_length=baseline,
                length=length,
                difficulty=difficulty,
                gamed=variants,
            )
        )
    return annotations


def fit(annotations: list[Annotation]) -> LengthControlled:
    result = length_controlled(annotations)
    assert isinstance(result, LengthControlled), result
    return result


def table(name: str) -> dict[str, dict[str, str]]:
    """A published table by its first column; the last of rows with the same key."""
    if not (SHARED / name).exists():
        pytest.skip(f"the published data {name} is not here")
    with (SHARED / name).open(newline="") as file:
        return {next(iter(row.values())): row for row in csv.DictReader(file)}


def difficulties() -> dict[int, float]:
    rows = table("instruction_difficulty_fitted.csv")
    return {int(index): float(row["instruction_difficulty"]) for index, row in rows.items()}


def annotated(model: str) -> list[Annotation]:
    """The published annotations of a model."""
    difficulty = difficulties()
    rows = json.loads((SHARED / f"{model}.numeric.json").read_text())
    return [
        Annotation(str(i), preference - 1, baseline, length, difficulty[i])
        for i, preference, baseline, length, _ in rows
    ]


# -- the leaderboard ------------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
def test_win_rates_are_the_leaderboards(model: str) -> None:
    published = table("leaderboard.csv")[model]
    decided = [a for a in annotated(model) if a.preference is not None]
    rate = clustered({a.instruction: [a.preference or 0.0] for a in decided})
    assert rate.n == int(published["n_total"])
    assert 100 * rate.mean == pytest.approx(float(published["win_rate"]), abs=1e-6)


def test_published_weights_give_the_published_length_controlled_win_rates() -> None:
    leaderboard, weights = table("leaderboard.csv"), table("lc_weights.csv")
    known = list(difficulties().values())
    models = (leaderboard.keys() & weights.keys()) - {"gpt4_1106_preview"}
    close = 0
    for model in models:
        rate = at_equal_length(Weights(*map(float, list(weights[model].values())[1:])), known)
        published = leaderboard[model]
        close += abs(100 * rate.value - float(published["length_controlled_winrate"])) < 0.05
        if published["lc_standard_error"]:
            error = float(published["lc_standard_error"])
            assert 100 * (rate.standard_error or 0) == pytest.approx(error, abs=0.01)
    assert len(models) == 198
    assert close >= 195
    assert at_equal_length(Weights(0, 0, 0), known).value == 0.5


@pytest.mark.parametrize(
    ("model", "value", "C"),
    [
        ("alpaca-7b", 0.070048968722, CS[6]),
        ("claude-2", 0.295157236041, CS[5]),
        ("gemma-7b-it", 0.096796130454, CS[5]),
    ],
)
def test_a_fit_to_published_annotations_stays_what_it_is(
    model: str, value: float, C: float
) -> None:
    """Without the gamed annotations, so only near the leaderboard: within 1.5 points."""
    result = fit(annotated(model))
    assert result.rate.value == pytest.approx(value, abs=1e-9)
    assert result.C == C
    published = float(table("leaderboard.csv")[model]["length_controlled_winrate"])
    assert 100 * result.rate.value == pytest.approx(published, abs=1.5)


# -- the optimum ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gamed", "value", "C"),
    [(False, 0.303062690972, CS[6]), (True, 0.304799205855, CS[6])],
)
def test_the_fit_is_the_same_on_any_machine(gamed: bool, value: float, C: float) -> None:
    result = fit(synthetic(gamed=gamed))
    assert result.regularised == gamed
    assert result.C == C
    assert result.rate.value == pytest.approx(value, abs=1e-9)


class Reference:
    """The same regression from its definition, with scipy's optimiser."""

    def __init__(self, annotations: list[Annotation]) -> None:
        deltas = np.array([a.baseline_length - a.length for a in annotations])
        x, p, s, fold = [], [], [], []
        for i, (a, delta) in enumerate(zip(annotations, deltas / deltas.std(ddof=1), strict=True)):
            own = (np.tanh(delta), a.difficulty, 1)
            gamed = [(np.tanh(g.delta), a.difficulty, 0) for g in a.gamed]
            x += [own, *gamed]
            p += [a.preference, *(g.preference for g in a.gamed)]
            s += [1.0, *(0.1 for _ in gamed)]
            fold += [i % 5] * (1 + len(gamed))
        self.x, self.p, self.s, self.fold = map(np.array, (x, p, s, fold))

    def loss(self, weights: Array, rows: NDArray[np.bool_]) -> float:
        q = expit(self.x @ weights)
        losses = self.p * np.log(q) + (1 - self.p) * np.log(1 - q)
        return -float((self.s * losses)[rows].sum())

    def gradient(self, weights: Array, rows: NDArray[np.bool_]) -> Array:
        error = self.s * (expit(self.x @ weights) - self.p)
        return error[rows] @ self.x[rows]

    def weights(self, C: float, rows: NDArray[np.bool_]) -> Array:
        """With weights = u - v, u and v >= 0, the penalised objective is smooth."""

        def objective(uv: Array) -> tuple[float, Array]:
            weights = uv[:3] - uv[3:]
            gradient = C * self.gradient(weights, rows)
            value = C * self.loss(weights, rows) + uv.sum()
            return value, np.concatenate([gradient + 1, 1 - gradient])

        best = np.zeros(6)
        for _ in range(5):  # each start afresh sharpens the last: its stopping rule is loose
            options = {"ftol": 0, "gtol": 1e-13, "maxiter": 10_000}
            best = minimize(
                objective,
                best,
                jac=True,
                method="L-BFGS-B",
                bounds=[(0, None)] * 6,
                options=options,
            ).x
        return best[:3] - best[3:]

    def held_out_loss(self, C: float) -> float:
        folds = [self.fold == k for k in range(5)]
        return sum(self.loss(self.weights(C, ~fold), fold) for fold in folds)


@pytest.mark.parametrize("gamed", [False, True])
@pytest.mark.parametrize(("longer", "zero"), [(0.25, True), (2.0, False)])
def test_an_independent_optimiser_finds_the_same(gamed: bool, longer: float, zero: bool) -> None:
    annotations = synthetic(gamed=gamed, longer=longer)
    result, reference = fit(annotations), Reference(annotations)
    assert min(CS, key=reference.held_out_loss) == result.C
    weights = reference.weights(result.C, reference.fold >= 0)
    assert result.weights == pytest.approx(weights, abs=1e-7)
    assert (result.weights.length == 0) == zero
    assert result.rate == at_equal_length(result.weights, [a.difficulty or 0 for a in annotations])


def wild() -> list[Annotation]:
    """Far outliers in difficulty and verdicts that are all certain: a plain Newton step overshoots."""
    tangents = [math.tan(9 * (i + 1)) for i in range(15)]
    signs = [3 * t + 2 * math.sin(5.3 * i) + 1 for i, t in enumerate(tangents)]
    return [
        a._replace(difficulty=tangent, preference=float(sign > 0))
        for a, tangent, sign in zip(synthetic(15), tangents, signs, strict=True)
    ]


@pytest.mark.parametrize("annotations", [synthetic(), synthetic(gamed=True), wild()])
def test_the_weights_are_where_the_penalised_loss_is_flat(annotations: list[Annotation]) -> None:
    """The conditions that hold at the optimum of a convex function, and nowhere else."""
    result, reference = fit(annotations), Reference(annotations)
    weights = np.array(result.weights)
    slopes = result.C * reference.gradient(weights, reference.fold >= 0)
    for weight, slope in zip(weights, slopes, strict=True):
        assert slope == pytest.approx(-np.sign(weight), abs=1e-8) if weight else abs(slope) <= 1


@pytest.mark.parametrize("gamed", [False, True])
def test_order_and_copies_of_responses_change_nothing(gamed: bool) -> None:
    annotations = synthetic(gamed=gamed)
    result = fit(annotations)
    shuffled = annotations * 3
    random.Random(0).shuffle(shuffled)
    again = fit(shuffled)
    assert again.rate == pytest.approx(result.rate, abs=1e-12)
    assert again.weights == pytest.approx(result.weights, abs=1e-11)
    assert again.C == result.C


# -- its uncertainty ------------------------------------------------------------------------------


@pytest.mark.parametrize("gamed", [False, True])
def test_the_standard_error_is_the_jackknifes(gamed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which leaves out one instruction after the other, and fits anew each time."""
    monkeypatch.setattr("powerbench.stats.length_controlled.CS", (CS[5],))
    annotations = synthetic(120, gamed=gamed)
    result, n = fit(annotations), len(annotations)
    left = [fit([*annotations[:i], *annotations[i + 1 :]]).rate.value for i in range(n)]
    jackknife = math.sqrt((n - 1) ** 2 / n * np.var(left, ddof=1))
    assert result.standard_error == pytest.approx(jackknife, rel=0.02)
    assert result.rate.standard_error is not None
    assert result.standard_error > 2 * result.rate.standard_error


def test_copies_of_responses_make_nothing_more_certain() -> None:
    annotations = synthetic()
    once, thrice = fit(annotations), fit(annotations * 3)
    assert thrice.standard_error == pytest.approx(once.standard_error, rel=1e-9)


# -- what the measures mean -----------------------------------------------------------------------


def test_the_length_controlled_win_rate_takes_out_what_length_bought() -> None:
    """Preferences that follow the model exactly give back its weights, and the rate at equal length."""
    truth = Weights(length=-2.0, difficulty=0.7, model=0.3)
    blank = [a._replace(length=a.length + 600) for a in synthetic(400)]
    difficulties = [a.difficulty or 0.0 for a in blank]
    deltas = np.array([a.baseline_length - a.length for a in blank])
    bought = truth.length * np.tanh(deltas / deltas.std(ddof=1))
    earned = truth.difficulty * np.array(difficulties) + truth.model
    preferences = expit(bought + earned).tolist()
    annotations = [a._replace(preference=p) for a, p in zip(blank, preferences, strict=True)]
    result = fit(annotations)
    assert result.weights == pytest.approx(truth, abs=1e-3)
    assert result.rate == pytest.approx(at_equal_length(truth, difficulties), abs=1e-4)
    assert np.mean(preferences) - result.rate.value > 0.1


def test_every_instruction_weighs_the_same() -> None:
    once = synthetic()
    often = [once[0]] * 5 + once[1:]
    assert fit(often).rate == pytest.approx(fit(once).rate, abs=1e-12)


def test_undecided_responses_are_predicted() -> None:
    annotations = synthetic()
    undecided = [
        a._replace(preference=None) if i % 6 == 0 else a for i, a in enumerate(annotations)
    ]
    result = fit(undecided)
    assert result.rate.n == 60
    assert result.rate == at_equal_length(result.weights, [a.difficulty or 0 for a in annotations])


@pytest.mark.parametrize(
    ("annotations", "reason"),
    [
        ([], "0 decided instructions are too few: the fit takes 10"),
        (synthetic(9), "9 decided instructions are too few"),
        (synthetic(5) * 4, "5 decided instructions are too few"),
        ([a._replace(preference=None) for a in synthetic()], "0 decided instructions are too few"),
        ([a._replace(length=a.baseline_length + 3) for a in synthetic()], "by the same"),
        (
            [a._replace(difficulty=None) if a.instruction == "7" else a for a in synthetic()],
            "1 instructions have no known difficulty",
        ),
    ],
)
def test_what_cannot_be_fitted_says_why(annotations: list[Annotation], reason: str) -> None:
    result = length_controlled(annotations)
    assert isinstance(result, Unfitted)
    assert reason in result.reason


@pytest.mark.parametrize(
    "change",
    [
        lambda a: a._replace(preference=1.0),
        lambda a: a._replace(preference=0.0),
        lambda a: a._replace(preference=float(a.length > a.baseline_length)),
        lambda a: a._replace(difficulty=1.0),
        lambda a: a._replace(difficulty=1e9),
        lambda a: a._replace(difficulty=1e6 * a.difficulty),
        lambda a: a._replace(length=10**7 if a.instruction == "3" else a.length),
        lambda a: a if a.instruction in map(str, range(0, 60, 5)) else a._replace(preference=None),
    ],
)
@pytest.mark.parametrize("gamed", [False, True])
def test_strange_annotations_are_fitted_all_the_same(
    change: Callable[[Annotation], Annotation], gamed: bool
) -> None:
    result = fit([change(a) for a in synthetic(gamed=gamed)])
    assert 0 <= result.rate.value <= 1
    assert all(map(math.isfinite, result.weights))


@pytest.mark.parametrize("bad", [1.5, -0.1, math.nan])
def test_a_preference_outside_the_unit_interval_is_named(bad: float) -> None:
    annotations = [a._replace(preference=bad) for a in synthetic()]
    with pytest.raises(ValueError, match=rf"preference must be in \[0, 1\], got {bad}"):
        length_controlled(annotations)
    with pytest.raises(ValueError, match="at least one"):
        at_equal_length(Weights(0, 0, 0), [])


def test_a_stored_problem_gives_what_the_fit_needs() -> None:
    meta = json.loads('{"difficulty": -0.5, "gamed": [[0.25, 1.5], [0.75, -2.0]]}')
    problem = Problem("12", Prompt("Why?"), gold="Because.", meta=meta)
    assert annotation(problem, 3, 0.125) == Annotation(
        "12", 0.125, 8, 3, -0.5, (Gamed(0.25, 1.5), Gamed(0.75, -2.0))
    )
    bare = Problem("12", Prompt("Why?"), gold="Because.", meta={"instruction": "Why?"})
    assert annotation(bare, 3, None) == Annotation("12", None, 8, 3)
