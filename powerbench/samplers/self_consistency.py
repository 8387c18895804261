"""Self-consistency (Wang et al. 2022, arXiv 2203.11171): the answer that most of n responses give.

Of the responses that give it, the likeliest under the base model is returned; if none of the n gives an
answer, the likeliest of all. Ties go to the answer given first, a fair choice among independent draws; so does
the choice among an endpoint's responses, whose likelihoods are not asked for. Law:
the answer is that of a plurality of n independent ones; as n grows, the likeliest answer at this temperature.
Cost, tokens decoded per response token: n.
"""

from dataclasses import dataclass
from typing import ClassVar

from powerbench.errors import require_integer
from powerbench.samplers.common import (
    Response,
    Sampler,
    independent,
    require_own_temperature,
    require_top_k,
)
from powerbench.samplers.population import record
from powerbench.samplers.voting import answers, tally, winner
from powerbench.types import Chain, Context


@dataclass(frozen=True)
class SelfConsistency(Sampler):
    """n: 16 is our choice (the paper: 40), as in `best_of_n`.

    temperature: 0.7 without truncation is the paper's setting for GPT-3.
    """

    votes: ClassVar[bool] = True
    whole_responses: ClassVar[bool] = True

    n: int = 16
    temperature: float = 0.7
    top_k: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_integer("sampler.n", self.n, 1)
        require_own_temperature(self.temperature)
        require_top_k(self.top_k)

    def chain(self, context: Context) -> Chain:
        drawn = {"tau": self.temperature, "top_k": self.top_k}
        draws = yield from independent(context, range(self.n), self.max_tokens, **drawn)
        xs = [Response().then(draw) for draw in draws]
        given = answers(context, xs)
        weights = [float(answer is not None) for answer in given]
        won = winner(tally(given, weights))
        best = max((i for i, a in enumerate(given) if a == won), key=lambda i: xs[i].total)
        share = [w / (sum(weights) or 1) for w in weights]
        return xs[best].outcome(rounds=[record(0, 0, xs, share, [best])], members=xs)
