"""Samplers at equal cost: best-of-n and maj@n of plain ones beside each costlier one, and all at one budget."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from powerbench.errors import require
from powerbench.report.chosen import (
    ROUNDING,
    Choice,
    best_of_n,
    best_per_token,
    decoded,
    interpolated,
    is_plain,
    majority_vote,
)
from powerbench.report.labels import labels, main_runs
from powerbench.report.summary import Results
from powerbench.report.tables.paired import DETECTABLE, p_cell, passes, signed, values
from powerbench.report.tables.table import Column, Table, TextCell
from powerbench.stats.intervals import Estimate, clustered, pass_at_k
from powerbench.stats.paired import Difference, holm, paired_difference

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


class _Beside(NamedTuple):
    """A costlier sampler, and what is chosen of as many responses of a plain one as its cost buys."""

    chain: Results
    sampler: str
    instead: TextCell
    value: Estimate | None
    difference: Difference | None


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
        for choice in (best_of_n(r), best_per_token(r), majority_vote(r))
        if choice.means_something
    ]
    found = []
    for chain, sampler in ((r, each) for r, each in named if not is_plain(r)):
        for choice, other, r in plain:
            share = _share(chain, r, budget)
            if _where(chain) != _where(r) or share is None:
                continue
            if unlike is not None and share == _share(chain, r, unlike):
                continue
            if share == 1 and choice.name != "best":  # one response is what all of them choose
                continue
            chosen = choice.among(share) if share <= choice.common + ROUNDING else None
            difference = paired_difference(chosen.problems, values(chain)) if chosen else None
            instead = _instead(share, other, choice)
            value = chosen.value if chosen else None
            found.append(_Beside(chain, sampler, instead, value, difference))
    rows = [
        (
            *_where(each.chain),
            each.sampler,
            budget.each(each.chain),
            each.chain.summary.value,
            each.instead,
            each.value,
            signed(each.difference) if each.difference else None,
            each.difference.detectable if each.difference else None,
            p_cell("p, corrected", p) if p is not None else None,
            each.difference.n if each.difference else None,
        )
        for each, p in zip(found, _corrected(found), strict=True)
    ]
    columns = (
        Column("task"),
        Column("model"),
        Column("sampler"),
        Column(budget.name, f"{budget.unit} a response, rejected proposals included", ",.0f"),
        Column("value [95%]", "of the sampler"),
        Column(
            "instead",
            "of as many responses as its mean cost buys: best, the likeliest as a whole; best per token, the "
            "one with the highest mean log p; majority, the answer that most give",
        ),
        Column("value instead [95%]", "exact over all subsets of the responses"),
        Column("difference [95%]", "the sampler's value less the other's, paired by problem"),
        DETECTABLE,
        Column("p, corrected", "by Holm's method, for all rows of a task and model"),
        Column("problems", "that both have; of the other, those with that many decided responses"),
    )
    return Table(name, f"The same {budget.name}, spent otherwise", columns, rows, by=2)


def _where(results: Results) -> tuple[str, str]:
    return results.summary.task, results.summary.model


def _corrected(found: Sequence[_Beside]) -> list[float | None]:
    """The p-value of each, corrected for all of its task and model."""
    groups: dict[tuple[str, str], dict[int, float]] = defaultdict(dict)
    for i, each in enumerate(found):
        if each.difference is not None:
            groups[_where(each.chain)][i] = each.difference.p
    corrected: dict[int, float] = {}
    for ps in groups.values():
        corrected.update(zip(ps, holm([*ps.values()]), strict=True))
    return [corrected.get(i) for i in range(len(found))]


def _share(chain: Results, plain: Results, budget: Budget) -> float | None:
    """How many responses of a plain run cost what one of a chain does. None if it is not known, or if the chain
    is the cheaper of the two.
    """
    cost, each = budget.each(chain), budget.each(plain)
    share = cost / each if cost and each else 0.0
    return max(1.0, share) if share > 1 - ROUNDING else None


def _instead(share: float, sampler: str, choice: Choice[Any]) -> TextCell:
    short = f" (there are {choice.common})" if share > choice.common + ROUNDING else ""
    shown = f"{choice.name} of {share:.1f} {sampler}{short}"
    return TextCell(shown, {"sampler instead": sampler, "choice": choice.name, "n instead": share})


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
                bought.problems,
                bought.passed,
                s.logp_interval,
            )
        )
    title = f"At equal {budget.name}"
    note = (
        "A dash: the budget buys less than one response, nobody knows which is likeliest, or there are no "
        "answers to vote with. `4 of 7.66`: it buys more than the run has for a problem, and those are taken; "
        "more replicates would tell."
    )
    return Table(f"compare_{budget.name}", title, _columns(budget), rows, by=2, note=note)


class Bought(NamedTuple):
    """The value of n responses to a problem."""

    value: Estimate | None = None
    """Of the likeliest as a whole; None where n is below one, or nobody knows which it is."""
    majority: Estimate | None = None
    """Of the answer that most give; None where n is below one, or there are no answers to vote with."""
    passed: Estimate | None = None
    """Chance that any is right."""
    problems: int | None = None
    """Those that have as many decided responses."""
    there: int | None = None
    """Responses to a problem, where they are fewer than n: the estimates are then of these."""


def _bought(results: Results, n: float) -> Bought:
    best = best_of_n(results)
    if not best.common or n < 1 - ROUNDING:
        return Bought()
    there, n = (best.common if n > best.common + ROUNDING else None), min(n, float(best.common))
    found, voted = best.among(n), majority_vote(results).among(n)
    passed = {
        problem: [interpolated(partial(pass_at_k, len(values), round(sum(values))), n)]
        for problem, values in best.values(n).items()
        if results.summary.metric == "accuracy"
    }
    return Bought(
        found.value if found else None,
        voted.value if voted else None,
        clustered(passed) if passed else None,
        len(best.values(n)),
        there,
    )
