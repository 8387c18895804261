"""The same tokens spent otherwise: best-of-n of a plain sampler beside each costlier one, at equal cost."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count, takewhile
from math import ceil, floor
from typing import NamedTuple

from powerbench.report.summary import Results, labels, main
from powerbench.report.tables.paired import signed, values
from powerbench.report.tables.table import Column, Shown, Table
from powerbench.stats.intervals import Estimate, best_of, clustered
from powerbench.stats.paired import compare

ROUNDING = 1e-9
"""By which a number of responses may miss a whole one."""

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


def is_plain(results: Results) -> bool:
    """Whether it decodes nothing but its responses, each token once."""
    cost = results.summary.decoded_per_token
    return cost is not None and cost < 1 + 1e-9


def mixed(at: Callable[[int], float], n: float) -> float:
    """A quantity of a whole number of responses, for a number n >= 1 between two of them."""
    low = max(1, floor(n + ROUNDING))
    weight = n - low
    return at(low) if weight <= ROUNDING else (1 - weight) * at(low) + weight * at(low + 1)


class Best:
    """Best-of-n of a run's decided responses: exact, of the problems that have so many."""

    def __init__(self, results: Results) -> None:
        self._ranked: dict[str, list[tuple[float, float]]] = defaultdict(list)
        for key, score in results.scores.items():
            if score.value is not None:
                self._ranked[key.problem].append((results.samples[key].logp, score.value))
        self.most = max(map(len, self._ranked.values()), default=0)
        """The most decided responses that a problem has."""
        self.tokens = decoded(results)
        """Decoded a response, mean."""

    @property
    def means_something(self) -> bool:
        """Whether there is something to choose from: greedy responses differ by rounding alone."""
        each = self._ranked.values()
        return self.most > 1 and any(len({round(logp, 2) for logp, _ in x}) > 1 for x in each)

    def values(self, n: float) -> Values:
        """The values of every response of the problems that have n or more."""
        having = {p: found for p, found in self._ranked.items() if len(found) >= ceil(n - ROUNDING)}
        return {problem: [value for _, value in found] for problem, found in having.items()}

    def of(self, n: float) -> BestOf | None:
        """The likeliest of n; between two whole numbers the one or the other by chance, so that the mean is
        right. n below one is one. None above what there is.
        """
        n = max(1.0, n)
        there = self.values(n)
        if not there:
            return None
        found = {p: [mixed(partial(best_of, ranked=self._ranked[p]), n)] for p in there}
        estimate = clustered(there if n == 1 else found)
        return BestOf(floor(n + ROUNDING), n * self.tokens, estimate, found)

    def curve(self) -> list[BestOf]:
        """For every n up to 16, then for its powers of two, and for the largest."""
        powers = takewhile(lambda n: n < self.most, (2**i for i in count(5)))
        ns = sorted({*range(1, min(16, self.most) + 1), *powers, self.most})
        return [found for n in ns if (found := self.of(n)) is not None]


COLUMNS = (
    Column("task"),
    Column("model"),
    Column("sampler"),
    Column("tokens", "decoded a response, rejected proposals included", ",.0f"),
    Column("value [95%]", "of the sampler"),
    Column("instead", "the likeliest as a whole of so many responses, for the same tokens"),
    Column("value instead [95%]", "exact over all subsets of the responses that there are"),
    Column("difference [95%]", "the sampler's value less the other's, paired by problem"),
    Column("problems", "that both have; of the other, those with so many decided responses"),
)


def table(results: Sequence[Results]) -> Table:
    """Every main run of a costlier sampler beside every plain one of its task and model."""
    shown = [r for r in main(results) if r.summary.value is not None]
    named = list(zip(shown, labels([r.summary for r in shown]), strict=True))
    plain = [(Best(r), name, r.summary) for r, name in named if is_plain(r)]
    rows = []
    for chain, name in ((r, name) for r, name in named if not is_plain(r)):
        for best, other, s in plain:
            same = (chain.summary.task, chain.summary.model) == (s.task, s.model)
            if not (same and best.means_something and best.tokens and decoded(chain)):
                continue
            share = decoded(chain) / best.tokens
            found = best.of(share)
            difference = compare(found.problems, values(chain)) if found else None
            rows.append(
                (
                    s.task,
                    s.model,
                    name,
                    decoded(chain),
                    chain.summary.value,
                    _instead(share, other, best.most),
                    found.value if found else None,
                    signed(difference) if difference else None,
                    difference.n if difference else None,
                )
            )
    return Table("matched", "The same tokens, spent otherwise", COLUMNS, rows, by=2)


def _instead(share: float, sampler: str, most: int) -> Shown:
    short = f" (there are {most})" if share > most else ""
    shown = f"best of {max(1.0, share):.1f} {sampler}{short}"
    return Shown(shown, {"sampler instead": sampler, "n instead": max(1.0, share)})
