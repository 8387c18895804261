"""A tabular language model over a handful of tokens, for exact laws."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch

from powerbench.errors import require_integer
from powerbench.models.base import Availability
from powerbench.models.files import require_name
from powerbench.models.token_logprobs import Scorer, Text, TokenLogprobs, gathered
from powerbench.types import Message, Prompt, Tokens

EOS = 0


@dataclass(frozen=True)
class ToyTokenizer:
    """Letters: token 1 is `a`, token 2 is `b` ... A prompt's characters are folded onto them."""

    vocabulary: int
    eos: int = EOS
    stop_tokens: Tokens = (EOS,)

    def encode(self, prompt: Prompt) -> Tokens:
        return tuple(1 + ord(c) % (self.vocabulary - 1) for c in prompt.text[-3:])

    def chat(self, messages: Sequence[Message]) -> Tokens:
        return self.encode(Prompt(messages[-1].text))

    def continuation(self, text: str) -> Tokens:
        return tuple(ord(c) - 96 for c in text)

    def token(self, text: str) -> int:
        return self.encode(Prompt(text[-1:]))[0]

    def line_ends(self) -> Tokens:
        return (self.token("\n"),)

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
        require_name(str(self.name))

    @property
    def vocabulary_size(self) -> int:
        return self.vocabulary

    def tokenizer(self) -> ToyTokenizer:
        return ToyTokenizer(self.vocabulary)

    def identity(self) -> Mapping[str, Any]:
        return {"id": "toy", "vocabulary": self.vocabulary, "seed": self.seed}

    def size(self) -> None:
        """A table multiplies nothing."""

    def driven_by(self, engine: str) -> bool:
        return engine == "toy"

    def available(self) -> Availability:
        return Availability(True, "needs nothing")

    def scorer(self, device: str) -> Scorer:
        return lambda texts: [self._score(text) for text in texts]

    def p(self, context: Tokens) -> np.ndarray:
        """Next-token probabilities after a context, float64 [vocabulary]."""
        if self.table is not None:
            return np.asarray(self.table(context), dtype=np.float64)
        return _random_row(self.seed, self.vocabulary, context)

    def _score(self, text: Text) -> TokenLogprobs:
        rows = [self.p(text.prompt + text.response[:i]) for i in range(len(text.response))]
        p = torch.tensor(np.array(rows)).reshape(-1, self.vocabulary)
        return gathered(p.log(), torch.tensor(text.response, dtype=torch.long))


@cache
def _random_row(seed: int, vocabulary: int, context: Tokens) -> np.ndarray:
    logits = np.random.default_rng((seed, *context)).normal(scale=1.3, size=vocabulary)
    return np.exp(logits) / np.exp(logits).sum()
