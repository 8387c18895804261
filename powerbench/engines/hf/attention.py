"""The library's attention-function extension point: what a model's layers call.

A forward pass is a flat batch of tokens, [1, N]; `attention_batches` holds what such a batch may be.
"""

from typing import Any

import torch
from transformers import AttentionInterface

from powerbench.engines.hf.attention_batches import AttentionInputs, Batch
from powerbench.errors import UserError

ATTENTION = "powerbench"
"""The name to load a model with: `attn_implementation=ATTENTION`."""

SUPPORTED = {"sliding_window", "position_ids", "is_causal", "use_cache", "output_attentions"}
"""What attention reads, or what does not concern it."""

NOT_ATTENTION = {"output_router_logits", "output_hidden_states"}
"""What mixtures of experts, and others, hand to every layer."""


def attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    batch: Batch | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """The attention function of a layer: query [1, heads, N, dim] -> [1, N, heads, dim].

    Raises UserError for what a model asks beyond causal attention with a sliding window.
    """
    known = SUPPORTED | NOT_ATTENTION
    if unknown := sorted(name for name in options.keys() - known if options[name] is not None):
        raise UserError(f"attention with {', '.join(unknown)} is not covered")
    if batch is None:
        raise UserError("its layers do not hand on what they are called with")
    if attention_mask is not None or dropout:
        raise UserError("attention with a mask or a dropout of its own is not covered")
    layer = int(module.layer_idx)  # type: ignore[arg-type]
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    window: int | None = options.get("sliding_window")
    inputs = AttentionInputs(layer, query[0], key[0], value[0], window, scaling)
    return attend(batch, inputs).transpose(0, 1)[None], None


def attend(batch: Batch, inputs: AttentionInputs) -> torch.Tensor:
    """[heads, N, dim], as the batch does; a window as long as the cache hides nothing, and costs a mask."""
    if inputs.window is not None and inputs.window >= batch.cache.capacity:
        inputs = inputs._replace(window=None)
    return batch.attend(inputs)


AttentionInterface.register(ATTENTION, attention)
