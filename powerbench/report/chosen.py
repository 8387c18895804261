"""One answer chosen from several responses of a run to a problem: the likeliest, or the commonest answer.

Between two whole numbers of responses it is the one or the other by chance, so that the mean is right. All
expectations are exact over the subsets of a run's responses.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count, takewhile
from typing import Generic, NamedTuple, TypeVar

from powerbench.report.samples import SampleStats
from powerbench.report.summary import Results
from powerbench.report.votes import votes_of
from powerbench.stats.choices import best_of, majority_of
from powerbench.stats.intervals import Estimate, clustered

ROUNDING = 1e-9
"""Difference up to which a number of responses counts as a whole number."""

Values = dict[str, list[float]]
"""By problem."""


class Chosen(NamedTuple):
    """What is chosen among n responses to a problem."""

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
    """Whether it decodes its responses alone, each token once."""
    cost = results.summary.decoded_per_token
    return cost is not None and cost <= 1 + ROUNDING


def interpolated(at: Callable[[int], float], n: float) -> float:
    """A quantity of a whole number of responses, for a number n >= 1 between two of them."""
    low = max(1, math.floor(n + ROUNDING))
    weight = n - low
    return at(low) if weight <= ROUNDING else (1 - weight) * at(low) + weight * at(low + 1)


By = TypeVar("By")


@dataclass(frozen=True)
class Choice(Generic[By]):
    """A way to choose among a run's decided responses, over the problems that have n or more."""

    name: str
    responses: Mapping[str, Sequence[tuple[By, float]]]
    """Of each problem: what they are chosen by, and their values."""
    expected: Callable[[int, Sequence[tuple[By, float]]], float]
    """The value of what is chosen among n of these, drawn without replacement."""
    known: bool
    """Whether there is anything to choose by."""
    varied: bool
    """Whether responses to some problem differ in it."""
    tokens: float
    """Decoded a response, mean."""
    _found: dict[tuple[str, int], float] = field(default_factory=dict, compare=False, repr=False)

    @property
    def most(self) -> int:
        """The most decided responses that a problem has."""
        return max(map(len, self.responses.values()), default=0)

    @property
    def common(self) -> int:
        """The most decided responses that at least half of the problems have."""
        counts = sorted(map(len, self.responses.values()))
        return counts[len(counts) // 2] if counts else 0

    @property
    def means_something(self) -> bool:
        """Whether what is chosen among several can be another than a single one."""
        return self.known and self.varied

    def values(self, n: float) -> Values:
        """The values of every response of the problems that have n or more."""
        having = self.responses.items()
        enough = {p: found for p, found in having if len(found) >= math.ceil(n - ROUNDING)}
        return {problem: [value for _, value in found] for problem, found in enough.items()}

    def among(self, n: float) -> Chosen | None:
        """What is chosen among n, at least one. None if no problem has n, or there is nothing to choose by."""
        n = max(1.0, n)
        there = self.values(n)
        if not there or (n > 1 and not self.known):
            return None
        found = {p: [interpolated(partial(self._expected, p), n)] for p in there}
        estimate = clustered(there if n == 1 else found)
        return Chosen(math.floor(n + ROUNDING), n * self.tokens, estimate, found)

    def _expected(self, problem: str, n: int) -> float:
        if (problem, n) not in self._found:
            self._found[problem, n] = self.expected(n, self.responses[problem])
        return self._found[problem, n]

    def curve(self) -> list[Chosen]:
        """For every n up to 16, then for its powers of two, and for the largest."""
        powers = takewhile(lambda n: n < self.most, (2**i for i in count(5)))
        ns = sorted({*range(1, min(16, self.most) + 1), *powers, self.most})
        return [found for n in ns if (found := self.among(n)) is not None]


def best_of_n(results: Results) -> Choice[float]:
    """Best-of-n: the response that is likeliest as a whole.

    Greedy responses differ by rounding alone, and of an endpoint's nobody knows which is likeliest.
    """
    return _ranked("best", results, lambda sample: sample.logp)


def best_per_token(results: Results) -> Choice[float]:
    """Best-of-n by mean log p per token, which does not prefer the short; an empty response is the last."""

    def score(sample: SampleStats) -> float | None:
        return sample.logp_per_token if sample.tokens else -math.inf

    return _ranked("best per token", results, score)


def _ranked(
    name: str, results: Results, score: Callable[[SampleStats], float | None]
) -> Choice[float]:
    ranked: dict[str, list[tuple[float, float]]] = defaultdict(list)
    known = True
    for key, verdict in results.scores.items():
        if verdict.value is not None:
            found = score(results.samples[key])
            known = known and found is not None
            ranked[key.problem].append((found or 0.0, verdict.value))
    varied = any(len({round(each, 3) for each, _ in found}) > 1 for found in ranked.values())
    return Choice(name, ranked, best_of, known, varied, decoded(results))


def majority_vote(results: Results) -> Choice[str | None]:
    """maj@n, self-consistency: the answer that most give, where answers can be told equal."""
    votes = votes_of(results.verifier, results.scores)
    varied = any(len({answer for answer, _ in each}) > 1 for each in votes.values())
    return Choice("majority", votes, majority_of, bool(votes), varied, decoded(results))
