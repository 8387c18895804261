"""Best-of-n matched in tokens to another run, problem by problem: Entropy-Cut's protocol (arXiv 2605.30327).

For a response that decoded D tokens, rejected proposals included, responses of a plain sampler to the same
problem are drawn until their tokens reach D; the one that crosses D is kept. Taken is the one with the highest
mean log p per token. It needs no run of its own: a plain run's replicates are such draws, for every sampler.
"""

from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean
from typing import NamedTuple

from powerbench.report.chosen import best_of_n, is_plain
from powerbench.report.labels import labels, main_runs
from powerbench.report.summary import Results
from powerbench.report.tables.paired import DETECTABLE, signed, values
from powerbench.report.tables.table import Cell, Column, Table, TextCell
from powerbench.stats.intervals import clustered
from powerbench.stats.paired import paired_difference

COLUMNS = (
    Column("task"),
    Column("model"),
    Column("sampler"),
    Column("value [95%]", "of the sampler"),
    Column(
        "instead",
        "the plain sampler, and how many of its responses the same tokens buy, mean over problems",
    ),
    Column(
        "value instead [95%]",
        "of the one with the highest mean log p per token; mean over the orders in which the replicates can "
        "be taken, one beginning with each",
    ),
    Column("difference [95%]", "the sampler's value less the other's, paired by problem"),
    DETECTABLE,
    Column(
        "problems",
        "that both have and the plain run has enough responses for; in brackets: that it has too few for",
    ),
)


class Candidate(NamedTuple):
    """A response of a plain sampler."""

    tokens: int
    """Decoded."""
    score: float
    """Mean log p per token, nats."""
    value: float


class Matched(NamedTuple):
    """What a budget buys on one problem."""

    n: float
    """Responses, mean."""
    value: float
    """Of the best, mean."""


def matched(candidates: Sequence[Candidate], budget: int) -> Matched | None:
    """Draw until the tokens reach the budget, and take the best by score; ties go to the first drawn.

    candidates: independent draws in their order. The mean is over the cyclic orders that begin with each of
    them. None if all of them together do not reach the budget.
    """
    if sum(c.tokens for c in candidates) < budget or not candidates:
        return None
    counts, taken = [], []
    for first in range(len(candidates)):
        drawn, tokens = list[Candidate](), 0
        for each in (*candidates[first:], *candidates[:first]):
            drawn.append(each)
            tokens += each.tokens
            if tokens >= budget:
                break
        counts.append(len(drawn))
        taken.append(max(drawn, key=lambda c: c.score).value)
    return Matched(fmean(counts), fmean(taken))


def candidates(results: Results) -> dict[str, list[Candidate]]:
    """The decided responses to each problem, in the order of their replicates; empty ones left out."""
    found = defaultdict(list)
    for key in sorted(results.scores):
        sample, value = results.samples[key], results.scores[key].value
        if value is not None and (score := sample.logp_per_token) is not None:
            found[key.problem].append(Candidate(sample.decoded, score, value))
    return found


def table(results: Sequence[Results]) -> Table:
    """Every main run of a costlier sampler beside every plain one of its task and model."""
    shown = [r for r in main_runs(results) if r.summary.value is not None]
    named = list(zip(shown, labels([r.summary for r in shown]), strict=True))
    plain = [(r, name) for r, name in named if is_plain(r) and best_of_n(r).means_something]
    rows = [
        row
        for chain, name in named
        if not is_plain(chain)
        for other, instead in plain
        if (chain.summary.task, chain.summary.model) == (other.summary.task, other.summary.model)
        and (row := _row(chain, name, other, instead)) is not None
    ]
    return Table("matched_by_problem", "The same tokens, problem by problem", COLUMNS, rows, by=2)


def _row(chain: Results, name: str, other: Results, instead: str) -> tuple[Cell, ...] | None:
    found, short = _each(chain, other)
    if not found:
        return None
    n = fmean(m.n for several in found.values() for m in several)
    values_ = {problem: [fmean(m.value for m in several)] for problem, several in found.items()}
    difference = paired_difference(values_, values(chain))
    lacking = f" (+{short:,})" if short else ""
    return (
        chain.summary.task,
        chain.summary.model,
        name,
        chain.summary.value,
        TextCell(f"best of {n:.1f} {instead}", {"sampler instead": instead, "n instead": n}),
        clustered(values_),
        signed(difference) if difference else None,
        difference.detectable if difference else None,
        TextCell(f"{len(found):,}{lacking}", {"problems": len(found), "too few": short}),
    )


def _each(chain: Results, other: Results) -> tuple[dict[str, list[Matched]], int]:
    """By problem, what the tokens of each of a run's responses buy; and how many problems have too few."""
    pool, budgets = candidates(other), defaultdict(list)
    for key in sorted(chain.scores):
        if chain.scores[key].value is not None and key.problem in pool:
            budgets[key.problem].append(chain.samples[key].decoded)
    found = {p: [matched(pool[p], budget) for budget in each] for p, each in budgets.items()}
    enough = {
        p: [m for m in each if m is not None] for p, each in found.items() if None not in each
    }
    return enough, len(found) - len(enough)
