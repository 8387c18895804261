"""Samplers at equal cost: best-of-n of a plain sampler beside each costlier one, and all at one budget.

Where a budget buys a fraction of a response, it is the one whole number or the next by chance, so that the
mean is right. All expectations are exact over the subsets of a run's responses.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count, takewhile
from math import ceil, floor
from typing import NamedTuple

from powerbench.errors import require
from powerbench.report.summary import Results, labels, main_runs
from powerbench.report.tables.paired import DETECTABLE, decoded, passes, signed, values
from powerbench.report.tables.table import Column, Table, TextCell
from powerbench.stats.intervals import Estimate, best_of, clustered, pass_at_k
from powerbench.stats.paired import paired_difference

ROUNDING = 1e-9
"""Difference up to which a number of responses counts as a whole number."""

Values = dict[str, list[float]]
"""By problem."""


class BestOf(NamedTuple):
    """The response that is likeliest as a whole among n responses to a problem."""

    n: int
    tokens: float
    """Decoded for a problem, mean."""
    value: Estimate
    problems: Values
    """The expected value of each."""


def is_plain(results: Results) -> bool:
    """Whether it decodes its responses alone, each token once."""
    cost = results.summary.decoded_per_token
    return cost is not None and cost < 1 + 1e-9


def mixed(at: Callable[[int], float], n: float) -> float:
    """A quantity of a whole number of responses, for a number n >= 1 between two of them."""
    low = max(1, floor(n + ROUNDING))
    weight = n - low
    return at(low) if weight <= ROUNDING else (1 - weight) * at(low) + weight * at(low + 1)


class Best:
    """Best-of-n of a run's decided responses: exact, over the problems that have n or more."""

    def __init__(self, results: Results) -> None:
        self._ranked: dict[str, list[tuple[float, float]]] = defaultdict(list)
        self._known = True
        for key, score in results.scores.items():
            if score.value is not None:
                logp = results.samples[key].logp
                self._known = self._known and logp is not None
                self._ranked[key.problem].append((logp or 0.0, score.value))
        self.most = max(map(len, self._ranked.values()), default=0)
        """The most decided responses that a problem has."""
        self.tokens = decoded(results)
        """Decoded a response, mean."""

    @property
    def means_something(self) -> bool:
        """Whether there is something to choose from, and by: greedy responses differ by rounding alone, and of
        an endpoint's nobody knows which is likeliest."""
        each = self._ranked.values()
        return (
            self._known
            and self.most > 1
            and any(len({round(logp, 2) for logp, _ in x}) > 1 for x in each)
        )

    def values(self, n: float) -> Values:
        """The values of every response of the problems that have n or more."""
        having = {p: found for p, found in self._ranked.items() if len(found) >= ceil(n - ROUNDING)}
        return {problem: [value for _, value in found] for problem, found in having.items()}

    def of(self, n: float) -> BestOf | None:
        """The likeliest of n; between two whole numbers the one or the other by chance, so that the mean is
        right. n below one is one. None if no problem has n, or if it is not known which is likeliest.
        """
        n = max(1.0, n)
        there = self.values(n)
        if not there or (n > 1 and not self._known):
            return None
        found = {p: [mixed(partial(best_of, ranked=self._ranked[p]), n)] for p in there}
        estimate = clustered(there if n == 1 else found)
        return BestOf(floor(n + ROUNDING), n * self.tokens, estimate, found)

    def curve(self) -> list[BestOf]:
        """For every n up to 16, then for its powers of two, and for the largest."""
        powers = takewhile(lambda n: n < self.most, (2**i for i in count(5)))
        ns = sorted({*range(1, min(16, self.most) + 1), *powers, self.most})
        return [found for n in ns if (found := self.of(n)) is not None]


# -- budgets --------------------------------------------------------------------------------------


class Budget(NamedTuple):
    """The mean cost that every sampler may have for a problem."""

    name: str
    unit: str
    each: Callable[[Results], float | None]
    """The cost of a response of a run; None if it is not known."""


TOKENS = Budget("tokens", "tokens decoded", lambda r: decoded(r) or None)
PASSES = Budget("passes", "decoding passes", lambda r: passes(r) or None)
SECONDS = Budget(
    "seconds",
    "seconds of wall-clock",
    lambda r: r.summary.seconds / r.summary.responses if r.summary.seconds else None,
)


# -- beside each costlier sampler ----------------------------------------------------------------


def table(results: Sequence[Results]) -> Table:
    """Every main run of a costlier sampler beside every plain one of its task and model, at equal tokens."""
    return _beside(results, TOKENS, "matched")


def table_of_passes(results: Sequence[Results]) -> Table:
    """The same at equal passes, of those for which that is another number of responses."""
    return _beside(results, PASSES, "matched_passes", unlike=TOKENS)


def _beside(
    results: Sequence[Results], budget: Budget, name: str, unlike: Budget | None = None
) -> Table:
    """unlike: leaves out those that may have as many responses by this budget too."""
    shown = [r for r in main_runs(results) if r.summary.value is not None]
    named = list(zip(shown, labels([r.summary for r in shown]), strict=True))
    plain = [(Best(r), each, r) for r, each in named if is_plain(r)]
    rows = []
    for chain, sampler in ((r, each) for r, each in named if not is_plain(r)):
        for best, other, r in plain:
            s, share = r.summary, _share(chain, r, budget)
            same = (chain.summary.task, chain.summary.model) == (s.task, s.model)
            if not same or not best.means_something or share is None:
                continue
            if unlike is not None and share == _share(chain, r, unlike):
                continue
            found = best.of(share)
            difference = paired_difference(found.problems, values(chain)) if found else None
            rows.append(
                (
                    s.task,
                    s.model,
                    sampler,
                    budget.each(chain),
                    chain.summary.value,
                    _instead(share, other, best.most),
                    found.value if found else None,
                    signed(difference) if difference else None,
                    difference.detectable if difference else None,
                    difference.n if difference else None,
                )
            )
    columns = (
        Column("task"),
        Column("model"),
        Column("sampler"),
        Column(budget.name, f"{budget.unit} a response, rejected proposals included", ",.0f"),
        Column("value [95%]", "of the sampler"),
        Column(
            "instead",
            f"the likeliest as a whole of that many responses, for the same {budget.name}",
        ),
        Column("value instead [95%]", "exact over all subsets of the responses"),
        Column("difference [95%]", "the sampler's value less the other's, paired by problem"),
        DETECTABLE,
        Column("problems", "that both have; of the other, those with that many decided responses"),
    )
    return Table(name, f"The same {budget.name}, spent otherwise", columns, rows, by=2)


def _share(chain: Results, plain: Results, budget: Budget) -> float | None:
    """How many responses of a plain run cost what one of a chain does; None if it is not known."""
    cost, each = budget.each(chain), budget.each(plain)
    return cost / each if cost and each else None


def _instead(share: float, sampler: str, most: int) -> TextCell:
    short = f" (there are {most})" if share > most else ""
    shown = f"best of {max(1.0, share):.1f} {sampler}{short}"
    return TextCell(shown, {"sampler instead": sampler, "n instead": max(1.0, share)})


# -- at one budget --------------------------------------------------------------------------------


def at_equal_budgets(
    results: Sequence[Results],
    tokens: float | None,
    passes: float | None,
    seconds: float | None,
) -> list[Table]:
    """Every main run at equal tokens, at equal decoding passes, and at equal wall-clock.

    A budget buys a sampler a number of responses to a problem; of these the likeliest as a whole is taken.

    tokens, passes, seconds: the budgets, for a problem; None takes the cost of a response of the costliest
    sampler of the task and model. Raises UserError for a budget that is not positive.
    """
    budgets = ((TOKENS, tokens), (PASSES, passes), (SECONDS, seconds))
    for budget, given in budgets:
        require(
            given is None or given > 0, f"--{budget.name} must be > 0 for a problem, got {given}"
        )
    shown = main_runs(results)
    return [_at(shown, budget, given) for budget, given in budgets]


def _columns(budget: Budget) -> tuple[Column, ...]:
    return (
        Column("task"),
        Column("model"),
        Column("sampler"),
        Column("budget", f"{budget.unit} for a problem", ",.2f"),
        Column("a response costs", budget.unit, ",.2f"),
        Column("responses", "that the budget buys", ".2f"),
        Column("value [95%]", "of the likeliest as a whole of these, mean over problems"),
        Column("problems", "that have as many decided responses: the value is theirs"),
        Column("pass@n [95%]", "chance that any of these is right"),
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
        bought = TextCell(shown, {"responses": n, "responses there are": there})
        rows.append(
            (s.task, s.model, name, allowed, cost, bought, value, problems, passed, s.logp_interval)
        )
    title = f"At equal {budget.name}"
    note = (
        "A dash: the budget buys less than one response. `4 of 7.66`: it buys more than the run has for a "
        "problem, and those are taken; more replicates would tell."
    )
    return Table(f"compare_{budget.name}", title, _columns(budget), rows, by=2, note=note)


class Bought(NamedTuple):
    """The value of n responses to a problem."""

    value: Estimate | None
    """Of the likeliest as a whole; None where n is below one."""
    passed: Estimate | None
    """Chance that any is right."""
    there: int | None
    """Responses to a problem, where they are fewer than n: the estimates are then of these."""


def _bought(results: Results, n: float) -> Bought:
    best = Best(results)
    if not best.most or n < 1 - ROUNDING:
        return Bought(None, None, None)
    there, n = (best.most if n > best.most + ROUNDING else None), min(n, float(best.most))
    found, graded = best.of(n), results.summary.metric == "accuracy"
    passed = {
        problem: [mixed(partial(pass_at_k, len(values), round(sum(values))), n)]
        for problem, values in (best.values(n) if graded else {}).items()
    }
    return Bought(found.value if found else None, clustered(passed) if passed else None, there)
