"""What a run decoded beside the generation of an epoch of GRPO (the paper's section 5.3)."""

from collections.abc import Sequence

from powerbench.report.chosen import ROUNDING
from powerbench.report.labels import labels
from powerbench.report.summary import Summary
from powerbench.report.tables.table import Cell, Column, Table

PAPERS, USUAL = 8, 16
"""Rollouts to an example: those that the paper assumes, and those that it calls typical."""

MATH_TRAIN = 7500
"""Examples of MATH's training split, on which the paper's GRPO models are trained."""

COLUMNS = (
    Column("task"),
    Column("model"),
    Column("sampler"),
    Column(
        "decoded / token",
        "tokens decoded, rejected proposals included, per token of the responses",
        ".2f",
    ),
    Column(
        f"epochs of {PAPERS}",
        "tokens decoded for one response to each problem, over those that an epoch of GRPO generates on as "
        f"many examples, with {PAPERS} rollouts as long: decoded / token over {PAPERS}",
        ".2f",
    ),
    Column(f"epochs of {USUAL}", f"the same with {USUAL} rollouts", ".2f"),
    Column(
        "epochs on MATH",
        f"the same with {USUAL} rollouts on MATH's {MATH_TRAIN:,} training examples: problems × decoded / "
        f"token over {MATH_TRAIN:,} × {USUAL}",
        ".4f",
    ),
)

NOTE = (
    "Generation alone: an epoch's training passes are not in it, nor that training takes several. The paper's "
    "own figure: 8.84 tokens decoded a token (T = 679, N = 10, B = 192), about an epoch of 8 rollouts."
)


def epochs(multiplier: float, problems: int, examples: int, rollouts: int) -> float:
    """Tokens decoded for one response to each problem, over those of an epoch of GRPO with rollouts as long.

    multiplier: tokens decoded for each token of a response.
    """
    return problems * multiplier / (examples * rollouts)


def table(summaries: Sequence[Summary]) -> Table:
    """Every run that decodes more than its responses."""
    rows: list[tuple[Cell, ...]] = []
    for s, name in zip(summaries, labels(summaries), strict=True):
        cost = s.decoded_per_token
        if cost is None or cost <= 1 + ROUNDING:
            continue
        same = (epochs(cost, 1, 1, rollouts) for rollouts in (PAPERS, USUAL))
        whole = epochs(cost, s.problems, MATH_TRAIN, USUAL)
        rows.append((s.task, s.model, name, cost, *same, whole))
    return Table("training", "Beside an epoch of GRPO", COLUMNS, rows, by=2, note=NOTE)
