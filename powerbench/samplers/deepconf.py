"""DeepConf, offline (Fu et al. 2025, arXiv 2508.15260): a vote of the most confident of n responses.

Each of n responses has a confidence (`confidence.py`). Of those that give an answer the most confident share
eta is kept, and votes with its confidences as weights; the most confident response that gives the winning
answer is returned. Law: that of this rule for n independent responses at the temperature; no limit of
p^alpha. Cost, tokens decoded per response token: n.

Departures: the paper has n = 512, and truncates proposals with top_p = 0.95. Default here: n = 32, at most what
power sampling's published settings cost (N T / 4B = 40).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from powerbench.errors import require_integer, require_number, unknown
from powerbench.samplers.common import (
    Sampler,
    independent,
    require_own_temperature,
    require_top_k,
)
from powerbench.samplers.confidence import MEASURES, Trace, ballot, threshold, voted
from powerbench.samplers.voting import answers
from powerbench.types import Chain, Context, Save


@dataclass(frozen=True)
class DeepConf(Sampler):
    """n: responses, drawn `together` at a time; what is drawn does not depend on it.

    eta: the share kept, by its percentile: 0.1 (DeepConf-low) or 0.9 (DeepConf-high).
    top_k_confidence: k, the tokens at each position over whose log-probabilities confidence is a mean.
    measure: the mean of a response's token confidences; of its `tail` last; of the `bottom` tenth of
        its group confidences; or the `lowest` group confidence. A group is a window of tokens.
    """

    votes: ClassVar[bool] = True
    whole_responses: ClassVar[bool] = True
    ranks: ClassVar[bool] = True

    n: int = 32
    together: int = 16
    temperature: float = 0.6
    top_k: int | None = None
    top_k_confidence: int = 20
    measure: str = "tail"
    window: int = 2048
    tail: int = 2048
    eta: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("n", "together", "top_k_confidence", "window", "tail"):
            require_integer(f"sampler.{name}", getattr(self, name), 1)
        require_own_temperature(self.temperature)
        require_top_k(self.top_k)
        if self.measure not in MEASURES:
            raise unknown("sampler.measure", self.measure, MEASURES)
        require_number("sampler.eta", self.eta, 0, 1)

    def chain(self, context: Context, state: Mapping[str, Any] | None = None) -> Chain:
        traces = [Trace.of_state(each) for each in state["traces"]] if state else []
        drawn = {
            "tau": self.temperature,
            "top_k": self.top_k,
            "top_logprobs": self.top_k_confidence,
        }
        while len(traces) < self.n:
            some = range(len(traces), min(len(traces) + self.together, self.n))
            draws = yield from independent(context, some, self.max_tokens, **drawn)
            traces += [Trace().then(draw) for draw in draws]
            yield Save({"traces": [each.state() for each in traces]})
        given = answers(context, [each.x for each in traces])
        confidences = [each.measured(self.measure, self.window, self.tail) for each in traces]
        valid = [c for answer, c in zip(given, confidences, strict=True) if answer is not None]
        min_confidence = threshold(valid, self.eta) if valid else 0.0
        return voted(traces, given, confidences, ballot(given, confidences, min_confidence))
