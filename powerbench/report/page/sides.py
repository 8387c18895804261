"""Responses of all samplers to one problem, side by side (the paper's Tables 2 to 5)."""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from powerbench.report.page.data import score_name
from powerbench.report.summary import Results, labels, main_runs
from powerbench.types import SampleKey

APART, ALIKE = 2, 1
"""Problems of a task that are shown: with unlike verdicts, and with all responses right."""

MAX_CHARACTERS = 4000
"""Of a response: the browser of responses has all of it."""

RIGHT, WRONG = ("correct", "win"), ("wrong", "loss")


class Side(NamedTuple):
    """One sampler's response: that of its lowest replicate."""

    sampler: str
    model: str
    replicate: int
    score: str
    text: str
    left_out: int
    """Characters."""
    tokens: int


class Sides(NamedTuple):
    """One problem."""

    task: str
    problem: str
    prompt: str
    gold: str
    sides: Sequence[Side]


class Verdicts(NamedTuple):
    """What the runs of a task made of one problem."""

    problem: str
    keys: Sequence[SampleKey]
    """A response of each run, in their order."""
    scores: Sequence[str]

    @property
    def apart(self) -> bool:
        """Whether some are right and some are wrong."""
        return any(s in RIGHT for s in self.scores) and any(s in WRONG for s in self.scores)

    @property
    def alike(self) -> bool:
        return all(s in RIGHT for s in self.scores)


def side_by_side(results: Sequence[Results]) -> list[Sides]:
    """Of each task that several main runs have, trained checkpoints among them, a few problems.

    First those where power sampling is right and another is wrong; of equals, the first in the task's order.
    """
    shown = main_runs(results)
    found = []
    for task in dict.fromkeys(r.summary.task for r in shown):
        runs = [r for r in shown if r.summary.task == task and r.samples]
        if len(runs) > 1:
            chosen = _chosen(list(_verdicts(runs)), [r.summary.sampler for r in runs])
            found += [_sides(runs, each) for each in chosen]
    return found


def _verdicts(runs: Sequence[Results]) -> Iterator[Verdicts]:
    """Of the problems that all of them have answered."""
    lowest: list[dict[str, SampleKey]] = []
    for run in runs:
        first: dict[str, SampleKey] = {}
        for key in sorted(run.samples, reverse=True):
            first[key.problem] = key
        lowest.append(first)
    for problem in runs[0].problems:
        if all(problem in first for first in lowest):
            keys = [first[problem] for first in lowest]
            scores = [score_name(r.scores.get(k)) for r, k in zip(runs, keys, strict=True)]
            yield Verdicts(problem, keys, scores)


def _chosen(every: Sequence[Verdicts], samplers: Sequence[str]) -> list[Verdicts]:
    def power_is_wrong(each: Verdicts) -> bool:
        own = [s for name, s in zip(samplers, each.scores, strict=True) if name == "power"]
        return not any(s in RIGHT for s in own)

    apart = sorted((v for v in every if v.apart), key=power_is_wrong)
    return [*apart[:APART], *islice((v for v in every if v.alike), ALIKE)]


def _sides(runs: Sequence[Results], found: Verdicts) -> Sides:
    names = labels([r.summary for r in runs])
    sides = []
    for r, name, key, score in zip(runs, names, found.keys, found.scores, strict=True):
        sample = r.texts([key])[key]
        cut = sample.text[:MAX_CHARACTERS]
        left, length = len(sample.text) - len(cut), len(sample.tokens)
        sides.append(Side(name, r.summary.model, key.replicate, score, cut, left, length))
    problem = runs[0].problems[found.problem]
    task = runs[0].summary.task
    return Sides(task, found.problem, problem.prompt.text, problem.gold, sides)
