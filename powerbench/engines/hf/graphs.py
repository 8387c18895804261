"""CUDA graphs of decoding steps: each is recorded once, and replayed without a synchronisation."""

from collections.abc import Callable, Hashable
from typing import Any

import torch

from powerbench.engines.hf.slots import Slots

WARM_UP = 2
"""Steps before a recording: libraries allocate, and choose kernels, at first use."""


class GraphRecorder:
    """The graphs of one engine. They never run at once, so they share their memory.

    They do so only if they are recorded in one stream too (torch.cuda.graph).
    """

    def __init__(self, slots: Slots) -> None:
        self.slots = slots
        self.graphs: dict[Hashable, torch.cuda.CUDAGraph] = {}
        self.pool: Any = None
        self.stream: torch.cuda.Stream | None = None

    def discard(self) -> None:
        """Tensors have moved: what was recorded is void."""
        self.graphs.clear()
        self.pool = None

    def graph(self, name: Hashable, step: Callable[[], None]) -> torch.cuda.CUDAGraph:
        """The graph of this name, recorded from `step` unless it is there; the slots stay as they are.

        Raises RuntimeError where a step cannot be recorded, in the stream that was current before.
        """
        if name not in self.graphs:
            saved = [tensor.clone() for tensor in self.slots.progress()]
            before = torch.cuda.current_stream()
            try:
                self.graphs[name] = self._record(step)
            finally:
                torch.cuda.set_stream(before)  # torch leaves the stream of a failed recording
                for tensor, value in zip(self.slots.progress(), saved, strict=True):
                    tensor.copy_(value)
        return self.graphs[name]

    def _record(self, step: Callable[[], None]) -> torch.cuda.CUDAGraph:
        stream = self.stream = self.stream or torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                step()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        self.pool = self.pool or torch.cuda.graph_pool_handle()
        with torch.cuda.graph(graph, pool=self.pool, stream=stream):
            step()
        return graph
