"""The same tokens spent otherwise: best-of-n of a plain sampler beside each costlier one, at equal cost."""

from collections import defaultdict
from collections.abc import Sequence
from itertools import count, takewhile
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


def is_plain(results: Results) -> bool:
    """Whether it decodes nothing but its responses, each token once."""
    cost = results.summary.decoded_per_token
    return cost is not None and cost < 1 + 1e-9


class Best:
    """Best-of-n of a run's decided responses, for any n up to the most that a problem has: exact.

    Of the problems that have so many.
    """

    def __init__(self, results: Results) -> None:
        ranked = defaultdict(list)
        for key, score in results.scores.items():
            if score.value is not None:
                ranked[key.problem].append((results.samples[key].logp, score.value))
        self.most = max(map(len, ranked.values()), default=0)
        self.tokens = decoded(results)
        """Decoded a response, mean."""
        self._full = {p: found for p, found in ranked.items() if len(found) == self.most}

    @property
    def means_something(self) -> bool:
        """Whether there is something to choose from: greedy responses differ by rounding alone."""
        alike = (len({round(logp, 2) for logp, _ in found}) == 1 for found in self._full.values())
        return self.most > 1 and not all(alike)

    def values(self) -> Values:
        """The values of every response of the problems that have the most."""
        return {problem: [value for _, value in found] for problem, found in self._full.items()}

    def of(self, n: int) -> BestOf:
        """Over all subsets of n responses."""
        problems = {problem: [best_of(n, found)] for problem, found in self._full.items()}
        return BestOf(n, n * self.tokens, clustered(problems), problems)

    def curve(self) -> list[BestOf]:
        """For every n up to 16, then for its powers of two, and for the largest."""
        powers = takewhile(lambda n: n < self.most, (2**i for i in count(5)))
        return [self.of(n) for n in sorted({*range(1, min(16, self.most) + 1), *powers, self.most})]

    def at(self, tokens: float) -> BestOf | None:
        """For a number of tokens between two whole n: the one or the other by chance, so that the mean is
        right. None where even the largest n costs less; n = 1 where it costs more.
        """
        share = max(1.0, tokens / self.tokens)
        if share > self.most:
            return None
        low, high = self.of(floor(share)), self.of(min(floor(share) + 1, self.most))
        weight = share - floor(share)
        mixed = {
            problem: [(1 - weight) * value + weight * high.problems[problem][0]]
            for problem, (value,) in low.problems.items()
        }
        return BestOf(low.n, share * self.tokens, clustered(mixed), mixed)


COLUMNS = (
    Column("task"),
    Column("model"),
    Column("sampler"),
    Column("tokens", "decoded a response, rejected proposals included", ",.0f"),
    Column("value [95%]", "of the sampler"),
    Column("instead", "the likeliest as a whole of so many responses, for the same tokens"),
    Column("value instead [95%]", "exact over all subsets of the responses that there are"),
    Column("difference [95%]", "the sampler's value less the other's, paired by problem"),
    Column("problems", "that both have: of the other, those with the most decided responses"),
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
            if not (same and best.means_something and decoded(chain)):
                continue
            found = best.at(decoded(chain))
            difference = compare(found.problems, values(chain)) if found else None
            rows.append(
                (
                    s.task,
                    s.model,
                    name,
                    decoded(chain),
                    chain.summary.value,
                    _instead(decoded(chain) / best.tokens, other, best.most),
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
