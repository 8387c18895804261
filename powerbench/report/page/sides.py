"""Responses of all samplers to one problem, side by side (the paper's Tables 2 to 5)."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from powerbench.report.labels import labels, main_runs
from powerbench.report.page.data import PER_CHUNK, PageData
from powerbench.report.summary import Results

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


class Shown(NamedTuple):
    """One response that the page holds."""

    replicate: int
    score: str
    text: str
    tokens: int


Lowest = dict[str, Shown]
"""By problem: the response with the lowest replicate."""


def side_by_side(results: Sequence[Results], data: PageData) -> list[Sides]:
    """Of each task that several main runs have, trained checkpoints among them, a few problems.

    First those where power sampling is right and another is wrong; of equals, the first in the task's order.
    data: the page's responses; no others are read.
    """
    main, lowest = main_runs(results), _lowest(data, len(results))
    found = []
    for task in dict.fromkeys(r.summary.task for r in main):
        runs = [
            (r, own)
            for r, own in zip(results, lowest, strict=True)
            if r.summary.task == task and own and any(r is each for each in main)
        ]
        if len(runs) > 1:
            common = [p for p in runs[0][0].problems if all(p in own for _, own in runs)]
            verdicts = {p: [own[p].score for _, own in runs] for p in common}
            chosen = _chosen(verdicts, [r.summary.sampler for r, _ in runs])
            found += [_sides(runs, problem) for problem in chosen]
    return found


def _lowest(data: PageData, runs: int) -> list[Lowest]:
    """Of each run."""
    found: list[Lowest] = [{} for _ in range(runs)]
    for i, row in enumerate(data.index["responses"]):
        own, problem = found[row["run"]], data.index["problems"][row["problem"]]
        if problem not in own or row["replicate"] < own[problem].replicate:
            text = data.chunks[i // PER_CHUNK]["responses"][i % PER_CHUNK]["text"]
            own[problem] = Shown(row["replicate"], row["score"], text, row["tokens"])
    return found


def _chosen(verdicts: Mapping[str, Sequence[str]], samplers: Sequence[str]) -> list[str]:
    """verdicts: of each run, by problem."""

    def power_is_wrong(problem: str) -> bool:
        own = zip(samplers, verdicts[problem], strict=True)
        return not any(name == "power" and score in RIGHT for name, score in own)

    apart = [p for p, each in verdicts.items() if {*RIGHT} & {*each} and {*WRONG} & {*each}]
    alike = [p for p, each in verdicts.items() if all(score in RIGHT for score in each)]
    return [*sorted(apart, key=power_is_wrong)[:APART], *alike[:ALIKE]]


def _sides(runs: Sequence[tuple[Results, Lowest]], problem: str) -> Sides:
    names = labels([r.summary for r, _ in runs])
    sides = []
    for (r, own), name in zip(runs, names, strict=True):
        replicate, score, text, tokens = own[problem]
        cut = text[:MAX_CHARACTERS]
        left = len(text) - len(cut)
        sides.append(Side(name, r.summary.model, replicate, score, cut, left, tokens))
    first = runs[0][0]
    shown = first.problems[problem]
    return Sides(first.summary.task, problem, shown.prompt.text, shown.gold, sides)
