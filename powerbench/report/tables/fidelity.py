"""The ledger of departures from the official code: each with its setting, and its effect in a report's runs.

The ledger is conf/without: see its nothing.yaml.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from itertools import permutations
from statistics import fmean
from typing import Any, NamedTuple

import yaml

from powerbench.config import conf_dir
from powerbench.report.labels import labels
from powerbench.report.samples import SampleStats
from powerbench.report.summary import Results, Summary
from powerbench.report.tables.paired import signed, values
from powerbench.report.tables.table import Cell, Column, Table, line
from powerbench.stats.intervals import Estimate, pass_at_k, student
from powerbench.stats.paired import paired_difference

SUBSETS = 200
"""Over which the official code averages pass@k."""

WITH_SETTINGS = re.compile(r"^# (\d+): (.+)$", re.M)
WITHOUT_SETTINGS = re.compile(r"^# (\d+): (.+)\n#    (.+)$", re.M)


class Departure(NamedTuple):
    """An entry of the ledger."""

    number: int
    departure: str
    left_out: Mapping[str, Any]
    """The settings of a sampler without it; empty where no setting of a sampler leaves it out."""
    without: str | None = None
    """The yaml of conf/without that has these settings."""
    instead: str = ""
    """Why no setting of a sampler leaves it out."""

    @property
    def setting(self) -> str:
        """The settings that reproduce it, or why there is none."""
        return ", ".join(f"sampler.{key}" for key in self.left_out) or self.instead


class Contrast(NamedTuple):
    """Two runs that differ in one departure alone."""

    there: Results
    left_out: Results


@cache
def departures() -> tuple[Departure, ...]:
    """All of them, by number."""
    found = []
    for file in (conf_dir() / "without").glob("*.yaml"):
        text, settings = (
            file.read_text(encoding="utf-8"),
            yaml.safe_load(file.read_text(encoding="utf-8")),
        )
        if settings:
            ((number, what),) = WITH_SETTINGS.findall(text)
            found.append(Departure(int(number), what, settings, without=file.stem))
        else:
            entries = WITHOUT_SETTINGS.findall(text)
            found += [Departure(int(n), what, {}, instead=why) for n, what, why in entries]
    return tuple(sorted(found, key=lambda departure: departure.number))


def ledger() -> str:
    """The ledger alone as a table in markdown: what the README of the samplers has."""
    rows = [["", "departure", "setting"], ["---", "---", "---"]]
    for d in departures():
        settings = ", ".join(f"`sampler.{key}`" for key in d.left_out)
        rows.append([str(d.number), d.departure, settings or d.instead])
    return "\n".join(map(line, rows)) + "\n"


def contrasts(departure: Departure, results: Sequence[Results]) -> list[Contrast]:
    """The pairs of these runs that show what a departure does."""
    out = departure.left_out
    there = [r for r in results if r.samples] if out else []
    return [Contrast(a, b) for a, b in permutations(there, 2) if _differ_in(a, b, out)]


def _differ_in(there: Results, left_out: Results, out: Mapping[str, Any]) -> bool:
    a, b = there.summary, left_out.summary
    known = set(out) & set(a.settings)
    expected = {**a.settings, **{k: out[k] for k in known}}
    differ = bool(known) and a.sampler == b.sampler and a.settings != b.settings == expected
    return differ and _around(there) == _around(left_out)  # last, for it reads files


def _around(results: Results) -> list[Any]:
    """The settings beside the sampler's that change samples."""
    config = results.run.config
    return [config["task"], config["model"], config.get("seed")]


# -- the table ------------------------------------------------------------------------------------

COLUMNS = (
    Column("#"),
    Column("departure"),
    Column("setting"),
    Column("measured on", "the run that has the departure, beside the same run without it"),
    Column(
        "value, difference [95%]",
        "of the run with the departure less the one without, paired by problem",
    ),
    Column("log p / token, difference [95%]", "nats per token", "+.3f"),
    Column("tokens, difference [95%]", "of the mean length", "+.1f"),
)


def table(results: Sequence[Results]) -> Table:
    """The ledger."""
    rows: list[tuple[Cell, ...]] = []
    names = dict(zip(map(id, results), labels([r.summary for r in results]), strict=True))
    for departure in departures():
        effects = list(_effects(departure, results, names)) or [
            ("not measured here", None, None, None)
        ]
        for n, effect in enumerate(effects):
            about = [f"{departure.number}", departure.departure, departure.setting]
            rows.append((*(about if n == 0 else ["", "", ""]), *effect))
    return Table("fidelity", "Fidelity", COLUMNS, rows, names=4)


def _effects(
    departure: Departure, results: Sequence[Results], names: Mapping[int, str]
) -> Iterator[tuple[Cell, ...]]:
    """names: the runs' labels, by the id of their results."""
    if departure.number == 8:
        yield from _subsets(results)
    elif departure.number == 9:
        yield from _unanswered(results)
    for there, left_out in contrasts(departure, results):
        s = there.summary
        name = f"{s.task} · {s.model} · {names[id(there)]}"
        logps = [{k: m.logp for k, m in r.samples.items()} for r in (there, left_out)]
        if logps[0] == logps[1] and None not in logps[0].values():
            yield f"{name}: none, the same responses", None, None, None
            continue
        value = paired_difference(values(left_out), values(there))
        yield (
            name,
            signed(value) if value is not None else None,
            _change(there, left_out, lambda m: m.logp_per_token),
            _change(there, left_out, lambda m: float(m.tokens)),
        )


def _change(
    there: Results, left_out: Results, of: Callable[[SampleStats], float | None]
) -> Estimate | None:
    """The difference of a mean over responses, with its interval over problems."""
    means = [_means(there, of), _means(left_out, of)]
    common = {p: [means[0][p] - means[1][p]] for p in means[0] if p in means[1]}
    return student(common) if common else None


def _means(results: Results, of: Callable[[SampleStats], float | None]) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    for key, sample in results.samples.items():
        value = of(sample)
        if value is not None:
            found.setdefault(key.problem, []).append(value)
    return {problem: fmean(each) for problem, each in found.items()}


def _subsets(results: Sequence[Results]) -> Iterator[tuple[Cell, ...]]:
    """The most noise that subsets add to a point of a curve of these runs: exact, for independent subsets.

    HumanEval's curves are the unbiased estimator's there too.
    """
    averaged = [r for r in results if not (r.summary.verifier or "").startswith("code")]
    points = [point for r in averaged if len(r.summary.pass_at_k) > 2 for point in _noises(r)]
    if points:
        noise, k, s = max(points, key=lambda point: point[0])
        where = f"{s.task} · {s.model} · {s.sampler}"
        yield f"{where}: a standard error of {noise:.4f} is added at k = {k}", None, None, None


def _noises(results: Results) -> Iterator[tuple[float, int, Summary]]:
    counts = [(len(v), round(sum(v))) for v in values(results).values()]
    most = max(n for n, _ in counts)
    full = [correct for n, correct in counts if n == most]
    for k in range(1, most):
        chances = [pass_at_k(most, correct, k) for correct in full]
        spread = sum(p * (1 - p) for p in chances) / SUBSETS
        yield spread**0.5 / len(chances), k, results.summary


def _unanswered(results: Sequence[Results]) -> Iterator[tuple[Cell, ...]]:
    """The number of responses that it could concern."""
    for r in results:
        s = r.summary
        if s.sampler == "power_official" and not s.changes and s.verifier == "math" and r.scores:
            none = sum(score.answer is None for score in r.scores.values())
            yield (
                f"{s.task} · {s.model} · {s.sampler}: {none:,} of {len(r.scores):,} responses hold no answer; "
                "wrong in either case",
                None,
                None,
                None,
            )
