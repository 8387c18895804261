"""Low temperature: every next-token conditional sharpened on its own, which is not p(x)^alpha."""

from dataclasses import dataclass
from typing import ClassVar

from powerbench.samplers.common import (
    Sampler,
    ancestral,
    require_alpha,
    require_temperature,
    require_top_k,
)
from powerbench.types import Chain, Context


@dataclass(frozen=True)
class LowTemp(Sampler):
    """Law: the product of conditionals p(x_i | x_<i)^(1/tau) / Z_i. Cost: one decoded token per response token.

    temperature: None means 1/alpha, the paper's choice. On AlpacaEval the paper names .5 for proposals and none
        for this arm, which the official script runs at .25 (its departure 13).
    top_k: None draws from the whole vocabulary; the official code's is 50 (its departure 2).
    """

    whole_responses: ClassVar[bool] = True

    alpha: float = 4.0
    temperature: float | None = None
    top_k: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_alpha(self.alpha)
        require_temperature("temperature", self.temperature)
        require_top_k(self.top_k)

    def chain(self, context: Context) -> Chain:
        tau = self.temperature or 1 / self.alpha
        return ancestral(context, self.max_tokens, tau=tau, top_k=self.top_k)
