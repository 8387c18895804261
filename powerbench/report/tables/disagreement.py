"""Where verifiers disagree: other verifiers' scores of the responses that a run's own verifier has scored."""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from powerbench.report.labels import labels
from powerbench.report.selection import Selection
from powerbench.report.summary import Results, mean_value
from powerbench.report.tables.table import text
from powerbench.stats.intervals import Estimate
from powerbench.types import SampleKey, Score

SHOWN = 20
"""Disagreements that the markdown report lists for each pair of verifiers."""


class Comparison(NamedTuple):
    """Another verifier beside the run's own, on the responses of one run."""

    own: str
    other: str
    value: Estimate | None
    """The mean score by the other."""
    undecided: int
    """Responses on which the other could not decide."""
    both: int
    """Responses on which both have decided."""
    disagreements: tuple[SampleKey, ...]


def disagree(one: Score, other: Score) -> bool:
    """Whether both have decided, and not alike: right against wrong, a win against a loss."""
    if one.value is None or other.value is None:
        return False
    return (one.value - 0.5) * (other.value - 0.5) < 0


def verifier_agreement(results: Results) -> list[Comparison]:
    """Every other verifier that has scored the run, beside its own."""
    own, *others = results.all_scores or [""]
    return [_comparison(results, own, other) for other in others]


def line(comparison: Comparison) -> str:
    """One comparison in a line for the terminal."""
    c = comparison
    return (
        f"{c.other}: {text(c.value)}, {c.undecided} undecided; "
        f"disagrees with {c.own} on {len(c.disagreements)} of {c.both} responses"
    )


def markdown(results: Sequence[Results], selection: Selection) -> str:
    """A section on all runs that several verifiers have scored; empty if there is none."""
    names = labels([r.summary for r in results])
    compared = [
        _section(f"{r.summary.task} · {r.summary.model} · {name}", r, set(shown))
        for r, name, shown in zip(results, names, selection.runs, strict=True)
        if len(r.all_scores) > 1
    ]
    return "\n\n".join(["## Where verifiers disagree", *compared]) + "\n" if compared else ""


def _comparison(results: Results, own: str, other: str) -> Comparison:
    mine, theirs = results.all_scores[own], results.all_scores[other]
    common = [key for key in mine if key in theirs]
    decided = [k for k in common if mine[k].value is not None and theirs[k].value is not None]
    return Comparison(
        own=own,
        other=other,
        value=mean_value(theirs),
        undecided=sum(score.value is None for score in theirs.values()),
        both=len(decided),
        disagreements=tuple(key for key in decided if disagree(mine[key], theirs[key])),
    )


def _section(title: str, results: Results, shown: Collection[SampleKey]) -> str:
    """shown: the run's responses on the page."""
    lines = [f"### {title}"]
    for c in verifier_agreement(results):
        rows, more = c.disagreements[:SHOWN], c.disagreements[SHOWN:]
        readable = sum(key in shown for key in more)
        where = "" if readable == len(more) else f"{readable:,} of them "
        lines += ["", line(c) + (":" if rows else "."), ""]
        lines += [_item(c, key, results.all_scores) for key in rows]
        lines += [f"- and {len(more)} more, {where}on the page"] if more else []
    return "\n".join(lines).rstrip()


def _item(
    c: Comparison, key: SampleKey, all_scores: Mapping[str, Mapping[SampleKey, Score]]
) -> str:
    said = "; ".join(
        f"{verifier}: {value:g} ({score.reason})"
        for verifier in (c.own, c.other)
        if (value := (score := all_scores[verifier][key]).value) is not None
    )
    answer = all_scores[c.own][key].answer
    answer = f" `{' '.join(answer.split())[:80]}`" if answer else ""
    return f"- {key.problem}, replicate {key.replicate}{answer}: {said}"
