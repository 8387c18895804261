"""Runs that differ in one number of their sampler's settings: the points of a curve (Figure 6)."""

import json
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

from powerbench.report.labels import sort_key
from powerbench.report.summary import Results

MIN_POINTS = 3
"""Values of a setting from which on its runs are a curve."""


class Point(NamedTuple):
    """One run of a series."""

    x: float
    results: Results


class Series(NamedTuple):
    """A sampler on a task with a model, by the values of one of its settings."""

    task: str
    model: str
    sampler: str
    setting: str
    points: tuple[Point, ...]
    """In ascending order."""


def series(results: Sequence[Results]) -> list[Series]:
    """All series, of the settings that runs change: a sampler's main run is a point of each."""
    grouped = defaultdict(list)
    for each in sorted(results, key=lambda r: sort_key(r.summary)):
        s = each.summary
        grouped[s.task, s.model, s.sampler].append(each)
    found = []
    for (task, model, sampler), runs in grouped.items():
        changed = dict.fromkeys(k for r in runs for k in r.summary.changes)
        for setting in changed:
            points = _points(runs, setting)
            if len({p.x for p in points}) >= MIN_POINTS:
                found.append(Series(task, model, sampler, setting, tuple(points)))
    return found


def _points(runs: Sequence[Results], setting: str) -> list[Point]:
    """Those that change nothing but this setting, if it is a number, and have responses.

    Of several sets that differ in what all samplers share, the one with the most runs.
    """
    alike: dict[str, list[Point]] = defaultdict(list)
    for r in runs:
        s = r.summary
        value, rest = s.settings.get(setting), {k: v for k, v in s.settings.items() if k != setting}
        if set(s.changes) <= {setting} and _is_number(value) and r.samples:
            alike[json.dumps(rest, sort_keys=True)].append(Point(float(s.settings[setting]), r))
    most: list[Point] = max(alike.values(), key=lambda points: len(points), default=[])
    return sorted(most, key=lambda p: p.x)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
