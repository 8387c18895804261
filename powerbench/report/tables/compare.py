"""Samplers side by side at equal tokens and at equal wall-clock: what each makes of the same budget.

A budget buys a sampler so many responses of a problem; of these the likeliest as a whole is taken. Where it
buys a fraction, it is the one whole number or the next by chance, so that the mean is right. All expectations
are exact over the subsets of the responses that there are.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from powerbench.errors import require
from powerbench.report.summary import Results, labels, main
from powerbench.report.tables.equal_cost import ROUNDING, Best, decoded, mixed
from powerbench.report.tables.table import Cell, Column, Shown, Table
from powerbench.stats.intervals import Estimate, clustered, distinct, pass_at_k, student
from powerbench.types import SampleKey

GRAM = 4
"""Tokens of the n-grams whose variety is measured."""
FIRST = 4
"""Replicates of a problem whose n-grams are compared: so that runs with more of them can be, too."""


class Budget(NamedTuple):
    """What every sampler may spend on a problem, on average."""

    name: str
    unit: str
    each: Callable[[Results], float | None]
    """What a response of a run costs; None if it is not known."""


TOKENS = Budget("tokens", "tokens decoded", lambda r: decoded(r) or None)
SECONDS = Budget(
    "seconds",
    "seconds of wall-clock",
    lambda r: r.summary.seconds / r.summary.responses if r.summary.seconds else None,
)


def tables(results: Sequence[Results], tokens: float | None, seconds: float | None) -> list[Table]:
    """At equal tokens, at equal wall-clock, and how varied the responses are.

    tokens, seconds: the budgets, for a problem; None takes what a response of the costliest sampler of the task
    and model costs. Raises UserError for a budget that is not positive.
    """
    for name, given in (("--tokens", tokens), ("--seconds", seconds)):
        require(given is None or given > 0, f"{name} must be > 0 for a problem, got {given}")
    shown = main(results)
    return [_at(shown, TOKENS, tokens), _at(shown, SECONDS, seconds), _variety(shown)]


def _columns(budget: Budget) -> tuple[Column, ...]:
    return (
        Column("task"),
        Column("model"),
        Column("sampler"),
        Column("budget", f"{budget.unit} for a problem", ",.2f"),
        Column("a response costs", budget.unit, ",.2f"),
        Column("responses", "that the budget buys", ".2f"),
        Column("value [95%]", "of the likeliest as a whole of so many, mean over problems"),
        Column("problems", "that have so many decided responses: the value is theirs"),
        Column("pass@n [95%]", "chance that any of so many is right"),
        Column(
            "log p / token [95%]", "nats; of a response, whatever the budget; mean over problems"
        ),
    )


def _at(results: Sequence[Results], budget: Budget, given: float | None) -> Table:
    names = labels([r.summary for r in results])
    costs = {id(r): budget.each(r) for r in results}
    most: dict[tuple[str, str], float] = defaultdict(float)
    for r in results:
        where = r.summary.task, r.summary.model
        most[where] = max(most[where], costs[id(r)] or 0.0)
    rows = []
    for r, name in zip(results, names, strict=True):
        s, cost = r.summary, costs[id(r)]
        allowed = given or most[s.task, s.model]
        if not cost or not s.responses:
            continue
        n = allowed / cost
        value, passed, there = _bought(r, n)
        problems = value.n if value else None
        shown = f"{n:.2f}" if there is None else f"{there} of {n:.2f}"
        bought = Shown(shown, {"responses": n, "responses there are": there})
        rows.append(
            (s.task, s.model, name, allowed, cost, bought, value, problems, passed, s.logp_interval)
        )
    title = f"At equal {budget.name}"
    note = (
        "A dash: the budget buys less than one response. `4 of 7.66`: it buys more than there are of a "
        "problem, and those are taken; more replicates would tell."
    )
    return Table(f"compare_{budget.name}", title, _columns(budget), rows, by=2, note=note)


class Bought(NamedTuple):
    """What n responses of a problem are worth."""

    value: Estimate | None
    """Of the likeliest as a whole; None where n is below one."""
    passed: Estimate | None
    """Chance that any is right."""
    there: int | None
    """How many there are, if that is fewer than n: then these are of so many."""


def _bought(results: Results, n: float) -> Bought:
    best = Best(results)
    if not best.most or n < 1 - ROUNDING:
        return Bought(None, None, None)
    there, n = (best.most if n > best.most + ROUNDING else None), min(n, float(best.most))
    found, graded = best.of(n), results.summary.measure == "accuracy"
    passed = {
        problem: [mixed(partial(pass_at_k, len(values), round(sum(values))), n)]
        for problem, values in (best.values(n) if graded else {}).items()
    }
    return Bought(found.value if found else None, clustered(passed) if passed else None, there)


# -- variety --------------------------------------------------------------------------------------

VARIETY = (
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
    Column("pass@k", "at the largest k there is; k in brackets"),
)


def _variety(results: Sequence[Results]) -> Table:
    names = labels([r.summary for r in results])
    rows: list[tuple[Cell, ...]] = []
    for r, name in zip(results, names, strict=True):
        s = r.summary
        if s.replicates < 2:
            continue
        last = s.pass_at_k[-1] if s.pass_at_k else None
        shown = f"{last.mean:.3f} ({last.k})" if last else None
        rows.append((s.task, s.model, name, s.replicates, _answers(r), _grams(r), shown))
    return Table("variety", "Variety", VARIETY, rows, by=2)


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
    """Reads the run once more, for its tokens."""
    wanted = _first(results.samples)
    seen: dict[str, set[tuple[int, ...]]] = defaultdict(set)
    count: dict[str, int] = defaultdict(int)
    for sample in results.run.stream():
        if SampleKey(sample.problem, sample.replicate) in wanted:
            starts = range(len(sample.tokens) - GRAM + 1)
            grams = [sample.tokens[i : i + GRAM] for i in starts]
            seen[sample.problem].update(grams)
            count[sample.problem] += len(grams)
    shares = {p: [len(seen[p]) / n] for p, n in count.items() if n}
    return clustered(shares) if shares else None


def _first(keys: Mapping[SampleKey, object]) -> set[SampleKey]:
    by_problem: dict[str, list[SampleKey]] = defaultdict(list)
    for key in keys:
        by_problem[key.problem].append(key)
    return {key for each in by_problem.values() for key in sorted(each)[:FIRST]}
