"""DeepConf's measures of confidence (arXiv 2508.15260, section 3), and the vote of confident responses.

Conventions that the paper leaves open are those of its public code (facebookresearch/deepconf): groups are
whole windows, or all of a response that is shorter than one; percentiles are interpolated; a response at the
threshold is kept.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from powerbench.samplers.common import Response
from powerbench.samplers.population import record
from powerbench.samplers.voting import tally, winner
from powerbench.types import Draw, Outcome, Round

MEASURES = ("mean", "tail", "bottom", "lowest")
BOTTOM = 0.1
"""The share of the lowest groups that `bottom` averages."""


@dataclass(frozen=True)
class Trace:
    """A response, and the confidence of each of its tokens: minus the mean log-probability, in nats, of the
    k likeliest tokens at its position."""

    x: Response = field(default_factory=Response)
    confidence: tuple[float, ...] = ()

    def then(self, draw: Draw) -> "Trace":
        """Followed by a draw that reports the k likeliest tokens."""
        new = (-sum(each.logp) / len(each.logp) for each in draw.top_logprobs)
        return Trace(self.x.then(draw), (*self.confidence, *new))

    def groups(self, window: int, since: int = 0) -> np.ndarray:
        """Mean confidence of each window of `window` tokens that ends after the first `since` tokens; of all
        tokens, if they are fewer."""
        tokens = np.array(self.confidence[max(0, since - window + 1) :])
        if len(tokens) < window:
            return tokens.mean(keepdims=True)
        means: np.ndarray = np.lib.stride_tricks.sliding_window_view(tokens, window).mean(axis=-1)
        return means

    def lowest(self, window: int) -> float:
        """The lowest group confidence."""
        return float(self.groups(window).min())

    def measured(self, measure: str, window: int, tail: int) -> float:
        """The response's confidence by one of MEASURES; 0, the least there is, of one without any token's."""
        if not self.confidence:
            return 0.0
        match measure:
            case "mean":
                return float(np.mean(self.confidence))
            case "tail":
                return float(np.mean(self.confidence[-tail:]))
            case "bottom":
                groups = np.sort(self.groups(window))
                return float(groups[: max(1, int(BOTTOM * len(groups)))].mean())
        return self.lowest(window)

    def state(self) -> dict[str, Any]:
        """As plain data, for a `Save`."""
        return {**self.x.state(), "confidence": list(self.confidence)}

    @classmethod
    def of_state(cls, state: Mapping[str, Any]) -> "Trace":
        """The inverse of `state`."""
        return cls(Response.of_state(state), tuple(state["confidence"]))


def threshold(confidences: Sequence[float], eta: float) -> float:
    """The percentile 1 - eta, which about the eta most confident share reaches."""
    return float(np.quantile(confidences, 1 - eta))


def ballot(
    given: Sequence[str | None], confidences: Sequence[float], min_confidence: float
) -> list[float]:
    """Each response's vote: its confidence, if it gives an answer and reaches the threshold; else 0."""
    pairs = zip(given, confidences, strict=True)
    return [c if answer is not None and c >= min_confidence else 0.0 for answer, c in pairs]


def voted(
    traces: Sequence[Trace],
    given: Sequence[str | None],
    confidences: Sequence[float],
    votes: Sequence[float],
    rounds: Sequence[Round] = (),
) -> Outcome:
    """The most confident response that gives the winning answer; where nothing has a vote, the most confident
    response without an answer. The vote is the last round of its trace."""
    won = winner(tally(given, votes))
    best = max(range(len(traces)), key=lambda i: (given[i] == won, confidences[i]))
    total = sum(votes) or 1
    shares = [vote / total for vote in votes]
    xs = [each.x for each in traces]
    last = record(len(rounds), 0, xs, shares, [best])
    return xs[best].outcome(rounds=[*rounds, last], members=xs)
