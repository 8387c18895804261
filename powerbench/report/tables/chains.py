"""The table of Metropolis-Hastings chains."""

from collections.abc import Sequence

from powerbench.report.chains import AGREE, Chains
from powerbench.report.labels import labels
from powerbench.report.summary import Results
from powerbench.report.tables.table import Column, Table, TextCell
from powerbench.stats.diagnostics import MIN_LAGGED_DRAWS

COLUMNS = (
    Column("task"),
    Column("model"),
    Column("sampler"),
    Column("steps", "Metropolis-Hastings steps in a block"),
    Column("acceptance", "accepted steps among those that decoded a proposal", ".2f"),
    Column("first block", "the same in a chain's first block", ".2f"),
    Column("stayed", "steps whose restart lay past the end of the response", ".1%"),
    Column(
        "climb",
        "log-likelihood gained from a block's first state to its last, nats; 95% interval over problems",
        ".2f",
    ),
    Column(
        "ESS",
        "effective draws of the log-likelihood among the steps of a chain's last block, median over problems; "
        f"from {MIN_LAGGED_DRAWS} steps on, and where it is below what so few draws can show",
        ".1f",
    ),
    Column(
        "R-hat",
        "of the log-likelihood between a problem's replicates in their last block, median over problems; "
        f"in brackets: problems above {AGREE}; few steps exceed 1 by chance, too",
    ),
    Column("truncated", "responses that reached the length limit without a stop token", ".1%"),
)


def table(results: Sequence[Results]) -> Table:
    """The chains of those runs that have any."""
    rows = []
    for each, label in zip(results, labels([r.summary for r in results]), strict=True):
        s, chains = each.summary, each.chains
        if chains is None:
            continue
        rows.append(
            (
                s.task,
                s.model,
                label,
                chains.steps,
                s.acceptance,
                chains.by_block[0].accepted,
                chains.stayed,
                chains.rise[-1],
                chains.ess,
                _r_hat(chains),
                s.truncated,
            )
        )
    return Table("chains", "Chains", COLUMNS, rows, by=2)


def _r_hat(chains: Chains) -> TextCell | None:
    if chains.r_hat is None or chains.disagree is None:
        return None
    shown = f"{chains.r_hat:.2f} ({chains.disagree:.0%} of {chains.compared})"
    values = {
        "R-hat": chains.r_hat,
        "R-hat, above 1.1": chains.disagree,
        "R-hat, n": chains.compared,
    }
    return TextCell(shown, values)
