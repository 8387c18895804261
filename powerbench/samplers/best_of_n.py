"""Best of n: the highest-scoring of n independent responses, the plain baseline of samplers that choose.

Law: the maximum of n draws. With F the distribution function of the score, P(x) = p(x) / P(score = score(x))
* (F(score(x))^n - F(score(x)-)^n). Cost: n tokens decoded per response token.
"""

from dataclasses import dataclass
from typing import ClassVar

from powerbench.errors import require, require_integer
from powerbench.samplers.common import (
    Response,
    Sampler,
    independent,
    require_own_temperature,
    require_top_k,
)
from powerbench.samplers.population import record
from powerbench.types import LOG_ZERO, Chain, Context

SCORES = ("total", "per_token")


@dataclass(frozen=True)
class BestOfN(Sampler):
    """Its one round shows the scores as weights.

    score: what is largest in the best, under the base model: "total" log-likelihood, or its mean "per_token",
        which does not favour short responses. Ties go to the first.
    temperature: of the draws; 1 is the model as it is.
    top_k: truncates the draws.
    """

    whole_responses: ClassVar[bool] = True
    ranks: ClassVar[bool] = True

    n: int = 16
    score: str = "total"
    temperature: float = 1.0
    top_k: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_integer("sampler.n", self.n, 1)
        require(
            self.score in SCORES,
            f"sampler.score must be one of {', '.join(SCORES)}, got {self.score}",
        )
        require_own_temperature(self.temperature)
        require_top_k(self.top_k)

    def chain(self, context: Context) -> Chain:
        drawn = {"tau": self.temperature, "top_k": self.top_k}
        draws = yield from independent(context, range(self.n), self.max_tokens, **drawn)
        responses = [Response().then(draw) for draw in draws]
        scores = [self._score(x) for x in responses]
        best = max(range(self.n), key=lambda i: (bool(responses[i].logp), scores[i]))
        last = record(0, 0, responses, scores, [best])
        return responses[best].outcome(rounds=[last], members=responses)

    def _score(self, x: Response) -> float:
        if not x.logp:  # an endpoint refused it
            return LOG_ZERO
        return x.total if self.score == "total" else x.total / len(x.logp)
