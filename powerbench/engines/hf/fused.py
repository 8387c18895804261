"""The modules of a decoder layer in fewer operators, for decoding on a CPU.

With few rows an operator costs more to call than to compute, and to have it computed by several threads more
than they spare. Each of these stands for a module of the library (see `fusing`), and gives the same up to
rounding.
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import nn

from powerbench.engines.hf.attention import attend
from powerbench.engines.hf.attention_batches import AttentionInputs
from powerbench.engines.hf.projections import PackedLinear, Part, joined

ONE_THREAD = 32768
"""Elements up to which torch computes a simple operator in one thread. Waking the others takes longer than they
spare of a few times as many, and beside busy programs ten times as long."""

MOST_GROUPS = 4
"""Up to so many times as many, tokens are taken in groups of one thread each."""

APART = "q_proj", "k_proj", "v_proj"
"""The linear layers of attention where they are not one, `qkv_proj`."""


class Replacement(nn.Module):
    """Stands for a module of the library, which computes where `active` is False, with the same weights."""

    def __init__(self, plain: nn.Module) -> None:
        super().__init__()
        self.plain, self.active = plain, True

    def adopt(self) -> None:
        """Have the plain module use the weights that are here, so that none exists twice."""


class FusedNorm(Replacement):
    """RMSNorm, in float32 whatever its inputs are."""

    def __init__(self, plain: nn.Module, weight: torch.Tensor, eps: float) -> None:
        super().__init__(plain)
        self.weight = weight.detach().float()
        self.eps, self.share = torch.tensor(eps), 1.0 / len(weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., N, dim] -> [..., N, dim]"""
        if not self.active:
            return cast(torch.Tensor, self.plain(x))
        result = torch.empty_like(x)
        for part, target in zip(_groups(x, -2), _groups(result, -2), strict=True):
            norm = torch.linalg.vector_norm(part, dim=-1, keepdim=True, dtype=torch.float32)
            scale = torch.addcmul(self.eps, norm, norm, value=self.share).rsqrt_()
            torch.mul(part * scale, self.weight, out=target)
        return result


class FusedMLP(Replacement):
    """silu(gate(x)) * up(x) within the two products."""

    def __init__(self, plain: Any) -> None:
        super().__init__(plain)
        self.gate, self.up, self.down = (
            PackedLinear(each) for each in (plain.gate_proj, plain.up_proj, plain.down_proj)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., hidden] -> [..., hidden]"""
        if not self.active:
            return cast(torch.Tensor, self.plain(x))
        return cast(torch.Tensor, self.down(self.up.times(x, self.gate.silu(x))))

    def adopt(self) -> None:
        plain: Any = self.plain
        plain.gate_proj, plain.up_proj, plain.down_proj = self.gate, self.up, self.down


class FusedAttention(Replacement):
    """Queries, keys and values of one product, rotated together.

    asked: what the module asks of our attention.
    """

    def __init__(self, plain: Any, asked: AttentionInputs) -> None:
        super().__init__(plain)
        self.layer, self.scaling = asked.layer, asked.scaling
        self.sliding_window = asked.window  # a name by which `architecture` shortens it
        self.dim = asked.query.shape[2]
        self.sizes = [len(part) for part in (asked.query, asked.key, asked.value)]
        self.turned = self.sizes[0] + self.sizes[1]
        self.normed = hasattr(plain, "q_norm")
        whole = getattr(plain, "qkv_proj", None)
        self.qkv = PackedLinear(whole or joined([getattr(plain, name) for name in APART]))
        self.out = PackedLinear(plain.o_proj)

    def forward(
        self,
        hidden_states: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        **options: Any,
    ) -> tuple[torch.Tensor, None]:
        """[1, N, hidden] -> [1, N, hidden]"""
        plain: Any = self.plain
        if not self.active:
            result = plain(hidden_states, position_embeddings=position_embeddings, **options)
            return cast(tuple[torch.Tensor, None], result)
        states = self.qkv(hidden_states).view(hidden_states.shape[1], -1, self.dim)
        query, key, value = states.split(self.sizes, dim=1)
        if self.normed:
            query.copy_(plain.q_norm(query))
            key.copy_(plain.k_norm(key))
        rotate(states[:, : self.turned], *position_embeddings)
        query, key, value = (part.transpose(0, 1) for part in (query, key, value))
        window, scaling = self.sliding_window, self.scaling
        inputs = AttentionInputs(self.layer, query, key, value, window, scaling)
        output = attend(options["batch"], inputs).transpose(0, 1)
        return self.out(output.reshape(1, len(states), -1)), None

    def adopt(self) -> None:
        plain: Any = self.plain
        plain.o_proj = self.out
        if hasattr(plain, "qkv_proj"):
            plain.qkv_proj = self.qkv
            return
        start = 0
        for name, heads in zip(APART, self.sizes, strict=True):
            setattr(plain, name, Part(self.qkv, start, heads * self.dim))
            start += heads * self.dim


def rotate(states: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> None:
    """Rotary positions, in place: states [N, heads, dim]; cos and sin [1, N, dim]."""
    half = states.shape[-1] // 2
    factors = (_groups(x[0][:, None].expand_as(states), 0) for x in (cos, sin))
    for part, cosine, sine in zip(_groups(states, 0), *factors, strict=True):
        turned = torch.cat((-part[..., half:], part[..., :half]), dim=-1)
        part.mul_(cosine).addcmul_(turned, sine)


def _groups(x: torch.Tensor, dim: int) -> Sequence[torch.Tensor]:
    """A few tokens in groups along a dimension that one thread computes; many tokens as they are."""
    groups = -(-x.numel() // ONE_THREAD)
    return x.chunk(groups, dim) if 1 < groups <= MOST_GROUPS else (x,)
