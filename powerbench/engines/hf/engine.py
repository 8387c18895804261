"""The hf engine: continuous batching of requests over one Hugging Face causal LM.

Requests join and leave at every step. A chain's prefix stays resident (see `rows`), and one that joins
looks for a row that already holds the start of its prompt: replicates of a problem share one prefill,
and problems share their few-shot examples or system prompt.

Covered: causal attention with a sliding window, grouped heads, longrope. Not covered: encoder-decoder
models, attention with soft caps or sinks, and models that keep a state other than keys and values.
"""

import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from powerbench.engines.base import EFFICIENT_NUM_SEQS, Finished
from powerbench.engines.hf.architecture import attends_only, longrope_switch
from powerbench.engines.hf.attention import ATTENTION
from powerbench.engines.hf.attention_batches import Piece
from powerbench.engines.hf.kv_cache import KVCache, planned_width
from powerbench.engines.hf.model_runner import Forward, Settings
from powerbench.engines.hf.prefix_cache import Rows, common
from powerbench.engines.hf.projections import can_pack, pack
from powerbench.engines.hf.slots import Lanes
from powerbench.errors import UserError, require, require_integer
from powerbench.models import HubModel
from powerbench.types import Draw, Extend, Key, Tokens

WORTH_WAITING = 8
"""A request waits a step for another's prefill if that spares it so many tokens of its own."""

STEPS_PER_SYNC = {"cpu": 1, "cuda": 8}
"""Tokens decoded between two looks at what is over: looking is free on the CPU, a stop on CUDA."""


@dataclass
class _Job:
    """A request at work."""

    chain: int
    prompt: Tokens
    request: Extend
    uniforms: np.ndarray
    long: bool
    """Whether the chain uses longrope's long factors: decided by its own longest length alone."""
    prefilled: int = 0

    @property
    def known(self) -> Tokens:
        """Prompt and kept response: the last of these tokens is the first to be fed for decoding."""
        return self.prompt + self.request.prefix


class HFEngine:
    """Runs up to `max_num_seqs` requests at once.

    model: loaded here, onto `device` ("auto": CUDA if there is one).
    max_prompt, max_tokens: the longest prompt and response to expect, in tokens; the cache is sized
        for them, and grows for longer prompts.
    width: lowered, with a word on stderr, to what fits the memory that is free.
    prefill_tokens: at most so many prompt tokens are computed in one step.
    deterministic: the same samples, bit for bit on one machine, whatever the batch, order and width:
        every product has one fixed shape. Slower; `make bench` measures by how much.
    steps_per_look: tokens decoded between two looks at what is over; None chooses by the device.
    """

    def __init__(
        self,
        model: HubModel,
        max_prompt: int,
        max_tokens: int,
        max_num_seqs: int = 32,
        max_prefill_tokens: int = 512,
        device: str = "auto",
        deterministic: bool = False,
        steps_per_sync: int | None = None,
    ) -> None:
        require_integer("engine.max_num_seqs", max_num_seqs, 1)
        require_integer("engine.prefill_tokens", max_prefill_tokens, 1)
        if steps_per_sync is not None:
            require_integer("engine.steps_per_look", steps_per_sync, 1)
        self.max_tokens, self.max_prefill_tokens = max_tokens, max_prefill_tokens
        self.lm = model.load(device, ATTENTION)
        first = next(self.lm.parameters())
        self.device = first.device
        config = self.lm.config.get_text_config()
        require(
            attends_only(self.lm),
            f"engine=hf cannot drive {model.name!r}: it has layers that are not causal attention, or "
            f"that take no attention function",
        )
        if self.device.type == "cpu" and can_pack():
            pack(self.lm)
        self.switch = longrope_switch(config)
        self.vocabulary = config.vocab_size
        capacity = max_prompt + max_tokens
        self.max_num_seqs = planned_width(max_num_seqs, config, capacity, first.dtype, self.device)
        if self.max_num_seqs < max_num_seqs:
            print(
                f"engine.max_num_seqs={max_num_seqs} does not fit memory; using {self.max_num_seqs}",
                file=sys.stderr,
            )
        self.efficient_num_seqs = min(self.max_num_seqs, EFFICIENT_NUM_SEQS[self.device.type])
        self.steps_per_sync = steps_per_sync or STEPS_PER_SYNC[self.device.type]
        try:
            self.cache = KVCache(config, 2 * self.max_num_seqs, capacity, first.dtype, self.device)
        except torch.OutOfMemoryError as error:
            raise UserError(
                f"the KV cache of {2 * self.max_num_seqs} rows of {capacity} tokens does not fit "
                f"{self.device}; set a smaller engine.max_num_seqs"
            ) from error
        self.rows = Rows(self.cache, self.max_num_seqs)
        self.lanes = Lanes(self.max_num_seqs, max_tokens, self.device)
        self.forward = Forward(self.lm, self.cache, self.lanes, self.switch, deterministic)
        self.waiting: deque[_Job] = deque()
        self.jobs: dict[int, _Job] = {}  # by lane
        self.filling: set[int] = set()  # lanes whose known tokens are still being computed
        self.kept: dict[int, tuple[int, Key]] = {}  # by lane: finished, and not yet withdrawn

    @torch.inference_mode()
    def submit(self, chain: int, prompt: Tokens, request: Extend, uniforms: np.ndarray) -> None:
        require(request.until > request.keep, f"nothing to decode: until={request.until}")
        long = self.switch is not None and len(prompt) + self.max_tokens > self.switch
        if request.keep < len(request.response):  # else the response goes on where it is
            current = prompt + request.response
            self.rows.shelve((chain, request.sequence), self._kept(chain), current, long)
        self.waiting.append(_Job(chain, prompt, request, uniforms, long))

    def withdraw(self, chain: int, key: Key | None = None) -> int:
        def named(job: _Job) -> bool:
            return job.chain == chain and key in (None, job.request.key)

        self.waiting = deque(job for job in self.waiting if not named(job))
        decoded = 0
        for lane in [lane for lane, job in self.jobs.items() if named(job)]:
            decoded += int(self.lanes.position[lane]) + 1 - len(self.jobs[lane].known)
            self._release(lane)
        for lane in self._kept(chain):
            if key in (None, self.kept[lane][1]):
                del self.kept[lane]
        if key is None:
            self.rows.release(chain)
        return decoded

    @torch.inference_mode()
    def step(self) -> list[Finished]:
        self._admit()
        self._fill()
        decoding = [lane for lane in sorted(self.jobs) if lane not in self.filling]
        if len(decoding) < len(self.filling):  # rather a full batch soon than a thin one now
            return []
        for long in (False, True):
            if lanes := [lane for lane in decoding if self.jobs[lane].long == long]:
                requests = [self.jobs[lane].request for lane in lanes]
                settings = Settings(
                    largest_k=max(self._top_k(request) for request in requests),
                    greedy=any(request.tau == 0 for request in requests),
                    top=max(self._top(request) for request in requests),
                    supports=[request.support for request in requests],
                )
                self.forward.decode(lanes, long, settings, self.steps_per_sync)
        active = self.lanes.active.tolist()
        return self._finish([lane for lane in decoding if not active[lane]])

    # -- admission ------------------------------------------------------------------------------

    def _admit(self) -> None:
        self._go_on()
        postponed: deque[_Job] = deque()
        while self.waiting:
            free = [lane for lane in range(self.max_num_seqs) if lane not in self.jobs]
            if not free:
                break
            job = self.waiting.popleft()
            if self._is_worth_waiting(job):
                postponed.append(job)
                continue
            own = [lane for lane in self._kept(job.chain) if lane in free]
            unkept = [lane for lane in free if lane not in self.kept]
            self._start(job, unkept or sorted(own) or free)
        self.waiting.extendleft(reversed(postponed))

    def _go_on(self) -> None:
        """Start what only continues a response in the lane where that ends: of particles with one ancestor the
        first, for the others have to copy. All others come later, lest they take that lane."""
        waiting, self.waiting = self.waiting, deque()
        for job in waiting:
            lanes = self._in_place(job)
            if lanes:
                self._start(job, lanes)
            else:
                self.waiting.append(job)

    def _is_worth_waiting(self, job: _Job) -> bool:
        """Whether a row now being filled will hold more of this chain's prompt than any does yet."""
        alike = [self.jobs[lane] for lane in self.filling if self.jobs[lane].long == job.long]
        soon = max((common(other.known, job.known) for other in alike), default=0)
        return soon > 0 and soon - self.rows.longest_start(job.known, job.long) >= WORTH_WAITING

    def _start(self, job: _Job, free: Sequence[int]) -> None:
        request, known = job.request, job.known
        self._reserve(len(job.prompt) + request.until, request)
        shelf = job.chain, request.sequence
        lane = self.rows.place(shelf, known, job.long, free, self._kept(job.chain))
        self.kept.pop(lane, None)
        self.jobs[lane] = job
        job.prefilled = len(known) - 1 - len(self.rows[lane].tokens)
        self.lanes.load(
            lane, len(job.prompt), known[-1], request, job.uniforms, self._top_k(request)
        )
        if job.prefilled:
            self.filling.add(lane)
        else:
            self.lanes.active[lane] = True

    def _in_place(self, job: _Job) -> list[int]:
        """The free lane in which a response of this chain ends that the request only continues, if there is
        one."""
        there = [lane for lane in self._kept(job.chain) if lane not in self.jobs]
        if not there or job.request.keep < len(job.request.response):
            return []
        body = list(job.known[:-1])
        return [lane for lane in there if self.rows[lane].starts(body, job.long)][:1]

    def _reserve(self, length: int, request: Extend) -> None:
        if length > self.cache.capacity:
            used = [len(self.rows[row].tokens) for row in range(2 * self.max_num_seqs)]
            for lane in self.jobs:  # the row itself knows only what was there before it decodes
                used[lane] = int(self.lanes.position[lane])
            try:
                self.cache.grow(length, used)
            except torch.OutOfMemoryError as error:
                raise UserError(
                    f"a sequence of {length} tokens is longer than planned, and a KV cache of "
                    f"{2 * self.max_num_seqs} rows of that length does not fit {self.device}; set a smaller "
                    f"engine.max_num_seqs"
                ) from error
            self.forward.forget()
        if self.lanes.reserve(request.until, len(request.stop_tokens), self._top(request)):
            self.forward.forget()

    def _top_k(self, request: Extend) -> int:
        return min(request.top_k or 0, self.vocabulary)

    def _top(self, request: Extend) -> int:
        return min(request.top_logprobs, self.vocabulary)

    def _kept(self, chain: int) -> list[int]:
        return [lane for lane, (owner, _) in self.kept.items() if owner == chain]

    # -- work -----------------------------------------------------------------------------------

    def _fill(self) -> None:
        """Compute prompts, at most `max_prefill_tokens` of them, one rope regime at a time."""
        budget = self.max_prefill_tokens
        for long in (False, True):
            todo = []
            for lane in sorted(self.filling):
                job, row = self.jobs[lane], self.rows[lane]
                if job.long == long and budget > 0:
                    start = len(row.tokens)
                    tokens = job.known[start : min(start + budget, len(job.known) - 1)]
                    budget -= len(tokens)
                    todo.append(Piece(lane, start, tokens))
                    row.tokens += tokens
                    if len(row.tokens) == len(job.known) - 1:
                        self.filling.remove(lane)
                        self.lanes.active[lane] = True
            if todo:
                self.forward.fill(todo, long)

    def _finish(self, lanes: list[int]) -> list[Finished]:
        finished = []
        for lane, read in zip(lanes, self.lanes.read(lanes) if lanes else (), strict=True):
            job = self.jobs[lane]
            self.rows[lane].tokens = [*job.known, *read.tokens[:-1]]
            self._release(lane)
            self.kept[lane] = job.chain, job.request.key
            draw = Draw(*read[:-1], prefilled=job.prefilled, top_logprobs=read.top)
            finished.append(Finished(job.chain, job.request.key, draw))
        return finished

    def _release(self, lane: int) -> None:
        """The lane decodes no longer; what it holds stays."""
        del self.jobs[lane]
        self.filling.discard(lane)
        self.lanes.active[lane] = False
