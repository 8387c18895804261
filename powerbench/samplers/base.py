"""Sampling from the model as it is: the paper's "base" arm, x ~ p."""

from dataclasses import dataclass
from typing import ClassVar

from powerbench.samplers.common import Sampler, ancestral, require_top_k
from powerbench.types import Chain, Context


@dataclass(frozen=True)
class Base(Sampler):
    """Law: p(x), responses cut at max_tokens. Cost: one decoded token per response token.

    top_k: None draws from the whole vocabulary. The official code leaves the library's default of
    50 in force (its departure 2): set 50 to have that.
    """

    whole_responses: ClassVar[bool] = True

    top_k: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_top_k(self.top_k)

    def chain(self, context: Context) -> Chain:
        return ancestral(context, self.max_tokens, tau=1.0, top_k=self.top_k)
