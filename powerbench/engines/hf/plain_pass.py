"""The library's own forward pass, over the weights that the engine drives: what its results must equal."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers import PreTrainedModel

from powerbench.engines.hf.fusing import plain_modules


@contextmanager
def plain_attention(lm: PreTrainedModel, way: str = "eager") -> Iterator[None]:
    """Within it, the model computes and attends by the library's code, not by ours.

    way: "eager" is the one implementation that every architecture has, with all that it adds to a score.
    """
    configs = {id(m.config): m.config for m in lm.modules() if isinstance(m, PreTrainedModel)}
    ours = [(config, config._attn_implementation) for config in configs.values()]
    try:
        for config, _ in ours:
            config._attn_implementation = way
        with plain_modules(lm):
            yield
    finally:
        for config, implementation in ours:
            config._attn_implementation = implementation


@torch.inference_mode()
def plain_logp(lm: PreTrainedModel, sequences: torch.Tensor, way: str = "eager") -> torch.Tensor:
    """Next-token log-probabilities, float32 [B, N, V], of whole sequences, int64 [B, N]."""
    with plain_attention(lm, way):
        return lm(input_ids=sequences, use_cache=False).logits.float().log_softmax(-1)


@torch.inference_mode()
def long_plain_logp(
    lm: PreTrainedModel, sequence: torch.Tensor, switch: int, way: str = "eager"
) -> torch.Tensor:
    """As `plain_logp` for one sequence, [1, N], with longrope's long factors.

    The library picks factors by the longest position of a call: a token more, which none of the others
    sees, is at the position where they change.
    """
    tokens = torch.nn.functional.pad(sequence, (0, 1))
    positions = torch.arange(tokens.shape[1], device=tokens.device)
    positions[-1] = switch
    options = {"input_ids": tokens, "position_ids": positions[None], "use_cache": False}
    with plain_attention(lm, way):
        return lm(**options).logits[:, :-1].float().log_softmax(-1)
