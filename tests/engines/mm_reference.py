"""torch.mm with an `out_dtype` on the CPU, which torch has on CUDA only: a stand-in that registers itself."""

import torch

_library = torch.library.Library("aten", "IMPL")


def mm(a: torch.Tensor, b: torch.Tensor, out_dtype: torch.dtype) -> torch.Tensor:
    """Half-precision matrices, their product summed in float32: with the checks of CUDA's."""
    assert a.dtype == b.dtype and a.dtype in (torch.bfloat16, torch.float16)
    assert out_dtype in (a.dtype, torch.float32)
    return a.float() @ b.float()


_library.impl("mm.dtype", mm, "CPU")
