"""The table of parallel tempering's exchanges."""

from collections.abc import Sequence

from powerbench.report.exchanges import exchanges
from powerbench.report.labels import labels
from powerbench.report.literature import swap_acceptance
from powerbench.report.summary import Results
from powerbench.report.tables.table import Column, Table, TextCell

COLUMNS = (
    Column("task"),
    Column("model"),
    Column("sampler"),
    Column("ladder", "the rungs' alphas"),
    Column("acceptance", "mean chance of an exchange, of each pair of neighbours from the lowest"),
    Column(
        "published",
        "mean acceptance over the ladder in PPT's Table 9, where it has this model and task",
        ".3f",
    ),
    Column("round trips", "of responses: lowest rung, highest rung, lowest rung"),
    Column("sweeps", "for a round trip, in the mean", ".1f"),
    Column("if independent", "sweeps, if exchanges at the mean acceptance were independent", ".1f"),
    Column(
        "equal acceptance",
        "the ladder whose exchanges would be accepted equally often: sampler.alphas of a run whose pilot "
        "this one is",
    ),
)


def table(results: Sequence[Results]) -> Table:
    """The exchanges of those runs that have any."""
    rows = []
    for each, label in zip(results, labels([r.summary for r in results]), strict=True):
        if (found := exchanges(each.run)) is not None:
            rows.append(
                (
                    each.summary.task,
                    each.summary.model,
                    label,
                    _list("alpha", found.ladder, ".4g"),
                    _list("acceptance", found.acceptance, ".2f"),
                    swap_acceptance(each.summary.task, each.summary.model),
                    found.round_trips,
                    found.sweeps,
                    found.independent,
                    _list("equal acceptance", found.equalised, ".4g"),
                )
            )
    return Table("exchanges", "Exchanges", COLUMNS, rows, by=2)


def _list(name: str, numbers: Sequence[float], form: str) -> TextCell:
    """Numbers in one cell; each a column of its own where a table is written as data."""
    shown = ", ".join(format(number, form) for number in numbers)
    return TextCell(shown, {f"{name} {i}": number for i, number in enumerate(numbers, 1)})
