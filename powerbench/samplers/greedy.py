"""Greedy decoding: the likeliest token at every position (ties: the lowest id)."""

from dataclasses import dataclass

from powerbench.samplers.common import ancestral, require_length
from powerbench.types import Chain, Context


@dataclass(frozen=True)
class Greedy:
    """Law: a point mass. Cost: one decoded token per response token."""

    max_tokens: int

    def __post_init__(self) -> None:
        require_length(self.max_tokens)

    def chain(self, context: Context) -> Chain:
        return ancestral(context, self.max_tokens, tau=0.0)
