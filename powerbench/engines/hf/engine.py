"""The hf engine: continuous batching of requests over one Hugging Face causal LM.

A step schedules requests, prefills, decodes, and collects what is finished. Requests join and leave at
every step. A chain's prefix stays resident (see `prefix_cache`), so going on from it computes nothing
again.

Covered: causal attention with a sliding window, grouped heads, longrope. Not covered, and refused when the
model is loaded (see `architecture`): encoder-decoder models, attention with soft caps, sinks or biases, and
models that keep a state other than keys and values.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from powerbench.engines.base import EFFICIENT_NUM_SEQS, Finished
from powerbench.engines.drafter import MOST, Drafter, Writing, pass_counts
from powerbench.engines.hf.architecture import longrope_switch, require_drivable
from powerbench.engines.hf.attention import ATTENTION
from powerbench.engines.hf.cache_plan import make_cache
from powerbench.engines.hf.fusing import fuse
from powerbench.engines.hf.model_runner import ModelRunner
from powerbench.engines.hf.pass_times import pass_times
from powerbench.engines.hf.prefix_cache import PrefixCache
from powerbench.engines.hf.projections import can_pack, pack
from powerbench.engines.hf.remembered_check import remembered_check
from powerbench.engines.hf.request import EngineRequest, Status
from powerbench.engines.hf.scheduler import Scheduler
from powerbench.engines.hf.slots import Slots
from powerbench.errors import UserError, require, require_integer
from powerbench.models import HubModel
from powerbench.models.device import use
from powerbench.models.float32_head import keep_float32
from powerbench.types import Draw, Extend, Key, Tokens

STEPS_PER_SYNC = {"cpu": 1, "mps": 1, "cuda": 8}
"""Tokens decoded between two synchronisations: one is free on the CPU, and stops the device on CUDA."""

MAX_PREFILL_TOKENS = {"cpu": 512, "mps": 512, "cuda": 4096}
"""Prompt tokens computed in one step: as many as keep the device busy."""

DRAFT_WIDTHS = (1, 3, 5, 9, 17)
"""Tokens a row of passes on CUDA: each is recorded for itself."""


class HFEngine:
    """Runs up to `max_num_seqs` requests at once.

    model: loaded here, onto `device` (see `models.device.choose`).
    max_prompt, max_tokens: the longest prompt and response to expect, in tokens; the cache is sized
        for them, and grows for longer prompts.
    max_num_seqs: lowered, with a word on stderr, to what fits the memory that is free; None chooses by the
        device (see `cache_plan`).
    max_prefill_tokens: at most this many prompt tokens are computed in one step; None chooses by the device.
    deterministic: the same samples, bit for bit on one machine, whatever the batch, order and
        max_num_seqs: every product has one fixed shape. Slower; `make bench` measures by how much.
    graphs: whether decoding steps are recorded as CUDA graphs. "auto": on CUDA, and where that fails decoding
        goes on step by step, with a word on stderr; True: an error where it fails; False: never.
    steps_per_sync: tokens decoded before the host asks which requests are over; None chooses by the device. A
        pass that computes drafts is one step.
    draft: tokens of a draft, at most (see `drafter`): "auto": as many as pay, by the time that passes take
        here; 0: none.
    check_device: compare a GPU's results with a plain pass at its first use (see `self_check`); tests do so
        for the CPU.
    """

    def __init__(
        self,
        model: HubModel,
        max_prompt: int,
        max_tokens: int,
        max_num_seqs: int | None = None,
        max_prefill_tokens: int | None = None,
        device: str = "auto",
        deterministic: bool = False,
        graphs: bool | str = "auto",
        steps_per_sync: int | None = None,
        check_device: bool = False,
        draft: int | str = "auto",
    ) -> None:
        for name, value in (
            ("max_num_seqs", max_num_seqs),
            ("max_prefill_tokens", max_prefill_tokens),
            ("steps_per_sync", steps_per_sync),
        ):
            if value is not None:
                require_integer(f"engine.{name}", value, 1)
        require(
            graphs == "auto" or isinstance(graphs, bool),
            f"engine.graphs must be auto, true or false, got {graphs!r}",
        )
        if draft != "auto":
            require_integer("engine.draft", draft, 0)
        most_drafted = MOST if draft == "auto" else int(draft)
        self.max_tokens = max_tokens
        self.lm = model.load(device, ATTENTION)
        first = next(self.lm.parameters())
        self.device = first.device
        use(self.device)
        require(
            graphs is not True or (self.device.type == "cuda" and not deterministic),
            f"engine.graphs=true needs CUDA, and engine.deterministic=false; this is {self.device}"
            + (", deterministic" if deterministic else ""),
        )
        config = self.lm.config.get_text_config()
        require_drivable(self.lm, str(model.name))
        keep_float32(self.lm, self.device)
        if self.device.type == "cpu" and can_pack():
            if fuse(self.lm):
                require_drivable(self.lm, str(model.name))
            pack(self.lm)
        self.switch = longrope_switch(config)
        self.vocabulary = config.vocab_size
        self.beyond = most_drafted if self.device.type == "cuda" else 0
        """Positions that a pass of fixed shape may compute beyond a sequence's end."""
        capacity = max_prompt + max_tokens + self.beyond
        self.cache, fit = make_cache(
            max_num_seqs, config, capacity, first.dtype, self.device, fixed_shape=deterministic
        )
        self.max_num_seqs = fit
        self.efficient_num_seqs = min(fit, EFFICIENT_NUM_SEQS[self.device.type])
        self.steps_per_sync = steps_per_sync or STEPS_PER_SYNC[self.device.type]
        max_prefill_tokens = max_prefill_tokens or MAX_PREFILL_TOKENS[self.device.type]
        self.slots = Slots(fit, max_tokens, self.device, most_drafted)
        self.scheduler = Scheduler(PrefixCache(self.cache, fit), max_prefill_tokens)
        self.runner = ModelRunner(
            self.lm, self.cache, self.slots, self.switch, deterministic, graphs
        )
        self.positions = [0] * fit
        """The position of each slot when the host last knew it."""
        self.drafter = self._drafter(draft, most_drafted)
        self.device_check: Mapping[str, Any] | None = None
        if check_device and self.device.type != "cpu":
            self.device_check = remembered_check(self)

    @torch.inference_mode()
    def submit(self, chain: int, prompt: Tokens, request: Extend, uniforms: np.ndarray) -> None:
        require(request.until > request.keep, f"nothing to decode: until={request.until}")
        new = EngineRequest(
            chain,
            prompt,
            request,
            uniforms,
            long=self.switch is not None and len(prompt) + self.max_tokens > self.switch,
            top_k=min(request.top_k or 0, self.vocabulary),
            top_logprobs=min(request.top_logprobs, self.vocabulary),
        )
        self._reserve(new)
        self.scheduler.add(new)

    def withdraw(self, chain: int, key: Key | None = None) -> int:
        if self.drafter is not None and key is None:
            self.drafter.forget(chain)
        decoded = 0
        for request in self.scheduler.withdraw(chain, key):
            decoded += request.preempted
            if request.running:
                decoded += int(self.slots.position[request.slot]) + 1 - len(request.known)
                self.slots.active[request.slot] = False
        return decoded

    @torch.inference_mode()
    def step(self) -> list[Finished]:
        for request in self.scheduler.schedule():
            self.slots.load(request)
            self.positions[request.slot] = len(request.known) - 1
            if self.drafter is not None:
                request.writing = self.drafter.begin(
                    request.chain, request.prompt, request.extend, request.uniforms
                )
        self._prefill()
        return self._collect(self._decode())

    def _prefill(self) -> None:
        for long, chunks in self.scheduler.prefill_batches():
            self.runner.prefill(chunks, long)
            for chunk in chunks:
                if self.scheduler.by_slot[chunk.row].status is Status.DECODING:
                    self.slots.active[chunk.row] = True

    def _decode(self) -> list[EngineRequest]:
        """Decode for whoever can; returns those for whom that was done."""
        decoded = []
        for slot in self.scheduler.make_room(max(self.steps_per_sync, 1 + self.slots.most_drafted)):
            self.slots.active[slot] = False
        batches = list(self.scheduler.decode_batches())
        for long, requests in batches:
            drafts = self.drafter.draft(_writings(requests)) if self.drafter is not None else ()
            steps = min(self.steps_per_sync, max(each.left for each in requests))
            self.runner.decode(requests, long, steps, alone=len(batches) == 1, drafts=drafts)
            decoded += requests
        return decoded

    def _collect(self, decoded: list[EngineRequest]) -> list[Finished]:
        """Answer the requests that are over, in the order of their slots."""
        if not decoded:
            return []
        decoded.sort(key=lambda each: each.slot)
        over = self._over(decoded)
        finished = []
        for request, new in zip(over, self.slots.read(over), strict=True):
            self.scheduler.finish(request, (*request.known, *new.tokens[:-1]))
            counted = request.prefilled, new.top_logprobs, request.preempted
            passes = pass_counts(request.writing, len(new.tokens))
            draw = Draw(*new[:-2], *counted, new.log_normalisers, *passes)
            finished.append(Finished(request.chain, request.key, draw))
        return finished

    def _over(self, decoded: Sequence[EngineRequest]) -> list[EngineRequest]:
        """Which of these have ended. Raises UserError where none has moved since the last look."""
        positions, active = self.slots.position.tolist(), self.slots.active.tolist()
        grown = [positions[each.slot] - self.positions[each.slot] for each in decoded]
        require(
            any(grown),
            f"engine=hf: no response has grown in {self.steps_per_sync} decoding steps on {self.device}; "
            f"set {'engine.graphs=false' if self.runner.graphs else 'another engine.device'}",
        )
        for each, tokens in zip(decoded, grown, strict=True):
            self.positions[each.slot] += tokens
            each.decoded += tokens
        if self.drafter is not None:
            latest = self.slots.latest(decoded, grown)
            for writing, (tokens, logq) in zip(_writings(decoded), latest, strict=True):
                self.drafter.take(writing, tokens, logq)
        return [each for each in decoded if not active[each.slot]]

    def _reserve(self, request: EngineRequest) -> None:
        """Make room for a request that is longer, or reports more, than any before it."""
        extend, length = request.extend, len(request.prompt) + request.extend.until + self.beyond
        moved = False
        if length > self.cache.capacity:
            try:
                self.cache.grow(length, self._used())
            except torch.OutOfMemoryError as error:
                raise UserError(
                    f"a sequence of {length} tokens is longer than planned, and a KV cache of "
                    f"{self.cache.rows} rows of that length does not fit {self.device}; set a smaller "
                    f"engine.max_num_seqs"
                ) from error
            moved = True
        numbers = len(extend.stop_tokens), request.top_logprobs, len(extend.exponents)
        moved |= self.slots.reserve(extend.until, *numbers)
        if moved:
            self.runner.discard_graphs()

    def _drafter(self, draft: int | str, most: int) -> Drafter | None:
        if most == 0:
            return None
        times = pass_times(self.runner, self.lm) if draft == "auto" else None
        return Drafter(most, times, DRAFT_WIDTHS if self.runner.fixed else ())

    def _used(self) -> list[int]:
        """How many positions of each row hold something."""
        used = self.scheduler.prefix_cache.lengths()
        # A row itself knows only what was there before it decodes.
        for slot in self.scheduler.decoding:
            used[slot] = int(self.slots.position[slot])
        return used


def _writings(requests: Sequence[EngineRequest]) -> list[Writing]:
    return [request.writing for request in requests if request.writing is not None]
