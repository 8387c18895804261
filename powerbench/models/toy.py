"""A tabular language model over a handful of tokens, for exact laws."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from powerbench.errors import require_integer
from powerbench.types import Prompt, Tokens

EOS = 0


@dataclass(frozen=True)
class ToyTokenizer:
    """Letters: token 1 is `a`, token 2 is `b` ... A prompt's characters are folded onto them."""

    vocabulary: int
    eos: int = EOS
    stop_tokens: Tokens = (EOS,)

    def encode(self, prompt: Prompt) -> Tokens:
        return tuple(1 + ord(c) % (self.vocabulary - 1) for c in prompt.text[-3:])

    def continuation(self, text: str) -> Tokens:
        return tuple(ord(c) - 96 for c in text)

    def token(self, text: str) -> int:
        return self.encode(Prompt(text[-1:]))[0]

    def decode(self, tokens: Sequence[int]) -> str:
        return "".join(chr(96 + t) for t in tokens if t != EOS)


@dataclass(frozen=True)
class TabularModel:
    """Next-token probabilities for every context: random ones from a seed, or a given table.

    table: maps a context (prompt and response so far) to probabilities [vocabulary].
    """

    name: str = "toy"
    vocabulary: int = 3
    seed: int = 0
    table: Callable[[Tokens], Sequence[float]] | None = None
    kind: str = "base"
    context_length: int = 4096

    def __post_init__(self) -> None:
        require_integer("model.vocabulary", self.vocabulary, 2)

    def tokenizer(self) -> ToyTokenizer:
        return ToyTokenizer(self.vocabulary)

    def identity(self) -> Mapping[str, Any]:
        return {"id": "toy", "vocabulary": self.vocabulary, "seed": self.seed}

    def size(self) -> None:
        """A table multiplies nothing."""

    def p(self, context: Tokens) -> np.ndarray:
        """Next-token probabilities after a context, float64 [vocabulary]."""
        if self.table is not None:
            return np.asarray(self.table(context), dtype=np.float64)
        return _random_row(self.seed, self.vocabulary, context)


@cache
def _random_row(seed: int, vocabulary: int, context: Tokens) -> np.ndarray:
    logits = np.random.default_rng((seed, *context)).normal(scale=1.3, size=vocabulary)
    return np.exp(logits) / np.exp(logits).sum()
