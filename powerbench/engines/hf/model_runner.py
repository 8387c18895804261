"""Forward passes: prompts into the cache, and decoding steps that draw tokens for each of some slots.

On CUDA a decoding step is recorded once per batch size as a graph of fixed shapes, and replayed without
a synchronisation. Where that is not done (a support to restrict to; longrope's long factors, or both sets of
them at work side by side; a device that cannot record), the same code runs step by step.
"""

import sys
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from transformers import PreTrainedModel

from powerbench.engines.hf.attention_batches import (
    Batch,
    Chunk,
    DecodeCUDA,
    DecodeFixedShape,
    Prefill,
)
from powerbench.engines.hf.decode_cpu import DecodeCPU
from powerbench.engines.hf.graphs import GraphRecorder
from powerbench.engines.hf.kv_cache import ContiguousCache, KVCache
from powerbench.engines.hf.paged_batches import paged_decode, paged_prefill
from powerbench.engines.hf.paged_cache import PagedCache
from powerbench.engines.hf.request import DecodeSettings, EngineRequest
from powerbench.engines.hf.slots import Fed, Slots
from powerbench.engines.sampling import Drawn, draw
from powerbench.errors import UserError, first_line
from powerbench.types import Tokens

TILE = 32
"""In deterministic mode every forward pass has this many tokens, some of them padding."""


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
        self,
        requests: Sequence[EngineRequest],
        long: bool,
        steps: int,
        alone: bool = True,
        drafts: Sequence[Tokens] = (),
    ) -> None:
        """Draw up to `steps` tokens for each request (slots ascending), fewer for those that end; or, with a
        draft for each of them, in one pass as many as the draft has right, and one more.

        alone: no other request is at work, with the other set of longrope's factors.
        """
        self.cache.commit()
        settings, slots = DecodeSettings.of(requests), [request.slot for request in requests]
        width = 1 + self.slots.draft(requests, drafts)
        steps = steps if width == 1 else 1
        recordable = alone and not long and not any(settings.supports.values())
        if recordable and (graph := self._graph(1 << slots[-1].bit_length(), width, settings)):
            for _ in range(steps):
                graph.replay()
            return
        rows, computed = self._tensor(slots), self._computed(drafts, width)
        for _ in range(steps):
            self._step(rows, long, settings, width, computed, leading=False)

    def idle_pass(self, slots: int, width: int) -> None:
        """Compute a pass over `width` tokens of each of the first slots, none of which is at work: nothing
        changes, and it is over on the device when this returns."""
        settings = DecodeSettings(largest_k=0, greedy=False, top=0, supports={})
        if graph := self._graph(slots, width, settings):
            graph.replay()
        else:
            rows = self.all_slots[:slots]
            self._step(rows, False, settings, width, computed=None, leading=self.fixed)
        self.slots.position.tolist()

    def _computed(self, drafts: Sequence[Tokens], width: int) -> torch.Tensor | None:
        """Which of the tokens that `Slots.feed` gives are computed: int64, or None for all of them, which
        CUDA's fixed shapes ask for."""
        if self.fixed or all(len(draft) + 1 == width for draft in drafts):
            return None
        return self._tensor(
            [i * width + j for i, d in enumerate(drafts) for j in range(len(d) + 1)]
        )

    @property
    def fixed(self) -> bool:
        """Whether each pass computes as many tokens of every row."""
        return self.device.type == "cuda" and not self.deterministic

    def _step(
        self,
        rows: torch.Tensor,
        long: bool,
        settings: DecodeSettings,
        width: int,
        computed: torch.Tensor | None,
        leading: bool,
    ) -> None:
        """A pass that draws up to `width` tokens for each of these slots.

        computed: as `_computed` says; leading: they are the first slots, some of them idle.
        """
        fed = self.slots.feed(rows, width, settings.exponents)
        if computed is not None:
            fed = fed.at(computed)
        if self.deterministic:
            tiles = [self._draw(each, self._tile(each), long, settings) for each in _tiles(fed)]
            drawn = Drawn(*(torch.cat(column) for column in zip(*tiles, strict=True)))
        else:
            batch = self._batch(fed, rows, width, leading)
            if self.fixed:
                fed = fed._replace(positions=self._within(fed, width, leading))
            drawn = self._draw(fed, batch, long, settings)
        self.slots.advance(rows, drawn.by_row(len(rows), width, computed))

    def _draw(self, fed: Fed, batch: Batch, long: bool, settings: DecodeSettings) -> Drawn:
        logits = self._run(fed.tokens, fed.positions, batch, long, logits=True)
        count = len(fed.tokens)
        if len(logits) > count:  # fixed shapes: padding is drawn for as well
            fed = fed.padded(len(logits) - count)
        drawn = draw(
            logits,
            fed.uniforms,
            fed.tau,
            fed.top_k,
            self._support(fed.rows, settings.supports, logits),
            settings.largest_k,
            settings.greedy,
            settings.top,
            fed.exponents,
        )
        return Drawn(*(column[:count] for column in drawn))

    def _within(self, fed: Fed, width: int, leading: bool) -> torch.Tensor:
        """The tokens' positions as the model reads them: what follows a draft may lie beyond the last one."""
        slots, positions = self.slots, fed.positions
        if width > 1:
            positions = torch.minimum(positions, slots.end[fed.rows] - 1)
        # The longest position of a call decides longrope's factors: idle slots must not be it.
        if leading and self.switch is not None:
            positions = torch.where(slots.active[fed.rows], positions, 0)
        return positions

    def _batch(self, fed: Fed, rows: torch.Tensor, width: int, leading: bool) -> Batch:
        if not self.fixed:
            assert isinstance(self.cache, ContiguousCache)
            return DecodeCPU(self.cache, fed.rows, fed.positions, fed.offsets)
        positions = fed.positions.view(-1, width)
        if isinstance(self.cache, PagedCache):
            active = self.slots.active[rows]
            return paged_decode(self.cache, rows, positions, active, leading, self.varlen)
        return DecodeCUDA(self.cache, rows, positions, leading)

    def _tile(self, fed: Fed) -> DecodeFixedShape:
        where = list(zip(fed.rows.tolist(), fed.positions.tolist(), strict=True))
        return DecodeFixedShape(self.cache, fed.rows, fed.positions, where)

    def _graph(
        self, size: int, width: int, settings: DecodeSettings
    ) -> torch.cuda.CUDAGraph | None:
        """A recorded step of the first `size` slots (or all, if fewer), each with `width` tokens: idle ones
        take nothing in.

        None where steps are not recorded. Raises UserError where they have to be, and cannot.
        """
        if not self.graphs:
            return None
        size = min(size, self.slots.max_num_seqs)
        settings = settings._replace(supports={})
        name = size, width, *settings[:3], settings.exponents, self.varlen
        rows = self.all_slots[:size]
        step = partial(self._step, rows, False, settings, width, None, leading=True)
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
        self, rows: torch.Tensor, supports: Mapping[int, Tokens | None], logits: torch.Tensor
    ) -> torch.Tensor | None:
        if not any(supports.values()):
            return None
        allowed = torch.ones_like(logits, dtype=torch.bool)
        for row, slot in zip(allowed, rows.tolist(), strict=False):
            if (support := supports.get(slot)) is not None:
                row[:] = False
                row[list(support)] = True
        return allowed

    def _tensor(self, numbers: Sequence[Any]) -> torch.Tensor:
        return torch.tensor(numbers, dtype=torch.int64, device=self.device)


def _tiles(fed: Fed) -> list[Fed]:
    """The same tokens, up to TILE at a time, so that those of a row stay in their order."""
    return [Fed(*part) for part in zip(*(torch.split(column, TILE) for column in fed), strict=True)]
