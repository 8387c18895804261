"""The table of the populations that responses were chosen from."""

from collections.abc import Sequence

from powerbench.report.labels import labels
from powerbench.report.populations import populations
from powerbench.report.summary import Results
from powerbench.report.tables.table import Cell, Column, Table

COLUMNS = (
    Column("task"),
    Column("model"),
    Column("sampler"),
    Column("members", "responses of which one is returned, mean", ".1f"),
    Column(
        "distinct [95%]",
        "members with a log p of their own, to three decimals: at most so many different responses",
        ".1f",
    ),
    Column("effective [95%]", "number of members by their weights, 1/Σw²", ".1f"),
    Column("resampled", "times before, mean", ".1f"),
    Column("value [95%]", "of the responses returned"),
    Column(
        "coverage [95%]",
        "oracle coverage: how often some member is right, its answer graded as the returned response's is",
    ),
    Column(
        "lost [95%]",
        "by choosing: how often some member is right and the one returned is not; coverage less the value of "
        "the same responses",
    ),
)

NOTE = (
    "Members are the replicas, or those of the last round, finished or not: of scalable_power and block_beam, "
    "the candidates for the last block. Of members that were not returned their answers are kept, not their "
    "texts: coverage is not known where no answer can be read, as in programs, each of which would have to be "
    "run, nor of samples from before answers were kept. Where members are independent draws (best_of_n, "
    "self_consistency, deepconf) it is pass@n of a plain run at their temperature."
)


def table(results: Sequence[Results]) -> Table:
    """Every run that chose its responses from several."""
    named = zip(results, labels([r.summary for r in results]), strict=True)
    rows = [row for r, name in named if (row := _row(r, name)) is not None]
    return Table("populations", "Populations", COLUMNS, rows, by=2, note=NOTE)


def _row(results: Results, name: str) -> tuple[Cell, ...] | None:
    s, found = results.summary, populations(results.last_rounds)
    graded = s.coverage
    if found is None and graded is None:
        return None
    return (
        s.task,
        s.model,
        name,
        found.members.mean if found else graded and graded.members,
        found and found.distinct,
        found and found.effective,
        found and found.earlier.mean,
        s.value,
        graded and graded.coverage,
        graded and graded.lost,
    )
