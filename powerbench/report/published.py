"""The paper's Table 1: rendered from its one yaml, and what a run of ours says of a number in it."""

from collections.abc import Sequence
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import NamedTuple

import msgspec
import yaml

from powerbench.report.formats import as_csv, as_latex
from powerbench.report.summary import Summary, labels
from powerbench.report.tables import NOTHING, line
from powerbench.report.tables import value as written
from powerbench.stats import Estimate, wilson, z_of

FILE = Path(__file__).with_name("published.yaml")

POWER = 0.8
"""Chance with which a difference is to be seen that a run "could have shown"."""

ENOUGH = 0.05
"""A run that could not have shown a difference of so much is too small to tell: it is about what power
sampling gains over low temperature in Table 1."""


class Task(msgspec.Struct, frozen=True):
    """A benchmark of the table."""

    title: str
    problems: int
    measure: str


class Model(msgspec.Struct, frozen=True):
    """A model of the table, with a value in [0, 1] for each method and task."""

    title: str
    grpo: str | None
    """The model of ours that is its trained checkpoint, if there is one."""
    values: dict[str, dict[str, float]]


class Published(msgspec.Struct, frozen=True):
    """All of it."""

    source: str
    tasks: dict[str, Task]
    methods: dict[str, str]
    models: dict[str, Model]

    def value(self, task: str, model: str, sampler: str) -> float | None:
        """What the paper has for a run of ours; None if nothing."""
        for name, each in self.models.items():
            if model == name:
                return each.values.get(sampler, {}).get(task)
            if model == each.grpo and sampler == "base":
                return each.values["grpo"].get(task)
        return None


class Verdict(StrEnum):
    """What a run says of a published value, which is taken for exact."""

    INSIDE = "inside"
    """Within the run's 95% interval, which is narrow enough to mean something."""
    OUTSIDE = "outside"
    TOO_FEW = "too few problems to tell"


class Judged(NamedTuple):
    """A published value beside a run."""

    published: float
    verdict: Verdict
    detectable: float
    """The smallest difference that the run would have shown with a chance of 0.8, at a level of 0.05."""


@cache
def published() -> Published:
    """The published numbers."""
    return msgspec.convert(yaml.safe_load(FILE.read_text()), Published)


def judge(summary: Summary) -> Judged | None:
    """What a run says of the paper's number for its task, model and sampler; None if it has none.

    AlpacaEval's number is the length-controlled win rate.
    """
    value = published().value(summary.task, summary.model, summary.sampler)
    found = _ours(summary)
    return None if value is None or found is None else verdict(found, value)


def _ours(summary: Summary) -> Estimate | None:
    """What is to be compared with the paper's number."""
    return summary.length_controlled if summary.task == "alpaca_eval" else summary.value


def verdict(found: Estimate, value: float) -> Judged:
    """Whether an estimate's interval holds a published value, or is too wide to tell."""
    low, high = found.interval
    error = (high - low) / (2 * z_of(0.95))
    detectable = error * (z_of(0.95) + z_of(2 * POWER - 1))
    if not low <= value <= high:
        return Judged(value, Verdict.OUTSIDE, detectable)
    return Judged(value, Verdict.INSIDE if detectable <= ENOUGH else Verdict.TOO_FEW, detectable)


# -- the table ------------------------------------------------------------------------------------


def rows() -> list[tuple[str, ...]]:
    """Table 1: model, method, and a cell for each task; a 95% interval follows from value and n alone."""
    table = published()
    return [
        (
            model.title,
            title,
            *(
                _cell(model.values.get(method, {}).get(task), each)
                for task, each in table.tasks.items()
            ),
        )
        for model in table.models.values()
        for method, title in table.methods.items()
    ]


def headings() -> tuple[str, ...]:
    """Of `rows`."""
    tasks = published().tasks.values()
    return ("model", "method", *(f"{task.title} (n = {task.problems})" for task in tasks))


def markdown() -> str:
    """Table 1, and where it is from."""
    lines = [line(headings()), line(["---", "---", *("---:" for _ in headings()[2:])])]
    lines += [line(row) for row in _without_repeats(rows())]
    note = "One response a problem; [Wilson's 95% interval], from the number of problems alone."
    return f"# Published\n\n{published().source}\n\n" + "\n".join(lines) + f"\n\n{note}\n"


def beside(summaries: Sequence[Summary]) -> str:
    """A section on the runs that have a published number; empty if none has."""
    named = zip(summaries, labels(summaries), strict=True)
    judged = [(s, name, found) for s, name in named if (found := judge(s)) is not None]
    if not judged:
        return ""
    heads = ("run", "published", "here [95%]", "verdict", "could have shown")
    lines = [line(heads), line(["---", "---:", "---:", "---", "---:"])]
    for s, name, (value, said, detectable) in judged:
        here = written(_ours(s))
        run = f"{s.task} · {s.model} · {name}"
        lines.append(line([run, f"{value:.3f}", here, said, f"± {detectable:.3f}"]))
    note = (
        f"{published().source}, taken for exact. Could have shown: the smallest difference that this many "
        f"answers show with a chance of {POWER:.0%}; above {ENOUGH:.2f}, a value inside the interval means "
        f"little. The paper's settings are not asked of a run, nor all of its problems: see its provenance."
    )
    return "\n".join(["## Beside the paper\n", *lines, "", note, ""])


def write_published(out: Path) -> list[Path]:
    """Table 1 as out/published.md, .csv and .tex."""
    out.mkdir(parents=True, exist_ok=True)
    texts = {
        "md": markdown(),
        "csv": as_csv(headings(), rows()),
        "tex": as_latex(headings(), _without_repeats(rows()), names=2),
    }
    for kind, text in texts.items():
        (out / f"published.{kind}").write_text(text)
    return [out / f"published.{kind}" for kind in texts]


def _cell(value: float | None, task: Task) -> str:
    if value is None:
        return NOTHING
    if task.measure != "accuracy":
        return f"{100 * value:.2f}%"
    low, high = wilson(round(value * task.problems), task.problems)
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


def _without_repeats(table: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """The model's name in its first row only."""
    above = ""
    shown = []
    for model, *others in table:
        shown.append(("" if model == above else model, *others))
        above = model
    return shown
