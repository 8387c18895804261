"""Samplers at equal cost: best-of-n and maj@n of plain ones beside each costlier one, and all at one budget."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from powerbench.errors import require
from powerbench.report.summary import Results, labels, main_runs
from powerbench.report.tables.choices import (
    ROUNDING,
    Choice,
    commonest,
    is_plain,
    likeliest,
    mixed,
)
from powerbench.report.tables.paired import DETECTABLE, decoded, passes, signed, values
from powerbench.report.tables.table import Column, Table, TextCell
from powerbench.stats.intervals import Estimate, clustered, pass_at_k
from powerbench.stats.paired import paired_difference

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
    plain = [
        (choice, each, r)
        for r, each in named
        if is_plain(r)
        for choice in (likeliest(r), commonest(r))
        if choice.means_something
    ]
    rows = []
    for chain, sampler in ((r, each) for r, each in named if not is_plain(r)):
        for choice, other, r in plain:
            s, share = r.summary, _share(chain, r, budget)
            same = (chain.summary.task, chain.summary.model) == (s.task, s.model)
            if not same or share is None or share < choice.fewest:
                continue
            if unlike is not None and share == _share(chain, r, unlike):
                continue
            found = choice.of(share)
            difference = paired_difference(found.problems, values(chain)) if found else None
            rows.append(
                (
                    s.task,
                    s.model,
                    sampler,
                    budget.each(chain),
                    chain.summary.value,
                    _instead(share, other, choice),
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
            "the likeliest as a whole (best) or the answer that most give (majority), of that many responses, "
            f"for the same {budget.name}",
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


def _instead(share: float, sampler: str, choice: Choice[Any]) -> TextCell:
    short = f" (there are {choice.most})" if share > choice.most else ""
    shown = f"{choice.name} of {max(1.0, share):.1f} {sampler}{short}"
    return TextCell(
        shown, {"sampler instead": sampler, "choice": choice.name, "n instead": max(1.0, share)}
    )


# -- at one budget --------------------------------------------------------------------------------


def at_equal_budgets(
    results: Sequence[Results],
    tokens: float | None,
    passes: float | None,
    seconds: float | None,
) -> list[Table]:
    """Every main run at equal tokens, at equal decoding passes, and at equal wall-clock.

    A budget buys a sampler a number of responses to a problem; of these the likeliest as a whole is
    taken, or the answer that most give.

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
        Column("majority [95%]", "accuracy of the answer that most of these give"),
        Column("problems", "that have as many decided responses: the values are theirs"),
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
        bought = _bought(r, n)
        shown = f"{n:.2f}" if bought.there is None else f"{bought.there} of {n:.2f}"
        responses = TextCell(shown, {"responses": n, "responses there are": bought.there})
        rows.append(
            (
                s.task,
                s.model,
                name,
                allowed,
                cost,
                responses,
                bought.value,
                bought.majority,
                bought.value.n if bought.value else None,
                bought.passed,
                s.logp_interval,
            )
        )
    title = f"At equal {budget.name}"
    note = (
        "A dash: the budget buys less than one response, or there are no answers to vote with. `4 of 7.66`: it "
        "buys more than the run has for a problem, and those are taken; more replicates would tell."
    )
    return Table(f"compare_{budget.name}", title, _columns(budget), rows, by=2, note=note)


class Bought(NamedTuple):
    """The value of n responses to a problem."""

    value: Estimate | None = None
    """Of the likeliest as a whole; None where n is below one."""
    majority: Estimate | None = None
    """Of the answer that most give; None where there are no answers to vote with too."""
    passed: Estimate | None = None
    """Chance that any is right."""
    there: int | None = None
    """Responses to a problem, where they are fewer than n: the estimates are then of these."""


def _bought(results: Results, n: float) -> Bought:
    best = likeliest(results)
    if not best.most or n < 1 - ROUNDING:
        return Bought()
    there, n = (best.most if n > best.most + ROUNDING else None), min(n, float(best.most))
    found, voted = best.of(n), commonest(results).of(n)
    passed = {
        problem: [mixed(partial(pass_at_k, len(values), round(sum(values))), n)]
        for problem, values in best.values(n).items()
        if results.summary.metric == "accuracy"
    }
    return Bought(
        found.value if found else None,
        voted.value if voted else None,
        clustered(passed) if passed else None,
        there,
    )
