"""CUDA as if: the paths of the hf engine that only CUDA takes, on the CPU.

Who asks for CUDA gets the CPU, under a name that says cuda. A graph is a tape of the operators of one step:
replayed, they run without Python, on the tensors that they read when they were recorded, and write into those
that they wrote into then. That is what a CUDA graph does: state that Python had baked in, and tensors that
have moved since, show. What asks the device, or copies from the host, fails while a graph is recorded: by an
AssertionError, which no way back from a failed recording hides. Attention over sequences of different lengths
is `varlen_reference`.

Not shown: whether a kernel can be recorded, a pool's memory, and speed.
"""

from collections.abc import Callable
from typing import Any

import pytest
import tiny
import torch
import varlen_reference  # noqa: F401  (registers itself)
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from powerbench.bench.operators import ClaimedDevice, Operators
from powerbench.engines.hf import HFEngine

FREE_BYTES = 2**30

TO_AND_FROM_HOST = {
    torch.tensor,
    torch.as_tensor,
    torch.from_numpy,
    torch.Tensor.cpu,
    torch.Tensor.numpy,
    torch.Tensor.tolist,
}


class Stream:
    def wait_stream(self, other: "Stream") -> None:
        """All runs in order here."""


class CUDAGraph:
    """The operators of a step, each with the tensors that it read and wrote when it was recorded."""

    def __init__(self) -> None:
        self.tape: list[tuple[Any, Any, Any, list[Any]]] = []

    def replay(self) -> None:
        for operator, arguments, options, outputs in self.tape:
            results = tree_leaves(operator(*arguments, **options))
            for before, now in zip(outputs, results, strict=True):
                if isinstance(before, torch.Tensor) and before.data_ptr() != now.data_ptr():
                    assert before.shape == now.shape, f"{operator} depends on what it reads"
                    before.copy_(now)


class _Recording(Operators):
    def __init__(self, graph: CUDAGraph) -> None:
        super().__init__()
        self.graph = graph

    def ran(self, operator: Any, arguments: Any, options: Any, result: Any) -> None:
        self.graph.tape.append((operator, arguments, options, tree_leaves(result)))


class _WithoutHost(TorchFunctionMode):
    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        assert func not in TO_AND_FROM_HOST, f"{func} while a graph is recorded"
        return func(*args, **(kwargs or {}))


class Device:
    """What torch.cuda knows: the stream that is current, and what is being recorded."""

    def __init__(self) -> None:
        self.stream = Stream()
        self.recording = False

    def current_stream(self, device: object = None) -> Stream:
        return self.stream

    def set_stream(self, stream: Stream) -> None:
        self.stream = stream

    def synchronize(self, device: object = None) -> None:
        if self.recording:
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing")

    def entered(self, stream: Stream) -> "_Entered":
        return _Entered(self, stream)

    def graph(
        self, graph: CUDAGraph, pool: object = None, stream: Stream | None = None
    ) -> "_Capture":
        return _Capture(self, graph, stream or Stream())


class _Entered:
    """torch.cuda.stream"""

    def __init__(self, device: Device, stream: Stream) -> None:
        self.device, self.stream = device, stream

    def __enter__(self) -> None:
        self.before, self.device.stream = self.device.stream, self.stream

    def __exit__(self, *raised: object) -> None:
        self.device.stream = self.before


class _Capture(_Entered):
    """torch.cuda.graph; as there, a failed recording leaves its stream the current one."""

    def __init__(self, device: Device, graph: CUDAGraph, stream: Stream) -> None:
        super().__init__(device, stream)
        self.modes = _Recording(graph), _WithoutHost()

    def __enter__(self) -> None:
        self.device.synchronize()
        super().__enter__()
        self.device.recording = True
        for mode in self.modes:
            mode.__enter__()

    def __exit__(self, *raised: Any) -> None:
        for mode in reversed(self.modes):
            mode.__exit__(*raised)
        self.device.recording = False
        if raised[0] is not None and issubclass(raised[0], RuntimeError):
            raise RuntimeError("CUDA error: operation failed due to a previous error")
        super().__exit__(*raised)


def pretend(patch: pytest.MonkeyPatch) -> None:
    """Engines for device="cuda" run here from now on."""
    device, nothing = Device(), lambda *arguments: None
    stand_ins: dict[str, Callable[..., Any]] = {
        "CUDAGraph": CUDAGraph,
        "Stream": Stream,
        "current_stream": device.current_stream,
        "empty_cache": nothing,
        "get_device_capability": lambda device: (9, 0),
        "get_device_name": lambda device: "as if CUDA",
        "graph": device.graph,
        "graph_pool_handle": lambda: (0, 1),
        "is_current_stream_capturing": lambda: device.recording,
        "mem_get_info": lambda device: (FREE_BYTES, FREE_BYTES),
        "memory_allocated": lambda device: 0,
        "memory_reserved": lambda device: 0,
        "set_device": nothing,
        "set_stream": device.set_stream,
        "stream": device.entered,
        "synchronize": device.synchronize,
    }
    for name, stand_in in stand_ins.items():
        patch.setattr(torch.cuda, name, stand_in)
    patch.setitem(tiny.DEVICES, "cuda", "cpu")
    claimed = property(lambda engine: ClaimedDevice("cpu"), lambda engine, device: None)
    patch.setattr(HFEngine, "device", claimed, raising=False)
