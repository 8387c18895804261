"""What a model is to the rest of the program: tokens, identity, context length, and who can run it."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from powerbench.models.flops import Size
from powerbench.models.token_logprobs import Scorer
from powerbench.types import Message, Prompt, Tokens


class Tokenizer(Protocol):
    """Text to tokens and back, for one model."""

    eos: int
    stop_tokens: Tokens
    """All tokens that end a response, `eos` first."""

    def encode(self, prompt: Prompt) -> Tokens: ...

    def chat(self, messages: Sequence[Message]) -> Tokens:
        """A conversation through the model's chat template, its next answer to follow.

        Raises UserError for a model without a template, or a conversation that the template refuses.
        """
        ...

    def continuation(self, text: str) -> Tokens:
        """Text that goes on from a prompt: nothing is put before it."""
        ...

    def token(self, text: str) -> int:
        """The one token that this text is. Raises UserError if it is not one."""
        ...

    def line_ends(self) -> Tokens:
        """All tokens with a line's end in their text: beside the line feed, such as `.` and two of them."""
        ...

    def decode(self, tokens: Sequence[int]) -> str:
        """The text, special tokens left out."""
        ...


class Availability(NamedTuple):
    """Whether a model can be loaded on this machine, without network."""

    here: bool
    detail: str
    """Where it is, or where it would come from."""


class Model(Protocol):
    """What a model's yaml describes. Nothing heavy happens before an engine loads it."""

    name: str
    kind: str
    """How benchmarks address it: `base` (raw text), `rl` (a base model trained with RL), `instruct`."""

    @property
    def context_length(self) -> int:
        """The longest prompt and response together, in tokens."""
        ...

    @property
    def vocabulary_size(self) -> int:
        """Tokens have ids below this."""
        ...

    def tokenizer(self) -> Tokenizer: ...

    def identity(self) -> Mapping[str, Any]:
        """What makes its samples its own: source, commit or digest, dtype."""
        ...

    def size(self) -> Size | None:
        """What its arithmetic depends on; None where that means nothing."""
        ...

    def driven_by(self, engine: str) -> bool:
        """Whether the engine of this name (a yaml in `conf/engine`) can drive it."""
        ...

    def available(self) -> Availability:
        """Whether it is on this machine. Raises UserError for a file or package that is missing."""
        ...

    def scorer(self, device: str) -> Scorer:
        """What scores given texts, the model loaded onto a device ("auto": CUDA if there is one).

        Raises UserError where a plain forward pass does not give the model's log-probabilities.
        """
        ...
