"""How varied the responses to a problem are: their answers, and the n-grams of their tokens."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from powerbench.report.labels import labels, main_runs
from powerbench.report.summary import Results
from powerbench.report.tables.table import Cell, Column, Table
from powerbench.stats.intervals import Estimate, clustered, distinct, student
from powerbench.types import SampleKey

GRAM = 4
"""Tokens of the n-grams whose variety is measured."""
FIRST = 4
"""Replicates of a problem whose n-grams are compared, so that runs with different numbers of replicates can
be compared."""

COLUMNS = (
    Column("task"),
    Column("model"),
    Column("sampler"),
    Column("replicates"),
    Column(
        "distinct answers [95%]",
        f"among {FIRST} responses of a problem, expected over all subsets (fewer, where there are fewer); "
        "responses without an answer count as one",
        ".2f",
    ),
    Column(
        f"distinct {GRAM}-grams [95%]",
        f"of tokens, among all in the first {FIRST} responses of a problem",
        ".1%",
    ),
    Column("pass@k", "at the largest k available; k in brackets"),
)


def table(results: Sequence[Results]) -> Table:
    """Every main run with several replicates."""
    shown = main_runs(results)
    rows: list[tuple[Cell, ...]] = []
    for r, name in zip(shown, labels([r.summary for r in shown]), strict=True):
        s = r.summary
        if s.replicates < 2:
            continue
        last = s.pass_at_k[-1] if s.pass_at_k else None
        pass_at_k = f"{last.mean:.3f} ({last.k})" if last else None
        rows.append((s.task, s.model, name, s.replicates, _answers(r), _grams(r), pass_at_k))
    return Table("variety", "Variety", COLUMNS, rows, by=2)


def _answers(results: Results) -> Estimate | None:
    answers: dict[str, dict[str | None, int]] = defaultdict(lambda: defaultdict(int))
    for key, score in results.scores.items():
        answers[key.problem][score.answer] += 1
    several = {
        p: list(counts.values()) for p, counts in answers.items() if sum(counts.values()) > 1
    }
    if not several:
        return None
    return student(
        {p: [distinct(counts, min(FIRST, sum(counts)))] for p, counts in several.items()}
    )


def _grams(results: Results) -> Estimate | None:
    """Reads the tokens of these responses alone."""
    places = [results.samples[key].place for key in _first(results.samples)]
    seen: dict[str, set[tuple[int, ...]]] = defaultdict(set)
    count: dict[str, int] = defaultdict(int)
    for sample in results.run.at(places):
        starts = range(len(sample.tokens) - GRAM + 1)
        grams = [sample.tokens[i : i + GRAM] for i in starts]
        seen[sample.problem].update(grams)
        count[sample.problem] += len(grams)
    shares = {p: [len(seen[p]) / n] for p, n in count.items() if n}
    return clustered(shares) if shares else None


def _first(keys: Iterable[SampleKey]) -> list[SampleKey]:
    """The FIRST lowest replicates of each problem, in the order of `keys`."""
    by_problem: dict[str, list[SampleKey]] = defaultdict(list)
    every = list(keys)
    for key in every:
        by_problem[key.problem].append(key)
    first = {key for each in by_problem.values() for key in sorted(each)[:FIRST]}
    return [key for key in every if key in first]
