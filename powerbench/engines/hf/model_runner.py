"""Forward passes: prompts into the cache, and decoding steps that draw a token for each of some lanes.

On CUDA a decoding step is recorded once per batch width as a graph of fixed shapes, and replayed without
a question to the device. Where that is not done (a support to restrict to; longrope, whose two regimes may
be at work side by side), the same code runs step by step.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from transformers import PreTrainedModel

from powerbench.engines.hf.attention_batches import Batch, Decoding, Fixed, OnDevice, Piece, Pieces
from powerbench.engines.hf.kv_cache import KVCache
from powerbench.engines.hf.slots import Lanes
from powerbench.engines.sampling import draw
from powerbench.types import Tokens

TILE = 32
"""In deterministic mode every forward pass has so many tokens, some of them padding."""


class Settings(NamedTuple):
    """What is known of the requests of a step without asking the device."""

    largest_k: int
    greedy: bool
    top: int
    """The most of the likeliest tokens that any of them asks for."""
    supports: Sequence[Tokens | None]


class Forward:
    """Runs the model over the cache and the lanes.

    switch: beyond how many tokens longrope's factors change; None if they never do.
    deterministic: fixed shapes only.
    """

    def __init__(
        self,
        lm: PreTrainedModel,
        cache: KVCache,
        lanes: Lanes,
        switch: int | None,
        deterministic: bool,
    ) -> None:
        self.lm, self.cache, self.lanes = lm, cache, lanes
        self.switch, self.deterministic = switch, deterministic
        self.device = lanes.device
        self.graphs: dict[tuple[int, int, bool, int], torch.cuda.CUDAGraph] = {}
        self.pool: Any = None  # memory that the graphs share: they never run at once
        self.every = torch.arange(lanes.width, device=self.device)  # graphs read it: it must stay

    def forget(self) -> None:
        """Tensors have moved: what was recorded is void."""
        self.graphs.clear()
        self.pool = None

    # -- prompts --------------------------------------------------------------------------------

    def fill(self, pieces: Sequence[Piece], long: bool) -> None:
        """Compute keys and values of these tokens."""
        every = [
            (row, start + i, token)
            for row, start, tokens in pieces
            for i, token in enumerate(tokens)
        ]
        size = TILE if self.deterministic else len(every)
        for i in range(0, len(every), size):
            rows, positions, tokens = self._tensor(every[i : i + size]).T
            batch: Batch
            if self.deterministic:
                where = [(row, position) for row, position, _ in every[i : i + size]]
                batch = Fixed(self.cache, rows, positions, where)
            else:
                batch = Pieces(self.cache, pieces)
            self._run(tokens, positions, batch, long, logits=False)

    # -- decoding -------------------------------------------------------------------------------

    def decode(self, lanes: Sequence[int], long: bool, settings: Settings, steps: int) -> None:
        """Draw up to `steps` tokens for each of these lanes (ascending); fewer for those that end."""
        on_cuda = self.device.type == "cuda" and not self.deterministic
        if on_cuda and self.switch is None and not any(settings.supports):
            graph = self._graph(1 << lanes[-1].bit_length(), settings)
            for _ in range(steps):
                graph.replay()
            return
        rows = self._tensor(lanes)
        for _ in range(steps):
            for at in range(0, len(lanes), TILE if self.deterministic else len(lanes)):
                part = slice(at, at + TILE if self.deterministic else None)
                supports = settings.supports[part]
                self._step(rows[part], long, settings._replace(supports=supports), leading=False)

    def _step(self, rows: torch.Tensor, long: bool, settings: Settings, leading: bool) -> None:
        """One token for each of these lanes; leading: they are the first ones."""
        positions = self.lanes.position[rows]
        batch = self._batch(rows, positions, leading)
        logits = self._run(self.lanes.token[rows], positions, batch, long, logits=True)
        uniforms, tau, top_k = self.lanes.settings(rows)
        if (short := len(logits) - len(rows)) > 0:  # fixed shapes: padding is drawn for as well
            uniforms, tau, top_k = (
                torch.nn.functional.pad(column, (0, short)) for column in (uniforms, tau, top_k)
            )
        support = self._support(settings.supports, logits)
        largest_k, greedy, top, _ = settings
        drawn = draw(logits, uniforms, tau, top_k, support, largest_k, greedy, top)
        self.lanes.advance(rows, type(drawn)(*(column[: len(rows)] for column in drawn)))

    def _batch(self, rows: torch.Tensor, positions: torch.Tensor, leading: bool) -> Batch:
        if self.deterministic:
            where = list(zip(rows.tolist(), positions.tolist(), strict=True))
            return Fixed(self.cache, rows, positions, where)
        if self.device.type == "cuda":
            return OnDevice(self.cache, rows, positions, leading)
        longest = 1 + int(positions.max())
        return Decoding(self.cache, rows, positions, 1 + int(rows[-1]), longest)

    def _graph(self, width: int, settings: Settings) -> torch.cuda.CUDAGraph:
        """A recorded step of the first `width` lanes (or all, if fewer): idle ones take nothing in."""
        width = min(width, self.lanes.width)
        name = width, settings.largest_k, settings.greedy, settings.top
        if name not in self.graphs:
            rows = self.every[:width]
            settings = settings._replace(supports=())
            saved = [tensor.clone() for tensor in self.lanes.progress()]
            stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):  # libraries allocate and choose kernels at first use
                for _ in range(2):
                    self._step(rows, False, settings, leading=True)
            torch.cuda.current_stream().wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            self.pool = self.pool or torch.cuda.graph_pool_handle()
            with torch.cuda.graph(graph, pool=self.pool, stream=stream):
                self._step(rows, False, settings, leading=True)
            for tensor, before in zip(self.lanes.progress(), saved, strict=True):
                tensor.copy_(before)
            self.graphs[name] = graph
        return self.graphs[name]

    # -- the model ------------------------------------------------------------------------------

    def _run(
        self,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        batch: Batch,
        long: bool,
        logits: bool,
    ) -> torch.Tensor:
        """Logits [N, V] of these tokens (or nothing of use); N is a multiple of TILE if that is fixed."""
        count, extra = len(tokens), []
        if self.deterministic:
            extra = [0] * (-count % TILE)
        if long:  # the library picks factors by the longest position of a call: this token is it
            assert self.switch is not None
            extra = [*extra, self.switch]
        if extra:
            tokens = torch.nn.functional.pad(tokens, (0, len(extra)))
            positions = torch.cat((positions, self._tensor(extra)))
        options: dict[str, Any] = {
            "input_ids": tokens[None],
            "position_ids": positions[None],
            "use_cache": False,
            "batch": batch,
        }
        if not logits:
            self.lm.base_model(**options)
            return tokens
        result = self.lm(**options).logits[0]
        return result[: len(tokens) - long]

    def _support(
        self, supports: Sequence[Tokens | None], logits: torch.Tensor
    ) -> torch.Tensor | None:
        if not any(supports):
            return None
        allowed = torch.ones_like(logits, dtype=torch.bool)
        for row, support in zip(allowed, supports, strict=False):
            if support is not None:
                row[:] = False
                row[list(support)] = True
        return allowed

    def _tensor(self, numbers: Sequence[Any]) -> torch.Tensor:
        return torch.tensor(numbers, dtype=torch.int64, device=self.device)
