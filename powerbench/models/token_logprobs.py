"""A given response under a model: log-probability and entropy of every token, by plain forward passes."""

from __future__ import annotations  # transformers takes seconds to import, and is not needed here

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch

from powerbench.types import LOG_ZERO, Tokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CHUNK = 256
"""Positions whose logits are held at once: a vocabulary of 150,000 makes 0.15 GiB of them."""


class Text(NamedTuple):
    """A prompt and a response in a model's tokens."""

    prompt: Tokens
    response: Tokens


class TokenLogprobs(NamedTuple):
    """What a model says of a response, in nats: both [tokens]."""

    logp: tuple[float, ...]
    entropy: tuple[float, ...]


Scorer = Callable[[Sequence[Text]], list[TokenLogprobs]]
"""Scores a batch of texts."""


@torch.inference_mode()
def score_texts(lm: PreTrainedModel, texts: Sequence[Text]) -> list[TokenLogprobs]:
    """One padded pass over a batch; logits in float32, a few positions at a time."""
    longest = max(len(t.prompt) + len(t.response) for t in texts)
    ids = torch.zeros(len(texts), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, text in enumerate(texts):
        whole = torch.tensor(text.prompt + text.response, dtype=torch.long)
        ids[row, : len(whole)], mask[row, : len(whole)] = whole, 1
    passed = lm.base_model(input_ids=ids.to(lm.device), attention_mask=mask.to(lm.device))
    hidden, head = passed.last_hidden_state, lm.get_output_embeddings()
    scored = []
    for row, text in enumerate(texts):
        first = len(text.prompt) - 1  # the position that predicts the response's first token
        of_response = hidden[row, first : first + len(text.response)]
        tokens = torch.tensor(text.response, dtype=torch.long, device=lm.device)
        parts = [
            gathered(
                head(of_response[i : i + CHUNK]).float().log_softmax(-1), tokens[i : i + CHUNK]
            )
            for i in range(0, len(tokens), CHUNK)
        ]
        scored.append(
            TokenLogprobs(sum((p.logp for p in parts), ()), sum((p.entropy for p in parts), ()))
        )
    return scored


def gathered(logp: torch.Tensor, tokens: torch.Tensor) -> TokenLogprobs:
    """logp: [positions, vocabulary]; tokens: [positions]."""
    logp = logp.clamp(min=LOG_ZERO)  # as in sampling
    entropy = -(logp.exp() * logp).sum(-1)
    return TokenLogprobs(
        tuple(logp.gather(-1, tokens[:, None])[:, 0].tolist()), tuple(entropy.tolist())
    )
