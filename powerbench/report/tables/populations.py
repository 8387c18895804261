"""The table of the populations that responses were chosen from."""

from collections.abc import Sequence

from powerbench.report.populations import populations
from powerbench.report.summary import Results, labels
from powerbench.report.tables.table import Column, Table

COLUMNS = (
    Column("task"),
    Column("model"),
    Column("sampler"),
    Column("members", "whole responses of which one is returned, mean", ".1f"),
    Column(
        "distinct [95%]",
        "members with a log p of their own, to three decimals: at most so many different responses",
        ".1f",
    ),
    Column("effective [95%]", "number of members by their weights, 1/Σw²", ".1f"),
    Column("resampled", "times before, mean", ".1f"),
    Column("value [95%]", "of the responses returned: some member is right at least as often"),
)

NOTE = (
    "Rounds hold the members' log p and weights, not their texts: how often a member that was not returned is "
    "right is not known. Where members are independent draws (best_of_n, self_consistency, deepconf) it is "
    "pass@n of a plain run at their temperature."
)


def table(results: Sequence[Results]) -> Table:
    """Every run that chose its responses from several whole ones."""
    rows = []
    for r, name in zip(results, labels([r.summary for r in results]), strict=True):
        found = populations(r.last_rounds)
        if found is not None:
            rows.append(
                (
                    r.summary.task,
                    r.summary.model,
                    name,
                    found.members.mean,
                    found.distinct,
                    found.effective,
                    found.earlier.mean,
                    r.summary.value,
                )
            )
    return Table("populations", "Populations", COLUMNS, rows, by=2, note=NOTE)
