"""The table of runs: plain cells, shared by the terminal, the markdown report and the page."""

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import NamedTuple

from powerbench.report.summary import Summary, labels, rank
from powerbench.stats import Estimate

NOTHING = "–"
"""Stands for what does not apply, or is not known yet."""


class Column(NamedTuple):
    """One quantity: its heading, what it is, and how it is written."""

    heading: str
    meaning: str
    cell: Callable[[Summary], str]


class Row(NamedTuple):
    """One run: its cells in the order of COLUMNS."""

    summary: Summary
    label: str
    """The sampler, made unambiguous."""
    cells: tuple[str, ...]


class Group(NamedTuple):
    """The runs of one task with one model."""

    task: str
    model: str
    measure: str
    rows: tuple[Row, ...]


def value(estimate: Estimate | None) -> str:
    """A mean with its interval: `0.748 [0.708, 0.784]`."""
    if estimate is None:
        return NOTHING
    return f"{estimate.mean:.3f} [{estimate.interval.low:.3f}, {estimate.interval.high:.3f}]"


def _undecided(s: Summary) -> str:
    if s.verifier is None:
        return "not scored"
    return f"{s.undecided:,}" + (f" (+{s.unscored:,} not scored)" if s.unscored else "")


def _pass_at_k(s: Summary) -> str:
    if not s.pass_at_k:
        return NOTHING
    last, missing = s.pass_at_k[-1], s.problems - s.pass_at_k_problems
    return f"{last.mean:.3f} (k={last.k}" + (f", n={s.pass_at_k_problems:,})" if missing else ")")


def _number(x: float | None, form: str) -> str:
    return NOTHING if x is None else f"{x:{form}}".replace("-", "−")


COLUMNS = (
    Column(
        "value [95%]",
        "accuracy, or preference over the baseline: mean over problems of the decided responses, "
        "with a 95% interval over problems",
        lambda s: value(s.value),
    ),
    Column(
        "LC win rate [95%]",
        "AlpacaEval's length-controlled win rate: what would be left if every response were as long as "
        "the baseline's; its interval, over instructions, includes the regression's uncertainty",
        lambda s: value(s.length_controlled),
    ),
    Column(
        "undecided", "responses the verifier could not decide, left out of the value", _undecided
    ),
    Column(
        "n",
        "problems × replicates",
        lambda s: f"{s.problems:,} × {s.replicates:,}" if s.responses else "0",
    ),
    Column(
        "pass@k",
        "chance that at least one of k responses is right, at the largest k there is (unbiased); "
        "n: the problems with that many decided responses, where some have fewer",
        _pass_at_k,
    ),
    Column("tokens", "mean response length", lambda s: _number(s.length, ",.0f")),
    Column(
        "log p / token",
        "log-likelihood under the base model, nats per token, mean over responses",
        lambda s: _number(s.logp, ".3f"),
    ),
    Column(
        "confidence",
        "minus the entropy of the next-token distribution, nats per token, mean over responses",
        lambda s: _number(s.confidence, ".3f"),
    ),
    Column(
        "decoded / token",
        "tokens decoded, rejected proposals included, per token of the responses",
        lambda s: _number(s.decoded_per_token, ".2f"),
    ),
    Column(
        "prefilled", "tokens computed in prefills, whole run", lambda s: _number(s.prefilled, ",")
    ),
    Column(
        "acceptance",
        "accepted steps among those that decoded a proposal",
        lambda s: _number(s.acceptance, ".2f"),
    ),
    Column(
        "truncated",
        "responses that reached the length limit without a stop token",
        lambda s: _number(s.truncated, ".1%"),
    ),
    Column(
        "seconds",
        "wall-clock of the run, interruptions not counted",
        lambda s: _number(s.seconds, ",.0f"),
    ),
)


def groups(summaries: Sequence[Summary]) -> list[Group]:
    """The table: by task, then by model; within each greedy, base, low_temp, power and so on."""
    ordered = sorted(summaries, key=rank)
    rows = [
        Row(s, label, tuple(column.cell(s) for column in COLUMNS))
        for s, label in zip(ordered, labels(ordered), strict=True)
    ]
    by_model = groupby(rows, lambda row: (row.summary.task, row.summary.model))
    return [_group(task, model, tuple(of_model)) for (task, model), of_model in by_model]


def used(found: Sequence[Group]) -> list[int]:
    """Which of COLUMNS, by position: the first, and those that hold something in any row."""
    rows = [row for group in found for row in group.rows]
    others = range(1, len(COLUMNS))
    return [0, *(i for i in others if any(row.cells[i] != NOTHING for row in rows))]


def markdown(summaries: Sequence[Summary]) -> str:
    """One table for each task and model, then what the columns mean."""
    sections = []
    for group in groups(summaries):
        shown = used([group])
        lines = [line(["sampler", *(COLUMNS[i].heading for i in shown)])]
        lines += [line(["---", *("---:" for _ in shown)])]
        lines += [line([row.label, *(row.cells[i] for i in shown)]) for row in group.rows]
        title = f"## {group.task} · {group.model} ({group.measure})"
        sections.append(f"{title}\n\n" + "\n".join(lines))
    meanings = [
        f"- **{COLUMNS[i].heading}**: {COLUMNS[i].meaning}" for i in used(groups(summaries))
    ]
    return "\n\n".join([*sections, "\n".join(meanings)]) + "\n"


def _group(task: str, model: str, rows: tuple[Row, ...]) -> Group:
    measures = dict.fromkeys(row.summary.measure for row in rows if row.summary.measure)
    return Group(task, model, " and ".join(measures) or "not scored", rows)


def line(cells: Sequence[str]) -> str:
    """A row of a table in markdown."""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
