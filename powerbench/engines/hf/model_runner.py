"""Forward passes: prompts into the cache, and decoding steps that draw a token for each of some slots.

On CUDA a decoding step is recorded once per batch size as a graph of fixed shapes, and replayed without
a synchronisation. Where that is not done (a support to restrict to; longrope's long factors, or both sets of
them at work side by side; a device that cannot record), the same code runs step by step.
"""

import sys
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from transformers import PreTrainedModel

from powerbench.engines.hf.attention_batches import (
    Batch,
    Chunk,
    DecodeCPU,
    DecodeCUDA,
    DecodeFixedShape,
    Prefill,
)
from powerbench.engines.hf.graphs import GraphRecorder
from powerbench.engines.hf.kv_cache import KVCache
from powerbench.engines.hf.paged_batches import paged_decode, paged_prefill
from powerbench.engines.hf.paged_cache import PagedCache
from powerbench.engines.hf.request import EngineRequest
from powerbench.engines.hf.slots import Slots
from powerbench.engines.sampling import draw
from powerbench.errors import UserError, first_line
from powerbench.types import Tokens

TILE = 32
"""In deterministic mode every forward pass has this many tokens, some of them padding."""


class DecodeSettings(NamedTuple):
    """What is known of the requests of a step without asking the device."""

    largest_k: int
    greedy: bool
    top: int
    """The largest number of most likely tokens that any of them asks for."""
    supports: Sequence[Tokens | None]

    @classmethod
    def of(cls, requests: Sequence[EngineRequest]) -> "DecodeSettings":
        return cls(
            largest_k=max(request.top_k for request in requests),
            greedy=any(request.extend.tau == 0 for request in requests),
            top=max(request.top_logprobs for request in requests),
            supports=[request.extend.support for request in requests],
        )


class ModelRunner:
    """Runs the model over the cache and the slots.

    switch: beyond how many tokens longrope's factors change; None if they never do.
    deterministic: fixed shapes only.
    graphs: whether decoding steps are recorded. "auto": on CUDA, unless that fails, which is said once;
        True: a recording that fails is an error.
    """

    def __init__(
        self,
        lm: PreTrainedModel,
        cache: KVCache,
        slots: Slots,
        switch: int | None,
        deterministic: bool,
        graphs: bool | str = "auto",
    ) -> None:
        self.lm, self.cache, self.slots = lm, cache, slots
        self.switch, self.deterministic = switch, deterministic
        self.device = slots.device
        self.graphs_required = graphs is True
        self.graphs = bool(graphs) and self.device.type == "cuda" and not deterministic
        """Whether steps are recorded from now on: may be switched off at any time."""
        self.varlen = isinstance(cache, PagedCache)
        """Whether torch's attention over different lengths is used: may be switched off at any time."""
        self.recorder = GraphRecorder(slots)
        # Graphs read it: it must stay.
        self.all_slots = torch.arange(slots.max_num_seqs, device=self.device)

    def discard_graphs(self) -> None:
        """Tensors have moved: what was recorded is void."""
        self.recorder.discard()

    # -- prompts --------------------------------------------------------------------------------

    def prefill(self, chunks: Sequence[Chunk], long: bool) -> None:
        """Compute keys and values of these tokens."""
        self.cache.commit()
        every = [
            (row, start + i, token)
            for row, start, tokens in chunks
            for i, token in enumerate(tokens)
        ]
        size = TILE if self.deterministic else len(every)
        for i in range(0, len(every), size):
            rows, positions, tokens = self._tensor(every[i : i + size]).T
            batch: Batch
            if self.deterministic:
                where = [(row, position) for row, position, _ in every[i : i + size]]
                batch = DecodeFixedShape(self.cache, rows, positions, where)
            elif isinstance(self.cache, PagedCache):
                batch = paged_prefill(self.cache, chunks, self.varlen)
            else:
                batch = Prefill(self.cache, chunks)
            self._run(tokens, positions, batch, long, logits=False)

    # -- decoding -------------------------------------------------------------------------------

    def decode(
        self, requests: Sequence[EngineRequest], long: bool, steps: int, alone: bool = True
    ) -> None:
        """Draw up to `steps` tokens for each request (slots ascending); fewer for those that end.

        alone: no other request is at work, with the other set of longrope's factors.
        """
        self.cache.commit()
        settings, slots = DecodeSettings.of(requests), [request.slot for request in requests]
        recordable = alone and not long and not any(settings.supports)
        if recordable and (graph := self._graph(1 << slots[-1].bit_length(), settings)):
            for _ in range(steps):
                graph.replay()
            return
        rows = self._tensor(slots)
        for _ in range(steps):
            for at in range(0, len(slots), TILE if self.deterministic else len(slots)):
                part = slice(at, at + TILE if self.deterministic else None)
                supports = settings.supports[part]
                self._step(rows[part], long, settings._replace(supports=supports), leading=False)

    def _step(
        self, rows: torch.Tensor, long: bool, settings: DecodeSettings, leading: bool
    ) -> None:
        """One token for each of these slots; leading: they are the first ones, some of them idle."""
        positions = self.slots.position[rows]
        batch = self._batch(rows, positions, leading)
        # The longest position of a call decides the factors: idle slots must not be it.
        if leading and self.switch is not None:
            positions = torch.where(self.slots.active[rows], positions, 0)
        logits = self._run(self.slots.token[rows], positions, batch, long, logits=True)
        uniforms, tau, top_k = self.slots.settings(rows)
        if (short := len(logits) - len(rows)) > 0:  # fixed shapes: padding is drawn for as well
            uniforms, tau, top_k = (
                torch.nn.functional.pad(column, (0, short)) for column in (uniforms, tau, top_k)
            )
        support = self._support(settings.supports, logits)
        largest_k, greedy, top, _ = settings
        drawn = draw(logits, uniforms, tau, top_k, support, largest_k, greedy, top)
        self.slots.advance(rows, type(drawn)(*(column[: len(rows)] for column in drawn)))

    def _batch(self, rows: torch.Tensor, positions: torch.Tensor, leading: bool) -> Batch:
        if self.deterministic:
            where = list(zip(rows.tolist(), positions.tolist(), strict=True))
            return DecodeFixedShape(self.cache, rows, positions, where)
        if isinstance(self.cache, PagedCache):
            active = self.slots.active[rows]
            return paged_decode(self.cache, rows, positions, active, leading, self.varlen)
        if self.device.type == "cuda":
            return DecodeCUDA(self.cache, rows, positions, leading)
        longest = 1 + int(positions.max())
        return DecodeCPU(self.cache, rows, positions, 1 + int(rows[-1]), longest)

    def _graph(self, size: int, settings: DecodeSettings) -> torch.cuda.CUDAGraph | None:
        """A recorded step of the first `size` slots (or all, if fewer): idle ones take nothing in.

        None where steps are not recorded. Raises UserError where they have to be, and cannot.
        """
        if not self.graphs:
            return None
        size = min(size, self.slots.max_num_seqs)
        name = size, settings.largest_k, settings.greedy, settings.top, self.varlen
        settings = settings._replace(supports=())
        step = partial(self._step, self.all_slots[:size], False, settings, leading=True)
        try:
            return self.recorder.graph(name, step)
        except RuntimeError as error:
            reason = first_line(error)
            if self.graphs_required:
                raise UserError(
                    f"engine.graphs=true: a decoding step cannot be recorded on {self.device}: {reason}"
                ) from error
            self.graphs = False
            self.discard_graphs()
            print(
                f"CUDA graphs do not work on {self.device} ({reason}); decoding goes on step by step, slower",
                file=sys.stderr,
            )
            return None

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
