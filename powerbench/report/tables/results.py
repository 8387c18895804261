"""The tables of results and of their cost: for the terminal, the report and the page."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from powerbench.report.labels import labels, sort_key
from powerbench.report.summary import Summary
from powerbench.report.tables.table import Cell, Column, Table, TextCell


class Quantity(NamedTuple):
    """A column, and how a run's cell is computed."""

    column: Column
    cell: Callable[[Summary], Cell]


def _undecided(s: Summary) -> Cell:
    values = {"undecided": s.undecided, "not scored": s.unscored}
    if s.verifier is None:
        return TextCell("not scored", values)
    more = f" (+{s.unscored:,} not scored)" if s.unscored else ""
    return TextCell(f"{s.undecided:,}{more}", values)


def _n(s: Summary) -> Cell:
    several = (
        f"{s.replicates:,}" if s.fewest == s.replicates else f"{s.fewest:,} to {s.replicates:,}"
    )
    several += " (draws nothing)" if s.deterministic else ""
    shown = f"{s.problems:,} × {several}" if s.responses else "0"
    return TextCell(shown, {"problems": s.problems, "replicates": s.replicates})


def _pass_at_k(s: Summary) -> Cell:
    if not s.pass_at_k:
        return None
    last, missing = s.pass_at_k[-1], s.problems - s.pass_at_k_problems
    n = f", n={s.pass_at_k_problems:,}" if missing else ""
    low, high = last.interval
    values = {"pass@k": last.mean, "pass@k, low": low, "pass@k, high": high}
    values |= {"k": last.k, "pass@k, problems": s.pass_at_k_problems}
    return TextCell(f"{last.mean:.3f} (k={last.k}{n})", values)


def _majority(s: Summary) -> Cell:
    if s.majority is None or not s.pass_at_k:
        return None
    low, high = s.majority.interval
    values = {"maj@n": s.majority.mean, "maj@n, low": low, "maj@n, high": high}
    shown = f"{s.majority.mean:.3f} [{low:.3f}, {high:.3f}] (n={s.pass_at_k[-1].k})"
    return TextCell(shown, values)


def _length(s: Summary) -> Cell:
    if s.length is None:
        return None
    low, high = s.length.interval
    values = {"tokens": s.length.mean, "tokens, low": low, "tokens, high": high}
    return TextCell(f"{s.length.mean:,.0f}", values)


def _each(total: float | None, s: Summary) -> float | None:
    return None if total is None or not s.responses else total / s.responses


VALUE = Column(
    "value [95%]",
    "accuracy (avg@n, where n responses of a problem are decided), or preference over the baseline: mean over "
    "problems of the decided responses, with a 95% interval over problems",
)

RESULTS = (
    Quantity(VALUE, lambda s: s.value),
    Quantity(
        Column(
            "LC win rate [95%]",
            "AlpacaEval's length-controlled win rate: what would be left if every response were as long as "
            "the baseline's; its interval, over instructions, includes the regression's uncertainty",
        ),
        lambda s: s.length_controlled,
    ),
    Quantity(
        Column("undecided", "responses the verifier could not decide, left out of the value"),
        _undecided,
    ),
    Quantity(Column("n", "problems × replicates; one of a sampler that draws nothing"), _n),
    Quantity(
        Column(
            "pass@k",
            "chance that at least one of k responses is right, at the largest k available (unbiased); "
            "n: the problems with that many decided responses, where some have fewer",
        ),
        _pass_at_k,
    ),
    Quantity(
        Column(
            "maj@n [95%]",
            "accuracy of the answer that most of the n responses to a problem give (of ties, their mean)",
        ),
        _majority,
    ),
    Quantity(Column("tokens", "mean response length"), _length),
    Quantity(
        Column(
            "log p / token",
            "log-likelihood under the base model, nats per token, mean over responses",
        ),
        lambda s: s.logp,
    ),
    Quantity(
        Column(
            "confidence",
            "minus the entropy of the next-token distribution, nats per token, mean over responses",
        ),
        lambda s: s.confidence,
    ),
    Quantity(
        Column(
            "decoded / token",
            "tokens decoded, rejected proposals included, per token of the responses",
            ".2f",
        ),
        lambda s: s.decoded_per_token,
    ),
    Quantity(
        Column(
            "passes / token",
            "decoding passes, those of each sequence counted by itself, per token of the responses; a pass "
            "that verifies a whole draft counts once",
            ".2f",
        ),
        lambda s: s.passes_per_token,
    ),
    Quantity(
        Column("FLOPs", "floating-point operations a response, prefill included", ".1e"),
        lambda s: _each(s.flops, s),
    ),
    Quantity(
        Column("acceptance", "accepted steps among those that decoded a proposal", ".2f"),
        lambda s: s.acceptance,
    ),
    Quantity(
        Column("truncated", "responses that reached the length limit without a stop token", ".1%"),
        lambda s: s.truncated,
    ),
    Quantity(
        Column("refused", "responses that an endpoint refused to give, or to give whole", ".1%"),
        lambda s: s.refused,
    ),
    Quantity(
        Column("dollars", "US dollars, by the tokens and prices of an endpoint", ",.2f"),
        lambda s: s.dollars,
    ),
    Quantity(
        Column("seconds", "wall-clock of the run, interruptions not counted", ",.0f"),
        lambda s: s.seconds,
    ),
)

COST = (
    Quantity(VALUE, lambda s: s.value),
    Quantity(Column("responses"), lambda s: s.responses),
    Quantity(Column("decoded", "tokens decoded, rejected proposals included"), lambda s: s.decoded),
    Quantity(
        Column("passes", "that decoded them; one that verifies a whole draft counts once"),
        lambda s: s.passes,
    ),
    Quantity(
        Column("rows", "token positions that these computed, rejected drafted tokens included"),
        lambda s: s.rows,
    ),
    Quantity(
        Column("thrown away", "tokens decoded ahead while rows were idle, and not needed"),
        lambda s: s.speculated,
    ),
    Quantity(Column("prefilled", "tokens computed in prefills"), lambda s: s.prefilled),
    Quantity(
        Column(
            "FLOPs",
            "2 for each parameter and row or prefilled token, and 4 for each layer, unit of width and token "
            "attended to; what was thrown away is not in it",
            ".2e",
        ),
        lambda s: s.flops,
    ),
    Quantity(
        Column("FLOPs / response", "", ".2e"),
        lambda s: _each(s.flops, s),
    ),
    Quantity(
        Column("seconds", "wall-clock of the run, interruptions not counted", ",.0f"),
        lambda s: s.seconds,
    ),
    Quantity(
        Column("GPU-hours", "wall-clock of every shard, times its GPUs", ",.2f"),
        lambda s: s.gpu_hours,
    ),
    Quantity(
        Column("dollars", "US dollars, by the tokens and prices of an endpoint", ",.2f"),
        lambda s: s.dollars,
    ),
    Quantity(
        Column("dollars / response", "", ",.4f"),
        lambda s: _each(s.dollars, s),
    ),
)

BY = (Column("task"), Column("model"), Column("metric"), Column("sampler"))


def results(summaries: Sequence[Summary]) -> Table:
    """The results of runs: by task and model, within these greedy, base, low_temp, power and so on."""
    return _table("results", "Results", RESULTS, summaries)


def variants(summaries: Sequence[Summary]) -> Table:
    """The same of runs with settings of their own."""
    return _table("variants", "Variants", RESULTS, summaries)


def cost(summaries: Sequence[Summary]) -> Table:
    """The cost of runs."""
    return _table("cost", "Cost", COST, summaries)


def _table(
    name: str, title: str, quantities: Sequence[Quantity], summaries: Sequence[Summary]
) -> Table:
    ordered = sorted(summaries, key=sort_key)
    rows = [
        (
            s.task,
            s.model,
            _metric(s, ordered),
            label,
            *(quantity.cell(s) for quantity in quantities),
        )
        for s, label in zip(ordered, labels(ordered), strict=True)
    ]
    columns = (*BY, *(quantity.column for quantity in quantities))
    return Table(name, title, columns, rows, by=3)


def _metric(summary: Summary, others: Sequence[Summary]) -> str:
    """The metric of the values of a task and model."""
    alike = [s for s in others if (s.task, s.model) == (summary.task, summary.model)]
    return " and ".join(dict.fromkeys(s.metric for s in alike if s.metric)) or "not scored"
