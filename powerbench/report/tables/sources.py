"""Every source's value of every arm, side by side, and where two of them cannot both be right."""

from collections.abc import Iterable

from powerbench.report.literature import (
    Value,
    apart,
    arm,
    disputes,
    independent,
    literature,
    published_values,
)
from powerbench.report.tables.table import Cell, Column, Table, TextCell

COLUMNS = (
    Column("model"),
    Column("task"),
    Column("method"),
    Column("source"),
    Column(
        "value [95%]",
        "with the interval that n problems imply, one answer to each (Wilson); a mean of several answers to "
        "each is surer than that. None for a quoted value",
    ),
    Column("pass@k", "k in brackets"),
    Column("n", "problems; × answers to each, where a source says that it took several"),
    Column(
        "disagrees with",
        "values of other sources, of the same model, task and method, whose intervals do not meet this one's",
    ),
)


def all_sources() -> Table:
    """All published values, by model and task; a quoted value names the source that it is taken from."""
    every = published_values()
    rows = [
        (
            literature().models[v.model].title,
            literature().tasks[v.task].title,
            literature().methods[v.method].title,
            _source(v),
            cell(v),
            _pass_at_k(v),
            _n(v),
            _disagrees(v),
        )
        for v in every
    ]
    return Table("sources", "All sources", COLUMNS, rows, by=2, names=2, note=_note())


def cell(value: Value) -> Cell:
    """A value with the interval that its n implies, where that is known."""
    task = literature().tasks[value.task]
    if task.metric != "accuracy":
        return TextCell(f"{100 * value.value:.2f}%", {task.title: value.value})
    return value.estimate or TextCell(f"{value.value:.3f}", {"value": value.value})


def cited(shorts: Iterable[str]) -> list[str]:
    """The short names of sources, each with what it stands for."""
    named = {each.short: each for each in literature().sources.values()}
    return [f"{short}: {named[short].cite}, {named[short].where}" for short in shorts]


def _source(value: Value) -> Cell:
    own = literature().sources[value.source].short
    if value.quoted is None:
        return TextCell(own, {"source": own})
    other = literature().sources[value.quoted].short
    return TextCell(f"{own}, quotes {other}", {"source": own, "quotes": other})


def _pass_at_k(value: Value) -> Cell:
    by_model = literature().sources[value.source].pass_at_k
    found = by_model.get(value.model, {}).get(value.method, {}).get(value.task, {})
    if not found:
        return None
    shown = ", ".join(f"{x:.3f} ({k})" for k, x in found.items())
    return TextCell(shown, {f"pass@{k}": x for k, x in found.items()})


def _n(value: Value) -> Cell:
    if value.n is None:
        return None
    whole = literature().tasks[value.task].n
    shown = f"{value.n:,}" if value.n == whole else f"{value.n:,} of {whole:,}"
    several = f" × {value.runs}" if value.runs > 1 else ""
    return TextCell(shown + several, {"n": value.n, "answers to each": value.runs})


def _disagrees(value: Value) -> Cell:
    """`none` where all other sources agree; nothing where there is no other."""
    own = value.estimate
    others = [
        v
        for v in published_values()
        if (v.model, v.task, arm(v.method)) == (value.model, value.task, arm(value.method))
        and v.source != value.source
        and v.estimate is not None
    ]
    if own is None or not others:
        return None
    found = [v for v in others if v.estimate and apart(own.interval, v.estimate.interval)]
    named = [f"{literature().sources[v.source].short} {v.value:.3f}" for v in found]
    return ", ".join(named) or "none"


def swaps() -> Table:
    """Accepted exchanges of parallel tempering, by model and task, as PPT's Table 9 has them."""
    found = literature().swap_acceptance
    source = literature().sources[found.source]
    tasks = list(dict.fromkeys(task for values in found.values.values() for task in values))
    columns = [Column("model"), *(Column(literature().tasks[t].title, form=".3f") for t in tasks)]
    rows = [
        (literature().models[model].title, *(values.get(task) for task in tasks))
        for model, values in found.values.items()
    ]
    note = f"{source.cite}, {found.where}: of neighbouring replicas, mean over the ladder."
    return Table("swaps", "Exchanges accepted in parallel tempering", columns, rows, note=note)


def _note() -> str:
    groups = independent()
    disputed = {(one.model, one.task, arm(one.method)) for one, _ in disputes()}
    every = cited(each.short for each in literature().sources.values())
    said = (
        f"Two sources or more have measured {len(groups)} of these arms themselves; in {len(disputed)} of them "
        "two values lie further apart than both intervals allow. Chance does not explain that: a prompt, a "
        "truncation, the parsing of answers, or the choice of problems where it is a part of them, differs."
    )
    return "\n\n".join([said, "\n".join(f"- {each}" for each in every)])
