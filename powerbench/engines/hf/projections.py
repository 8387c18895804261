"""Linear layers for decoding on a CPU: weights laid out once as oneDNN's kernels read them.

A batch of decoding rows is a matrix of few rows. The library's linear layer hands it to a product that
is made for many, and rearranges the weights at every call: for 4 to 64 rows that is about half the speed.
"""

import torch
from torch import nn

ROWS = 32
"""The number of rows that the layout is chosen for; it serves any number."""


class PackedLinear(nn.Module):
    """A linear layer whose weight exists only in oneDNN's own layout."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight, ROWS)
        self.bias = linear.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., in] -> [..., out]"""
        return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")


def can_pack() -> bool:
    """Whether this build of torch has oneDNN's linear layers (those that its compiler uses)."""
    has_mkldnn: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return has_mkldnn and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")


@torch.no_grad()
def pack(model: nn.Module) -> None:
    """Replace a model's linear layers by packed ones, in place; one that was packed stays as it is."""
    known = [torch.float32]
    if torch.ops.mkldnn._is_mkldnn_bf16_supported():
        known.append(torch.bfloat16)
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear and child.weight.dtype in known:
                setattr(parent, name, PackedLinear(child))
