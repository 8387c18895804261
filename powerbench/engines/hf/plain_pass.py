"""The library's own forward pass, over the weights that the engine drives: what its results must equal."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers import PreTrainedModel


@contextmanager
def plain_attention(lm: PreTrainedModel) -> Iterator[None]:
    """Within it, the model attends by its own code, not by ours.

    "eager" is the one implementation that every architecture has, with all that it adds to a score.
    """
    configs = {id(m.config): m.config for m in lm.modules() if isinstance(m, PreTrainedModel)}
    ours = [(config, config._attn_implementation) for config in configs.values()]
    try:
        for config, _ in ours:
            config._attn_implementation = "eager"
        yield
    finally:
        for config, implementation in ours:
            config._attn_implementation = implementation


@torch.inference_mode()
def plain_logp(lm: PreTrainedModel, sequences: torch.Tensor) -> torch.Tensor:
    """Next-token log-probabilities, float32 [B, N, V], of whole sequences, int64 [B, N]."""
    with plain_attention(lm):
        return lm(input_ids=sequences, use_cache=False).logits.float().log_softmax(-1)
