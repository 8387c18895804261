"""Greedy decoding: the likeliest token at every position (ties: the lowest id)."""

from dataclasses import dataclass
from typing import ClassVar

from powerbench.samplers.common import Sampler, ancestral
from powerbench.types import Chain, Context


@dataclass(frozen=True)
class Greedy(Sampler):
    """Law: a point mass. Cost: one decoded token per response token."""

    deterministic: ClassVar[bool] = True
    whole_responses: ClassVar[bool] = True

    def chain(self, context: Context) -> Chain:
        return ancestral(context, self.max_tokens, tau=0.0)
