"""The engine protocol: three verbs, over a model that gives text its tokens."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from powerbench.flops import Size
from powerbench.types import Draw, Extend, Key, Prompt, Tokens

EFFICIENT_WIDTH = {"cpu": 8, "cuda": 64}
"""Below so many rows, a decoding step mostly waits for the weights to be read."""


class Codec(Protocol):
    """Text to tokens and back, for one model."""

    eos: int
    stops: Tokens
    """All tokens that end a response, `eos` first."""

    def encode(self, prompt: Prompt) -> Tokens: ...

    def continuation(self, text: str) -> Tokens:
        """Text that goes on from a prompt: nothing is put before it."""
        ...

    def token(self, text: str) -> int:
        """The one token that this text is. Raises UserError if it is not one."""
        ...

    def decode(self, tokens: Sequence[int]) -> str:
        """The text, special tokens left out."""
        ...


class Model(Protocol):
    """What a model's yaml describes. Nothing heavy happens before an engine loads it."""

    name: str
    kind: str
    """How benchmarks address it: `base` (raw text), `rl` (a base model trained with RL), `instruct`."""

    @property
    def context_length(self) -> int:
        """The longest prompt and response together, in tokens."""
        ...

    def codec(self) -> Codec: ...

    def identity(self) -> Mapping[str, Any]:
        """What makes its samples its own: source, commit or digest, dtype."""
        ...

    def size(self) -> Size | None:
        """What its arithmetic depends on; None where that means nothing."""
        ...


class Finished(NamedTuple):
    """A request that an engine has answered."""

    chain: int
    key: Key
    draw: Draw


class Engine(Protocol):
    """Runs up to `width` requests at once. A request is named by its chain and its key."""

    width: int
    efficient_width: int
    """Up to so many requests at once, a step takes hardly longer than for one."""

    def submit(self, chain: int, prompt: Tokens, request: Extend, uniforms: np.ndarray) -> None:
        """Queue a request. The token at position i of the response is the inverse CDF of q, tokens
        in the order of their ids, at uniforms[i] (float64 [request.until])."""
        ...

    def step(self) -> list[Finished]:
        """Go on with the requests at work, prompts first; return the draws that are complete."""
        ...

    def withdraw(self, chain: int, key: Key | None = None) -> int:
        """Forget a request, finished or not; without a key, the chain and whatever is cached for it.

        What a finished request decoded stays cached until it is withdrawn, for its chain may go on from
        it. Returns the tokens decoded for requests that were not finished.
        """
        ...
