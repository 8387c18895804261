"""Which runs stand in a table, in what order, and under what names."""

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from powerbench.report.summary import Results, Summary
from powerbench.report.variants import format_settings, sampler_order


def main_runs(results: Sequence[Results]) -> list[Results]:
    """Of each task, model and sampler the runs that change nothing of its yaml; all, if none is like that."""

    def of(r: Results) -> tuple[str, str, str]:
        return (r.summary.task, r.summary.model, r.summary.sampler)

    plain = {of(r) for r in results if not r.summary.changes}
    return [r for r in results if not r.summary.changes or of(r) not in plain]


def sampler_sort_key(sampler: str) -> tuple[int, str]:
    """Sorts samplers in the order of their yamls; those without a yaml follow by name."""
    order = sampler_order()
    return (order.index(sampler) if sampler in order else len(order), sampler)


def sort_key(summary: Summary) -> tuple[Any, ...]:
    """Sorts runs: by task, model, sampler, then by what they change of the sampler's yaml, then by folder."""
    changed = [(k, *_by_size(v)) for k, v in sorted(summary.changes.items())]
    own = sampler_sort_key(summary.sampler)
    return (summary.task, summary.model, own, len(changed), changed, summary.run)


def _by_size(value: Any) -> tuple[float, str]:
    """Numbers by their size, all else by its text."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return (float(value) if number else math.inf, str(value))


def labels(summaries: Sequence[Summary]) -> list[str]:
    """Each run's sampler and what it changes of its yaml; where that is ambiguous, also what else differs."""
    names = [" ".join(filter(None, (s.sampler, format_settings(s.changes)))) for s in summaries]
    where = [(s.task, s.model, name) for s, name in zip(summaries, names, strict=True)]
    alike = defaultdict(list)
    for s, each in zip(summaries, where, strict=True):
        alike[each].append(s)
    return [
        name if len(alike[each]) == 1 else f"{name} {_apart(s, alike[each])}"
        for s, name, each in zip(summaries, names, where, strict=True)
    ]


def _apart(summary: Summary, others: Sequence[Summary]) -> str:
    """The sampler's settings in which runs differ; the hash of all settings where these are the same."""
    differ = [
        k for k in summary.settings if any(o.settings.get(k) != summary.settings[k] for o in others)
    ]
    own = {k: summary.settings[k] for k in differ}
    alike = sum({k: o.settings.get(k) for k in differ} == own for o in others)
    return (
        format_settings(own)
        if differ and alike == 1
        else summary.run.removeprefix(f"{summary.sampler}-")
    )
