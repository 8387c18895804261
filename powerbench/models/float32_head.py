"""Logits that keep the precision in which a GPU sums them: the output matrix of half-precision models.

A product of bfloat16 matrices is summed in float32 and rounded to bfloat16, which puts logits of 16 to 32 on a
grid of 0.125. On CUDA the product can return the sums themselves, at no cost. What a model does with its
logits after that (scales them, caps them) it does in float32 then.
"""

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

HALF = (torch.bfloat16, torch.float16)

TRIED = 4
"""Rows of the matrix itself, on which both products are compared."""

ROUNDING = 2.0**-6
"""At most this much apart, relative to the largest logit: twice what rounding to bfloat16 makes of it."""


class Float32Head(nn.Module):
    """A linear layer without bias, of half-precision weights and inputs, and float32 outputs."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight = linear.weight  # may be the embedding table, too
        self.in_features, self.out_features = linear.in_features, linear.out_features

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., in] -> [..., out]"""
        flat = x.reshape(-1, x.shape[-1])
        logits = torch.mm(flat, self.weight.T, out_dtype=torch.float32)
        return logits.view(*x.shape[:-1], -1)


@torch.inference_mode()
def keep_float32(lm: PreTrainedModel, device: torch.device) -> bool:
    """Give a model on CUDA a `Float32Head`, in place, where its output layer is a plain matrix in half
    precision, and torch has the product; whether it has one."""
    head: Any = lm.get_output_embeddings()
    if isinstance(head, Float32Head):
        return True
    if (
        device.type != "cuda"
        or type(head) is not nn.Linear
        or getattr(head, "bias", None) is not None
    ):
        return False
    if head.weight.dtype not in HALF or not _same(head):
        return False
    places = [
        (parent, name)
        for parent in lm.modules()
        for name, child in parent.named_children()
        if child is head
    ]
    for parent, name in places:
        setattr(parent, name, Float32Head(head))
    return bool(places)


def _same(head: nn.Linear) -> bool:
    """Whether both products are there, and agree."""
    hidden = head.weight[:TRIED]
    try:
        wide = Float32Head(head)(hidden)
    except (RuntimeError, TypeError):  # older than torch 2.8, or another device's
        return False
    narrow = head(hidden).float()
    return bool((wide - narrow).abs().max() <= ROUNDING * narrow.abs().max())
