"""DeepConf, online (Fu et al. 2025, arXiv 2508.15260, Algorithm 2): unsure responses are stopped early.

`warm_up` responses are drawn in full; the threshold s is the percentile 1 - eta of their lowest group
confidences. Further responses are stopped once a group's confidence is below s. A response that stays at s or
above votes, with its lowest group confidence as weight; no more are drawn once the leading answer has the share
`consensus` of the votes, or after n responses. Law: this rule's for independent responses at the
temperature; no limit of p^alpha. Cost, tokens decoded per response token: n at most; what stopping saves
shows in the tokens decoded, and each round of the trace keeps those that were not stopped.

Departures: responses are drawn `together` at a time, and consensus is checked in between (1: the paper's
algorithm); one is stopped at the end of the request of `interval` tokens in which it falls below s (1: at
the very token); n = 32 (the paper: 512); proposals are not truncated (the paper: top_p = 0.95).
"""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

from powerbench.errors import require_integer, require_number
from powerbench.samplers.common import (
    Sampler,
    require_own_temperature,
    require_top_k,
)
from powerbench.samplers.confidence import Trace, ballot, threshold, voted
from powerbench.samplers.population import record
from powerbench.samplers.voting import answers, tally
from powerbench.types import Chain, Context, Request, Round, Save, Together


@dataclass(frozen=True)
class DeepConfOnline(Sampler):
    """Settings as in `deepconf`, but for the measure: it is the lowest group confidence."""

    votes: ClassVar[bool] = True

    n: int = 32
    warm_up: int = 16
    together: int = 16
    interval: int = 64
    temperature: float = 0.6
    top_k: int | None = None
    top_k_confidence: int = 20
    window: int = 2048
    eta: float = 0.1
    consensus: float = 0.95

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("n", "together", "interval", "top_k_confidence", "window"):
            require_integer(f"sampler.{name}", getattr(self, name), 1)
        require_integer("sampler.warm_up", self.warm_up, 1, self.n)
        require_own_temperature(self.temperature)
        require_top_k(self.top_k)
        require_number("sampler.eta", self.eta, 0, 1)
        require_number("sampler.consensus", self.consensus, 0, 1)

    def chain(self, context: Context, state: Mapping[str, Any] | None = None) -> Chain:
        """Algorithm 2, from its start or from a saved state."""
        traces = [Trace.of_state(each) for each in state["traces"]] if state else []
        if not traces:
            traces = yield from self._drawn(range(self.warm_up), float("-inf"), context)
            yield self._saved(traces)
        while True:
            lowest = [each.lowest(self.window) for each in traces]
            min_confidence = threshold(lowest[: self.warm_up], self.eta)
            given = answers(context, [each.x for each in traces])
            votes = ballot(given, lowest, min_confidence)
            leading = max(tally(given, votes).values(), default=0.0)
            agreed = leading > 0 and leading >= self.consensus * sum(votes)
            if agreed or len(traces) == self.n:
                rounds = self._rounds(traces, lowest, min_confidence)
                return voted(traces, given, lowest, votes, rounds)
            numbers = range(len(traces), min(len(traces) + self.together, self.n))
            traces += yield from self._drawn(numbers, min_confidence, context)
            yield self._saved(traces)

    def _drawn(
        self, numbers: Sequence[int], min_confidence: float, context: Context
    ) -> Generator[Request, Any, list[Trace]]:
        """Responses of these numbers, each up to the request in which a group falls below `min_confidence`."""
        traces, going, until = [Trace() for _ in numbers], list(range(len(numbers))), 0
        while going:
            start, until = until, self._until(until, min_confidence)
            asked = (
                traces[i].x.extend(
                    start,
                    until,
                    ("response", numbers[i], start) if start else ("response", numbers[i]),
                    context,
                    tau=self.temperature,
                    top_k=self.top_k,
                    top_logprobs=self.top_k_confidence,
                )
                for i in going
            )
            for i, draw in zip(going, (yield Together(tuple(asked))), strict=True):
                traces[i] = traces[i].then(draw)
            going = [i for i in going if self._goes_on(traces[i], start, until, min_confidence)]
        return traces

    def _until(self, start: int, min_confidence: float) -> int:
        """Where the next request ends; the first one holds a whole group at least."""
        if min_confidence == float("-inf"):
            return self.max_tokens
        return min(max(start + self.interval, self.window), self.max_tokens)

    def _goes_on(self, trace: Trace, start: int, until: int, min_confidence: float) -> bool:
        if trace.x.finished or until == self.max_tokens:
            return False
        return bool(trace.groups(self.window, since=start).min() >= min_confidence)

    def _saved(self, traces: Sequence[Trace]) -> Save:
        return Save({"traces": [each.state() for each in traces]})

    def _rounds(
        self, traces: Sequence[Trace], lowest: Sequence[float], min_confidence: float
    ) -> list[Round]:
        """A round for each batch of responses, by their lowest group confidence; kept are those not stopped."""
        rounds = []
        starts = [0, *range(self.warm_up, len(traces), self.together)]
        for k, (start, end) in enumerate(pairwise([*starts, len(traces)])):
            xs = [each.x for each in traces[start:end]]
            stayed = [i for i, each in enumerate(lowest[start:end]) if each >= min_confidence]
            rounds.append(record(k, 0, xs, lowest[start:end], stayed))
        return rounds
