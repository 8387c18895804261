"""What papers publish: every value with its source, its n and its interval, read from one yaml."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import combinations, groupby
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import yaml

from powerbench.report.summary import Summary
from powerbench.stats.intervals import Estimate, Interval, wilson

FILE = Path(__file__).parent / "tables" / "published.yaml"

Values = dict[str, dict[str, dict[str, float]]]
"""By model, method and task: in [0, 1]."""


class PublishedTask(msgspec.Struct, frozen=True):
    """A benchmark that papers report on."""

    title: str
    n: int | None
    """How many problems it has; None: not known."""
    metric: str = "accuracy"


class Method(msgspec.Struct, frozen=True):
    """A way to sample or train that papers report on."""

    title: str
    arm: str | None = None
    """Values of one arm ought to agree; None: the method's own name."""
    sampler: str | None = None
    """Ours that does the same; None: the one of the method's name, if there is one."""
    settings: dict[str, Any] = {}
    """Of that sampler, which make it this method."""


class PublishedModel(msgspec.Struct, frozen=True):
    """A model that papers report on."""

    title: str
    grpo: str | None = None
    """The model of ours that is its trained checkpoint, if there is one."""


class Source(msgspec.Struct, frozen=True):
    """A paper, a repository's logs, or a README."""

    short: str
    """Names it in a table."""
    cite: str
    where: str
    """Its identifier, the table, and what a reader has to know of it."""
    values: Values
    seeds: int | None = None
    """Runs that a value is the mean of; None: not said."""
    samples: int = 1
    """Responses to each problem in a run."""
    n: dict[str, int] = {}
    """Problems, of the tasks of which it used fewer than there are."""
    quotes: dict[str, dict[str, str]] = {}
    """By model and method: the source from which it takes these values."""
    pass_at_k: dict[str, dict[str, dict[str, dict[int, float]]]] = {}
    """By model, method, task and k."""


class SwapAcceptance(msgspec.Struct, frozen=True):
    """Accepted exchanges of neighbours on a ladder of powers, by model and task."""

    source: str
    where: str
    values: dict[str, dict[str, float]]


class Literature(msgspec.Struct, frozen=True):
    """All of it."""

    paper: str
    """The source that this project reproduces."""
    tasks: dict[str, PublishedTask]
    methods: dict[str, Method]
    models: dict[str, PublishedModel]
    sources: dict[str, Source]
    lengths: Values
    """Of the paper's responses, tokens."""
    swap_acceptance: SwapAcceptance


class Value(NamedTuple):
    """One published number."""

    model: str
    task: str
    method: str
    source: str
    value: float
    n: int | None
    """Problems; None: not known."""
    runs: int
    """Responses to each problem, in all runs that it is the mean of; 1 where a source does not say."""
    quoted: str | None
    """The source that it is taken from; None: the source's own measurement."""

    @property
    def estimate(self) -> Estimate | None:
        """With the 95% interval that n implies; None for a quoted value, for an unknown n, for a win rate.

        Wilson's interval of one answer to each of n problems, whatever the number of runs: between problems
        the variance of a mean of several answers is at most that of one, so it is the widest that it can be.
        """
        if self.quoted is not None or self.n is None:
            return None
        if literature().tasks[self.task].metric != "accuracy":
            return None
        # A single run's value is a number of right answers, rounded; a mean of several need not be.
        right = self.value * self.n if self.runs > 1 else round(self.value * self.n)
        return Estimate(self.value, wilson(right, self.n), self.n)


@cache
def literature() -> Literature:
    """The published numbers."""
    return msgspec.convert(yaml.safe_load(FILE.read_text(encoding="utf-8")), Literature)


@cache
def published_values() -> tuple[Value, ...]:
    """All of them, by model, task and arm, in the order of the yaml's lists; within an arm by source."""
    found = literature()
    every = [
        _value(name, source, model, task, method, value)
        for name, source in found.sources.items()
        for model, methods in source.values.items()
        for method, tasks in methods.items()
        for task, value in tasks.items()
    ]
    models, tasks, sources = list(found.models), list(found.tasks), list(found.sources)
    arms = list(dict.fromkeys(map(arm, found.methods)))
    return tuple(
        sorted(
            every,
            key=lambda v: (
                models.index(v.model),
                tasks.index(v.task),
                arms.index(arm(v.method)),
                sources.index(v.source),
            ),
        )
    )


def _value(name: str, source: Source, model: str, task: str, method: str, value: float) -> Value:
    return Value(
        model,
        task,
        method,
        name,
        value,
        n=source.n.get(task, literature().tasks[task].n),
        runs=source.samples * (source.seeds or 1),
        quoted=source.quotes.get(model, {}).get(method),
    )


def arm(method: str) -> str:
    """The arm that a method's values are of."""
    return literature().methods[method].arm or method


def apart(one: Interval, other: Interval) -> bool:
    """Whether two intervals do not meet: values that lie further apart than both allow."""
    return one.low > other.high or other.low > one.high


def disputes(values: Sequence[Value] | None = None) -> Iterator[tuple[Value, Value]]:
    """The pairs of independent values of one model, task and arm whose intervals do not meet."""
    for group in independent(values):
        for one, other in combinations(group, 2):
            first, second = one.estimate, other.estimate
            if first and second and apart(first.interval, second.interval):
                yield one, other


def independent(values: Sequence[Value] | None = None) -> list[list[Value]]:
    """The values of each model, task and arm that two sources or more have measured themselves."""

    def where(v: Value) -> tuple[str, str, str]:
        return v.model, v.task, arm(v.method)

    every = published_values() if values is None else values
    own = sorted((v for v in every if v.estimate is not None), key=where)
    grouped = [list(group) for _, group in groupby(own, where)]
    return [group for group in grouped if len({v.source for v in group}) > 1]


def swap_acceptance(task: str, model: str) -> float | None:
    """Accepted exchanges of neighbours in parallel tempering, mean over the ladder, as PPT's Table 9 has it."""
    return literature().swap_acceptance.values.get(model, {}).get(task)


# -- of a run -------------------------------------------------------------------------------------


def values_for(summary: Summary) -> list[Value]:
    """What sources have measured of a run's task, model and arm: quoted values left out, the paper's first."""
    arms = {arm(method) for method in literature().methods if _runs(summary, method)}
    model = _trained_from(summary)
    if model is not None:
        arms = {"grpo"}
    found = [
        v
        for v in published_values()
        if (v.model, v.task) == (model or summary.model, summary.task)
        and arm(v.method) in arms
        and v.quoted is None
    ]
    return sorted(found, key=lambda v: v.source != literature().paper)


def _trained_from(summary: Summary) -> str | None:
    """The model whose trained checkpoint a run samples as it is; None if it is none."""
    if summary.sampler != "base" or summary.changes:
        return None
    models = literature().models.items()
    return next((name for name, each in models if each.grpo == summary.model), None)


def _runs(summary: Summary, method: str) -> bool:
    """Whether a run is of a method: its sampler, with the method's settings and no others of its own."""
    own = literature().methods[method]
    alike: Mapping[str, Any] = {k: summary.settings.get(k) for k in own.settings}
    return (
        summary.sampler == (own.sampler or method)
        and alike == own.settings
        and set(summary.changes) <= set(own.settings)
    )
