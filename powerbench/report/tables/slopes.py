"""What more sharpening would do: dP/dalpha of every run for p^alpha, of its task and problem by problem."""

from collections.abc import Sequence

from powerbench.report.labels import labels, main_runs
from powerbench.report.slopes import by_problem, power_of
from powerbench.report.summary import Results
from powerbench.report.tables.table import Cell, Column, Table, TextCell
from powerbench.stats.intervals import Estimate
from powerbench.stats.slopes import slopes

SHOWN = 10
"""Problems of each run that the page and the report list: those of the steepest slopes."""

COLUMNS = (
    Column("task"),
    Column("model"),
    Column("sampler"),
    Column("alpha", "whose p^alpha the sampler is for; 1 for base", "g"),
    Column(
        "dP/dα [95%]",
        "slope of the accuracy against alpha, as the run's own responses imply it: Cov(right, log p) of each "
        "problem's responses, mean over problems with two or more; a dash where none has right and wrong ones",
    ),
    Column(
        "δ [95%]",
        "nats: mean log p of right responses less that of wrong ones, mean over problems with both; where it "
        "is positive more sharpening helps: dP/dα = P(1 − P)δ",
        ".2f",
    ),
    Column(
        "dδ/dα", "Var(log p | right) − Var(log p | wrong), over problems with two of each", ".2f"
    ),
    Column("problems", "with two responses or more"),
    Column("both", "of these, problems with right and wrong responses: the others' slope is 0"),
    Column("up / down", "of these, with a positive and a negative δ"),
)

BY_PROBLEM = (
    Column("task"),
    Column("model"),
    Column("sampler"),
    Column("problem"),
    Column("n", "responses"),
    Column("P", "share of them that are right", ".2f"),
    Column("δ", "nats", ".2f"),
    Column("dP/dα", "Cov(right, log p), unbiased: P(1 − P)δ · n/(n − 1)"),
)

NOTE = (
    "Exact for draws of p^α: of a chain with few steps, of few particles, and of responses cut at the length "
    "limit, it tells as much as these are like such draws."
)


def table(results: Sequence[Results]) -> Table:
    """Every run for some p^alpha that has several graded responses to a problem."""
    rows = []
    for r, name in zip(results, labels([r.summary for r in results]), strict=True):
        found = by_problem(r)
        of = slopes(found)
        if of is None:
            continue
        deltas = [s.delta for s in found.values() if s.delta is not None]
        up, down = sum(d > 0 for d in deltas), sum(d < 0 for d in deltas)
        rows.append(
            (
                r.summary.task,
                r.summary.model,
                name,
                power_of(r.summary),
                signed(of.slope if deltas else None, "dP/dα"),
                signed(of.delta, "δ", "+.2f"),
                of.turn.mean if of.turn else None,
                of.slope.n,
                len(deltas),
                TextCell(f"{up} / {down}", {"up": up, "down": down}),
            )
        )
    return Table("slopes", "Would more sharpening help?", COLUMNS, rows, by=2, note=NOTE)


def signed(estimate: Estimate | None, name: str, form: str = "+.3f") -> Cell:
    """An estimate that may be negative, with its sign; its mean alone where one problem tells all."""
    if estimate is None:
        return None
    mean, (low, high), n = estimate
    shown = f"{mean:{form}}" + (f" [{low:{form}}, {high:{form}}]" if n > 1 else "")
    values = {name: mean, **({f"{name}, low": low, f"{name}, high": high} if n > 1 else {})}
    return TextCell(shown.replace("-", "−"), values)


def problem_table(results: Sequence[Results], most: int | None = None) -> Table:
    """The main ones of these runs by problem, the steepest slopes first. most: of each run; None: all."""
    rows, shown = [], main_runs(results)
    for r, name in zip(shown, labels([r.summary for r in shown]), strict=True):
        steepest = sorted(by_problem(r).items(), key=lambda each: (-abs(each[1].slope), each[0]))
        rows += [
            (r.summary.task, r.summary.model, name, problem, s.n, s.share, s.delta, s.slope)
            for problem, s in steepest[:most]
            if most is None or s.slope
        ]
    title = "Problems that more sharpening moves most"
    return Table("slopes_by_problem", title, BY_PROBLEM, rows, by=3)
