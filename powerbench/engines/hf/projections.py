"""Linear layers for decoding on a CPU: weights laid out once as oneDNN's kernels read them.

A batch of decoding rows is a matrix of few rows. The library's linear layer hands it to a product that
is made for many, and rearranges the weights at every call: for 4 to 64 rows that is about half the speed.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

ROWS = 32
"""The number of rows that the layout is chosen for; it serves any number."""


class PackedLinear(nn.Module):
    """A linear layer whose weight exists only in oneDNN's own layout."""

    def __init__(self, linear: Any) -> None:
        super().__init__()
        weight = linear.weight.detach()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight, ROWS)
        self.bias = linear.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., in] -> [..., out]"""
        return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")

    def silu(self, x: torch.Tensor) -> torch.Tensor:
        """silu of `forward`, by the same call."""
        return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "swish", [], "")

    def times(self, x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """`forward` times another tensor of the result's shape, by the same call."""
        binary = torch.ops.mkldnn._linear_pointwise.binary
        return binary(x, other, self.weight, self.bias, "mul")


class Part(nn.Module):
    """A linear layer that is some rows of a wider one's weight."""

    def __init__(self, whole: nn.Module, start: int, size: int) -> None:
        super().__init__()
        self.whole, self.start, self.size = whole, start, size

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., in] -> [..., size]"""
        return self.whole(x).narrow(-1, self.start, self.size)


@torch.no_grad()
def joined(parts: Sequence[nn.Linear]) -> nn.Linear:
    """One linear layer with the outputs of all parts, one after the other.

    Raises ValueError where some have a bias and others none.
    """
    first, size = parts[0], sum(part.out_features for part in parts)
    biases: list[torch.Tensor] = [part.bias for part in parts if part.bias is not None]
    if len(biases) not in (0, len(parts)):
        raise ValueError("of the parts some have a bias, and others none")
    whole = nn.Linear(first.in_features, size, bias=bool(biases), device="meta")
    weight = torch.cat(tuple(part.weight for part in parts))
    whole.weight = nn.Parameter(weight, requires_grad=False)
    if biases:
        whole.bias = nn.Parameter(torch.cat(biases), requires_grad=False)
    return whole


def can_pack() -> bool:
    """Whether this build of torch has oneDNN's linear layers (those that its compiler uses)."""
    has_mkldnn: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return has_mkldnn and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")


def packable(linear: Any) -> bool:
    """Whether this is a linear layer in a precision that oneDNN has here."""
    known = [torch.float32]
    if torch.ops.mkldnn._is_mkldnn_bf16_supported():
        known.append(torch.bfloat16)
    return type(linear) is nn.Linear and linear.weight.dtype in known


@torch.no_grad()
def pack(model: nn.Module) -> None:
    """Replace a model's linear layers by packed ones, in place; one that was packed stays as it is."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if packable(child):
                setattr(parent, name, PackedLinear(child))
