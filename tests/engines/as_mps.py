"""An Apple GPU as if: tensors of a device of their own, on the CPU, that refuses what such a device lacks.

The device is named `apple` (torch's PrivateUse1), and says it is MPS to whoever asks. Its tensors wrap a CPU
tensor each. What raises: float64; an operator that mixes both devices; and ordering int64, which older
systems do as int32 (pytorch's Sort.mm, castToIHFTypes).

Not shown: whether MPS has every operator, how it rounds, and speed.
"""

import copy
from dataclasses import dataclass
from typing import Any

import pytest
import tiny
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend
from transformers import PreTrainedModel

from powerbench.engines.hf import HFEngine
from powerbench.engines.hf.attention import ATTENTION

NAME = "apple"

_setup_privateuseone_for_python_backend(NAME)

DEVICE = torch.device(NAME, 0)

CROSSING = ("aten::_to_copy", "aten::to", "aten::copy_")
"""What may see both devices."""

ORDERING = ("aten::topk", "aten::sort", "aten::argsort")


class Apple(torch.Tensor):
    """A tensor on the device."""

    data_there: torch.Tensor

    @staticmethod
    def __new__(cls, raw: torch.Tensor) -> "Apple":
        if raw.dtype in (torch.float64, torch.complex128):
            raise TypeError(f"Cannot convert a MPS Tensor to {raw.dtype}")
        with torch.inference_mode(False):  # a view of one that was made outside must be as it is
            made = torch.Tensor._make_wrapper_subclass(
                cls, raw.shape, raw.stride(), raw.storage_offset(), dtype=raw.dtype, device=DEVICE
            )
        made.data_there = raw
        return made

    def tolist(self) -> Any:
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        return computed(func, args, kwargs or {})


def computed(func: Any, args: Any, kwargs: Any) -> Any:
    """The operator's result, on the device that its arguments, or `device`, name."""
    name = func._schema.name
    leaves = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
    ours = [x for x in leaves if isinstance(x, Apple)]
    others = [x for x in leaves if not isinstance(x, Apple) and x.dim()]
    if ours and others and name not in CROSSING:
        raise RuntimeError(f"{func}: tensors on {DEVICE} and on the CPU")
    if name in ORDERING and ours[:1] and ours[0].dtype == torch.int64:
        raise RuntimeError(f"{func} of int64 is not right on MPS")
    asked = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.device)]
    there = asked[0].type == NAME if asked else bool(ours)
    if name == "aten::copy_":
        there = isinstance(args[0], Apple)
    by_raw = {id(x.data_there): x for x in ours}
    args, kwargs = tree_map(_raw, (args, kwargs))
    result = func(*args, **kwargs)
    if not there:
        return result

    def put(x: Any) -> Any:
        if not isinstance(x, torch.Tensor):
            return x
        return by_raw[id(x)] if id(x) in by_raw else Apple(x)

    return tree_map(put, result)


def _raw(x: Any) -> Any:
    """What the CPU computes with instead."""
    if isinstance(x, torch.device):
        return torch.device("cpu")
    return x.data_there if isinstance(x, Apple) else x


class OnApple(TorchDispatchMode):
    """Within it, the device is there."""

    def __enter__(self) -> "OnApple":
        torch._C._set_only_lift_cpu_tensors(
            True
        )  # torch.tensor's way to the device is an operator then
        return super().__enter__()

    def __exit__(self, *raised: Any) -> None:
        torch._C._set_only_lift_cpu_tensors(False)
        super().__exit__(*raised)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        return computed(func, args, kwargs or {})


class ClaimedDevice(str):
    """A device by torch's name for it, that says it is MPS to whoever asks."""

    type, index = "mps", None


@dataclass(frozen=True)
class AppleModel:
    """A tiny model, its weights on the device."""

    name: str
    dtype: torch.dtype = torch.float32

    def load(self, device: str, attention: str) -> PreTrainedModel:
        ours, plain = tiny.models(self.name, self.dtype)
        lm = copy.deepcopy(ours if attention == ATTENTION else plain)
        for module in lm.modules():
            for name, parameter in module.named_parameters(recurse=False):
                module._parameters[name] = torch.nn.Parameter(Apple(parameter.data), False)
            for name, buffer in module.named_buffers(recurse=False):
                module._buffers[name] = Apple(buffer)
        return lm


def pretend(patch: pytest.MonkeyPatch) -> None:
    """Engines with an `AppleModel` run on the device from now on, within `OnApple`."""
    patch.setattr(torch.mps, "empty_cache", lambda: None)
    claimed = property(lambda engine: ClaimedDevice(DEVICE), lambda engine, device: None)
    patch.setattr(HFEngine, "device", claimed, raising=False)
