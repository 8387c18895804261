"""The same tokens spent otherwise: best-of-n of a plain sampler beside each chain, at equal cost."""

from collections import defaultdict
from collections.abc import Sequence
from itertools import product
from math import floor
from typing import NamedTuple

from powerbench.paired import compare
from powerbench.report.pairs import signed, values
from powerbench.report.summary import Results, labels, main
from powerbench.report.table import Column, Shown, Table
from powerbench.stats import Estimate, best_of, clustered

Values = dict[str, list[float]]
"""By problem."""


class BestOf(NamedTuple):
    """What one takes of n responses of a problem: the one that is likeliest as a whole."""

    n: int
    tokens: float
    """Decoded for a problem, mean."""
    value: Estimate
    problems: Values
    """The expected value of each."""


def decoded(results: Results) -> float:
    """Tokens decoded a response, mean."""
    return results.summary.decoded / max(1, results.summary.responses)


def is_chain(results: Results) -> bool:
    """Whether its sampler makes steps."""
    return "steps" in results.summary.settings or results.summary.acceptance is not None


def curve(results: Results) -> list[BestOf]:
    """Best-of-n for n = 1 ... R, R the most decided responses that a problem has: exact, over all subsets.

    Of the problems that have R; empty if R is 1, or if all responses of every problem are equally likely (but
    for rounding), as greedy ones are.
    """
    ranked = defaultdict(list)
    for key, score in results.scores.items():
        if score.value is not None:
            ranked[key.problem].append((results.samples[key].logp, score.value))
    most = max(map(len, ranked.values()), default=0)
    full = {problem: found for problem, found in ranked.items() if len(found) == most}
    if most < 2 or all(len({round(logp, 2) for logp, _ in found}) == 1 for found in full.values()):
        return []
    cost = decoded(results)
    return [_best_of(n, n * cost, full) for n in range(1, most + 1)]


def at(tokens: float, best: Sequence[BestOf]) -> BestOf | None:
    """Best-of-n for a number of tokens between two whole n: the one or the other by chance, so that the
    mean is right. None where even the largest n costs less; n = 1 where it costs more.
    """
    share = tokens / best[0].tokens
    if share > best[-1].n:
        return None
    share = max(1.0, share)
    low = best[floor(share) - 1]
    high = best[min(floor(share), len(best) - 1)]
    weight = share - floor(share)
    mixed = {
        problem: [(1 - weight) * low.problems[problem][0] + weight * high.problems[problem][0]]
        for problem in low.problems
    }
    return BestOf(low.n, max(tokens, best[0].tokens), clustered(mixed), mixed)


COLUMNS = (
    Column("task"),
    Column("model"),
    Column("chain"),
    Column("tokens", "decoded a response, rejected proposals included", ",.0f"),
    Column("value [95%]", "of the chain"),
    Column("instead", "the likeliest as a whole of so many responses, for the same tokens"),
    Column("value instead [95%]", "exact over all subsets of the responses that there are"),
    Column("difference [95%]", "the chain's value less the other's, paired by problem"),
)


def table(results: Sequence[Results]) -> Table:
    """Every main run of chains beside every main run of a plain sampler of its task and model."""
    shown = [r for r in main(results) if r.summary.value is not None]
    named = list(zip(shown, labels([r.summary for r in shown]), strict=True))
    curves = {id(r): curve(r) for r in shown if not is_chain(r)}
    rows = []
    for (chain, name), (plain, other) in product(named, named):
        same = (chain.summary.task, chain.summary.model) == (
            plain.summary.task,
            plain.summary.model,
        )
        if not (same and is_chain(chain) and curves.get(id(plain)) and decoded(chain)):
            continue
        best = curves[id(plain)]
        found = at(decoded(chain), best)
        share = decoded(chain) / best[0].tokens
        difference = compare(found.problems, values(chain)) if found else None
        rows.append(
            (
                chain.summary.task,
                chain.summary.model,
                name,
                decoded(chain),
                chain.summary.value,
                _instead(share, other, best[-1].n),
                found.value if found else None,
                signed(difference) if difference else None,
            )
        )
    return Table("matched", "The same tokens, spent otherwise", COLUMNS, rows, by=2)


def _instead(share: float, sampler: str, most: int) -> Shown:
    short = f" (there are {most})" if share > most else ""
    shown = f"best of {max(1.0, share):.1f} {sampler}{short}"
    return Shown(shown, {"sampler instead": sampler, "n instead": max(1.0, share)})


def _best_of(n: int, tokens: float, full: dict[str, list[tuple[float, float]]]) -> BestOf:
    problems = {problem: [best_of(n, ranked)] for problem, ranked in full.items()}
    return BestOf(n, tokens, clustered(problems), problems)
