"""Samplers compared two by two on the problems that both have answered, at what the difference cost."""

from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations, groupby
from typing import NamedTuple

from powerbench.paired import Difference, compare, holm
from powerbench.report.summary import Results, labels, rank
from powerbench.report.tables import NOTHING, line

MOST = 6
"""Runs of a task and model that are all compared with each other; of more, each with the first."""

HEADINGS = (
    "compared",
    "difference [95%]",
    "p",
    "p, corrected",
    "problems",
    "test",
    "tokens, ratio",
)
MEANING = (
    "The second sampler's mean value minus the first's, over the problems that both have answered, with a "
    "95% interval; p: of no difference, by McNemar's exact test (one right or wrong answer a problem) or "
    "a bootstrap over problems; corrected: by Holm's method, for all comparisons of a task and model; "
    "tokens: what the second decoded for each token that the first decoded, a response."
)


class Pair(NamedTuple):
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

    @property
    def cells(self) -> tuple[str, ...]:
        """In the order of HEADINGS."""
        d = self.difference
        return (
            f"{self.second} over {self.first}",
            f"{d.mean:+.3f} [{d.low:+.3f}, {d.high:+.3f}]".replace("-", "−"),
            _p(d.p),
            _p(self.corrected),
            f"{d.n:,}",
            d.test,
            NOTHING if self.tokens is None else f"{self.tokens:.2f}",
        )


def pairs(results: Sequence[Results]) -> list[Pair]:
    """Every two runs of a task and model that their own verifier has scored."""
    named = zip(results, labels([r.summary for r in results]), strict=True)
    ordered = sorted(named, key=lambda each: rank(each[0].summary))
    found = []
    for _, group in groupby(ordered, lambda each: (each[0].summary.task, each[0].summary.model)):
        found += _group([each for each in group if each[0].summary.value is not None])
    return found


def markdown(results: Sequence[Results]) -> str:
    """A section on all comparisons; empty if there is none."""
    sections = []
    for (task, model), group in groupby(pairs(results), lambda pair: (pair.task, pair.model)):
        rows = [line(HEADINGS), line(["---", *("---:" for _ in HEADINGS[1:])])]
        rows += [line(pair.cells) for pair in group]
        sections.append(f"### {task} · {model}\n\n" + "\n".join(rows))
    return "\n\n".join(["## Samplers compared", *sections, MEANING]) + "\n" if sections else ""


def _group(runs: Sequence[tuple[Results, str]]) -> list[Pair]:
    both = combinations(runs, 2) if len(runs) <= MOST else ((runs[0], each) for each in runs[1:])
    compared = [
        (first, second, difference)
        for first, second in both
        if (difference := compare(_values(first[0]), _values(second[0]))) is not None
    ]
    corrected = holm([difference.p for _, _, difference in compared])
    return [
        Pair(
            task=first.summary.task,
            model=first.summary.model,
            first=first_name,
            second=second_name,
            difference=difference,
            corrected=p,
            tokens=_ratio(_decoded(second), _decoded(first)),
        )
        for ((first, first_name), (second, second_name), difference), p in zip(
            compared, corrected, strict=True
        )
    ]


def _values(results: Results) -> dict[str, list[float]]:
    """The decided verdicts, by problem."""
    values = defaultdict(list)
    for key, score in results.scores.items():
        if score.value is not None:
            values[key.problem].append(score.value)
    return values


def _decoded(results: Results) -> float:
    return sum(s.decoded for s in results.samples.values()) / max(1, len(results.samples))


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
