"""How many operators a decoding step on CUDA launches; counted without a GPU, and without weights.

The step runs on tensors that have a shape and no data, at a model's real size. What asks the device raises
there, so that a count also shows that the step can be recorded. Each operator is a kernel, a few are several;
without a graph the host takes some microseconds for each.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from powerbench.bench.gpu import RandomModel
from powerbench.engines.hf.attention import ATTENTION
from powerbench.engines.hf.model_runner import ModelRunner
from powerbench.engines.hf.paged_cache import PagedCache
from powerbench.engines.hf.request import DecodeSettings
from powerbench.engines.hf.slots import Slots

ASKING = {
    "aten::_local_scalar_dense",
    "aten::equal",
    "aten::is_nonzero",
    "aten::item",
    "aten::masked_select",
    "aten::nonzero",
    "aten::lift_fresh",  # what torch.tensor does with numbers of the host
}
"""Operators whose result, or its shape, the host has to know; or that take from the host."""

VIEWS = {"alias", "as_strided", "detach", "expand", "permute", "select", "slice", "split", "view"}
VIEWS |= {"split_with_sizes", "squeeze", "t", "transpose", "unbind", "unsqueeze"}
VIEWS |= {"_reshape_alias", "_unsafe_view"}
"""Operators that launch nothing."""

SETTINGS: Mapping[str, DecodeSettings] = {
    "plain": DecodeSettings(largest_k=0, greedy=False, top=0, supports={}),
    "greedy": DecodeSettings(largest_k=0, greedy=True, top=0, supports={}),
    "top_k": DecodeSettings(largest_k=50, greedy=False, top=0, supports={}),
    "top_logprobs": DecodeSettings(largest_k=0, greedy=False, top=20, supports={}),
    "exponents": DecodeSettings(largest_k=0, greedy=False, top=0, supports={}, exponents=4),
}


class ClaimedDevice(str):
    """A device by torch's name for it, that says it is CUDA to whoever asks."""

    type = "cuda"
    index = 0  # type: ignore[assignment]

    def __str__(self) -> str:
        return "cuda:0"

    def __format__(self, spec: str) -> str:
        return format(str(self), spec)


class Operators(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees each operator that a device would run, and refuses what makes the host wait for it.

    Raises AssertionError for what asks the device, or copies from the host.
    """

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        options = kwargs or {}
        with self:  # what is made of other operators shows as these
            result = func.decompose(*args, **options)
        if result is not NotImplemented:
            return result
        masks = tree_leaves(args[1:2]) if "index" in func.name() else []
        asks = func._schema.name in ASKING or any(
            isinstance(index, torch.Tensor) and index.dtype == torch.bool for index in masks
        )
        assert not asks, f"{func.name()} asks the device, or copies from the host"
        result = func(*args, **options)
        self.ran(func, args, options, result)
        return result

    def ran(self, operator: Any, arguments: Any, options: Any, result: Any) -> None:
        """An operator was run."""
        raise NotImplementedError


class _Count(Operators):
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: Counter[str] = Counter()

    def ran(self, operator: Any, arguments: Any, options: Any, result: Any) -> None:
        name = operator._schema.name.partition("::")[2]
        if name.rstrip("_") not in VIEWS:
            self.seen[name] += 1


class Launches(NamedTuple):
    """Operators of a step: in all, in each layer, and outside of the layers."""

    all: int
    layer: int
    outside: int


def launches(shape: str, settings: DecodeSettings) -> Launches:
    """Of a step of a model of `shape`, see `count`."""
    every = count(shape, settings).total()
    one, two = (count(shape, settings, layers).total() for layers in (1, 2))
    return Launches(every, two - one, 2 * one - two)


@torch.inference_mode()
def count(
    shape: str,
    settings: DecodeSettings,
    layers: int | None = None,
    num_seqs: int = 32,
    width: int = 1,
) -> Counter[str]:
    """Operators, by name, of a step of `num_seqs` sequences over a cache in pages.

    shape: of `bench.gpu.SHAPES`; layers: rather than its own number of them; width: tokens of each
        sequence, its draft's among them.
    Raises AssertionError, or what torch raises, where the step asks the device.
    """
    device: Any = ClaimedDevice("meta")
    lm = RandomModel(shape, torch.bfloat16, layers).load("meta", ATTENTION)
    cache = PagedCache(lm.config, 2 * num_seqs, 4096, 16 * num_seqs, torch.bfloat16, device)
    slots = Slots(num_seqs, 3072, device, most_drafted=width - 1)
    slots.reserve(3072, 2, settings.top, settings.exponents)
    runner = ModelRunner(lm, cache, slots, None, deterministic=False)
    with _Count() as counted:
        runner._step(runner.all_slots, False, settings, width, None, leading=True)
    return counted.seen
