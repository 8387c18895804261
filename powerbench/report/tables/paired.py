"""Samplers compared two by two on the problems that both have answered, with the cost of the difference."""

from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations, groupby
from typing import Any, NamedTuple

from powerbench.report.chosen import decoded
from powerbench.report.labels import labels, main_runs, sort_key
from powerbench.report.summary import Results
from powerbench.report.tables.table import Column, Table, TextCell
from powerbench.stats.paired import FEW, Difference, holm, paired_difference

MAX_PAIRWISE = 8
"""Runs of a task and model up to which each is compared with each; of more, each with low temperature."""

DETECTABLE = Column(
    "detectable",
    "the smallest true difference that four of five such comparisons would show at the 5% level",
    ".3f",
)

COLUMNS = (
    Column("task"),
    Column("model"),
    Column("compared"),
    Column(
        "difference [95%]",
        "the first named's mean value less the other's, over the problems that both have answered; of more "
        f"than {MAX_PAIRWISE} samplers each is compared with low temperature alone",
    ),
    DETECTABLE,
    Column(
        "p",
        "of no difference: McNemar's exact test (one right or wrong answer a problem), a bootstrap over "
        f"problems, or sign flips (fewer than {FEW} problems differ, and most do not)",
    ),
    Column("p, corrected", "by Holm's method, for all comparisons of a task and model"),
    Column("problems"),
    Column("test"),
    Column(
        "tokens, ratio",
        "what the second decoded for each token that the first decoded, a response",
        ".2f",
    ),
    Column("passes, ratio", "the same of decoding passes", ".2f"),
)


class PairedRuns(NamedTuple):
    """Two runs of one task and model."""

    task: str
    model: str
    first: str
    second: str
    difference: Difference
    corrected: float
    """The p-value, for all pairs of this task and model."""
    tokens: float | None
    """Tokens that the second decoded a response, over those of the first."""
    passes: float | None
    """The same of decoding passes."""


def pairs(results: Sequence[Results]) -> list[PairedRuns]:
    """Every two main runs of a task and model that their own verifier has scored."""
    shown = main_runs(results)
    named = zip(shown, labels([r.summary for r in shown]), strict=True)
    ordered = sorted(named, key=lambda each: sort_key(each[0].summary))
    found = []
    for _, group in groupby(ordered, lambda each: (each[0].summary.task, each[0].summary.model)):
        found += _group([each for each in group if each[0].summary.value is not None])
    return found


def table(results: Sequence[Results]) -> Table:
    """All comparisons."""
    rows = [
        (
            pair.task,
            pair.model,
            f"{pair.second} over {pair.first}",
            signed(pair.difference),
            pair.difference.detectable,
            p_cell("p", pair.difference.p),
            p_cell("p, corrected", pair.corrected),
            pair.difference.n,
            pair.difference.test,
            pair.tokens,
            pair.passes,
        )
        for pair in pairs(results)
    ]
    return Table("compared", "Samplers compared", COLUMNS, rows, by=2)


def signed(d: Difference, form: str = "+.3f") -> TextCell:
    """A difference with its interval, and its sign."""
    shown = f"{d.mean:{form}} [{d.low:{form}}, {d.high:{form}}]".replace("-", "−")
    values = {"difference": d.mean, "difference, low": d.low, "difference, high": d.high}
    return TextCell(shown, values)


def _with_one(runs: Sequence[tuple[Results, str]]) -> list[tuple[Any, Any]]:
    """Each beside low temperature, or the first, if that is not there."""
    one = next((each for each in runs if each[0].summary.sampler == "low_temp"), runs[0])
    return [(one, each) for each in runs if each is not one]


def _group(runs: Sequence[tuple[Results, str]]) -> list[PairedRuns]:
    both = combinations(runs, 2) if len(runs) <= MAX_PAIRWISE else _with_one(runs)
    compared = [
        (first, second, difference)
        for first, second in both
        if (difference := paired_difference(values(first[0]), values(second[0]))) is not None
    ]
    corrected = holm([difference.p for _, _, difference in compared])
    return [
        PairedRuns(
            task=first.summary.task,
            model=first.summary.model,
            first=first_name,
            second=second_name,
            difference=difference,
            corrected=p,
            tokens=_ratio(decoded(second), decoded(first)),
            passes=_ratio(passes(second), passes(first)),
        )
        for ((first, first_name), (second, second_name), difference), p in zip(
            compared, corrected, strict=True
        )
    ]


def values(results: Results) -> dict[str, list[float]]:
    """The decided scores, by problem."""
    found = defaultdict(list)
    for key, score in results.scores.items():
        if score.value is not None:
            found[key.problem].append(score.value)
    return found


def passes(results: Results) -> float:
    """Decoding passes a response, mean; 0 where they are not known."""
    return (results.summary.passes or 0) / max(1, results.summary.responses)


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def p_cell(name: str, p: float) -> TextCell:
    """A p-value, as it is shown."""
    return TextCell("< 0.001" if p < 0.001 else f"{p:.3f}", {name: p})
