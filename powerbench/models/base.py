"""What a model is to the rest of the program: tokens, identity, context length."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from powerbench.models.flops import Size
from powerbench.types import Prompt, Tokens


class Tokenizer(Protocol):
    """Text to tokens and back, for one model."""

    eos: int
    stop_tokens: Tokens
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

    def tokenizer(self) -> Tokenizer: ...

    def identity(self) -> Mapping[str, Any]:
        """What makes its samples its own: source, commit or digest, dtype."""
        ...

    def size(self) -> Size | None:
        """What its arithmetic depends on; None where that means nothing."""
        ...
