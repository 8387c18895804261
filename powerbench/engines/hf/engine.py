"""The hf engine: continuous batching of chains over one Hugging Face causal LM.

Chains join and leave at every step. A chain's prefix stays resident (see `rows`), and one that joins
looks for a row that already holds the start of its prompt: replicates of a problem share one prefill,
and problems share their few-shot examples or system prompt.

Covered: causal attention with a sliding window, grouped heads, longrope. Not covered: encoder-decoder
models, attention with soft caps or sinks, and models that keep a state other than keys and values.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from powerbench.engines.base import Finished
from powerbench.engines.hf.architecture import attends_only, longrope_switch
from powerbench.engines.hf.attention import ATTENTION, Batch, KVCache, Piece
from powerbench.engines.hf.rows import Rows, common
from powerbench.engines.hf.sampling import draw
from powerbench.errors import UserError, require, require_integer
from powerbench.models import HubModel
from powerbench.types import Draw, Ended, Extend, Tokens

WORTH_WAITING = 8
"""A chain waits a step for another's prefill if that spares it so many tokens of its own."""


@dataclass
class _Job:
    """A request at work."""

    chain: int
    prompt: Tokens
    request: Extend
    uniforms: np.ndarray
    prefilled: int = 0

    @property
    def known(self) -> Tokens:
        """Prompt and kept response: the last of these tokens is the first to be fed for decoding."""
        return self.prompt + self.request.prefix


class HFEngine:
    """Runs up to `width` chains at once.

    model: loaded here, onto `device` ("auto": CUDA if there is one).
    max_prompt, max_tokens: the longest prompt and response to expect, in tokens; the cache is sized
        for them, and grows for longer prompts.
    prefill_tokens: at most so many prompt tokens are computed in one step.
    """

    stops: torch.Tensor
    uniforms: torch.Tensor

    def __init__(
        self,
        model: HubModel,
        max_prompt: int,
        max_tokens: int,
        width: int = 32,
        prefill_tokens: int = 512,
        device: str = "auto",
    ) -> None:
        require_integer("engine.width", width, 1)
        require_integer("engine.prefill_tokens", prefill_tokens, 1)
        self.width, self.max_tokens, self.prefill_tokens = width, max_tokens, prefill_tokens
        self.lm = model.load(device, ATTENTION)
        self.device = next(self.lm.parameters()).device
        config = self.lm.config.get_text_config()
        require(
            attends_only(self.lm),
            f"engine=hf cannot drive {model.name!r}: it has layers that are not causal attention, or "
            f"that take no attention function",
        )
        self.switch = longrope_switch(config)
        capacity = max_prompt + max_tokens
        dtype = next(self.lm.parameters()).dtype
        try:
            self.cache = KVCache(config, 2 * width, capacity, dtype, self.device)
        except torch.OutOfMemoryError as error:
            raise UserError(
                f"engine.width={width}: the KV cache of {2 * width} rows of {capacity} tokens does not "
                f"fit {self.device}; set a smaller engine.width"
            ) from error
        self.vocabulary = config.vocab_size

        self.rows = Rows(self.cache, width)
        self.lane_of: dict[int, int] = {}
        self.jobs: dict[int, _Job] = {}  # by lane
        self.filling: dict[int, deque[int]] = {}  # by lane: known tokens still to be computed
        self.waiting: deque[_Job] = deque()
        self._allocate(capacity)

    def submit(self, chain: int, prompt: Tokens, request: Extend, uniforms: np.ndarray) -> None:
        self.waiting.append(_Job(chain, prompt, request, uniforms))

    def withdraw(self, chain: int) -> None:
        self.waiting = deque(job for job in self.waiting if job.chain != chain)
        lane = self.lane_of.pop(chain, None)
        if lane is not None and lane in self.jobs:
            self._release(lane)

    @torch.inference_mode()
    def step(self) -> list[Finished]:
        self._admit()
        for long in (False, True):
            if lanes := sorted(lane for lane in self.jobs if self.rows[lane].long == long):
                self._forward(lanes, long)
        return [Finished(self.jobs[lane].chain, self._finish(lane)) for lane in self._done()]

    # -- admission ------------------------------------------------------------------------------

    def _admit(self) -> None:
        postponed: deque[_Job] = deque()
        while self.waiting:
            job = self.waiting.popleft()
            lane = self.lane_of.get(job.chain)
            if lane is None:
                lane = self._free_lane()
                if lane is None or self._is_worth_waiting(job):
                    postponed.append(job)
                    continue
                self.lane_of[job.chain] = lane
                self.rows.borrow(lane, job.known, self._is_long(job))
            else:
                current = job.prompt + job.request.response
                self.rows.restore(lane, current, kept=len(job.known) - 1)
            self._start(lane, job)
        self.waiting = postponed

    def _free_lane(self) -> int | None:
        taken = set(self.lane_of.values())
        return next((lane for lane in range(self.width) if lane not in taken), None)

    def _is_worth_waiting(self, job: _Job) -> bool:
        """Whether a row now being filled will hold more of this chain's prompt than any does yet."""
        long = self._is_long(job)
        alike = [lane for lane in self.filling if self.rows[lane].long == long]
        soon = max((common(self.jobs[lane].known, job.known) for lane in alike), default=0)
        return soon - self.rows.longest_start(job.known, long) >= WORTH_WAITING

    def _start(self, lane: int, job: _Job) -> None:
        request, known = job.request, job.known
        require(request.until > request.keep, f"nothing to decode: until={request.until}")
        self._reserve(len(job.prompt) + request.until)
        cached = self.rows[lane].tokens
        job.prefilled = len(known) - 1 - len(cached)
        self.jobs[lane] = job
        if job.prefilled:
            self.filling[lane] = deque(known[len(cached) : -1])
        self.token[lane] = known[-1]
        self.position[lane] = len(known) - 1
        self.response_start[lane] = len(job.prompt)
        self.end[lane] = len(job.prompt) + request.until
        self.tau[lane], self.alpha[lane] = request.tau, request.alpha
        self.top_k[lane] = min(request.top_k or 0, self.vocabulary)
        self.floor[lane], self.weight[lane] = request.floor, 0.0
        self.stopped[lane], self.fell[lane] = False, False
        if (short := len(request.stops) - self.stops.shape[1]) > 0:
            self.stops = torch.nn.functional.pad(self.stops, (0, short), value=-1)
        self.stops[lane] = -1
        self.stops[lane, : len(request.stops)] = torch.tensor(request.stops, device=self.device)
        self.uniforms[lane, : request.until] = torch.from_numpy(job.uniforms[: request.until])

    # -- one forward pass -----------------------------------------------------------------------

    def _is_long(self, job: _Job) -> bool:
        """Whether a chain uses longrope's long factors: decided by its own longest length alone."""
        return self.switch is not None and len(job.prompt) + self.max_tokens > self.switch

    def _pieces(self, lanes: Sequence[int]) -> Iterator[Piece]:
        budget = self.prefill_tokens
        for lane in lanes:
            if lane in self.filling and budget > 0:
                left = self.filling[lane]
                tokens = [left.popleft() for _ in range(min(budget, len(left)))]
                budget -= len(tokens)
                yield Piece(lane, len(self.rows[lane].tokens), tokens)
                self.rows[lane].tokens += tokens
                if not left:
                    del self.filling[lane]

    def _forward(self, lanes: Sequence[int], long: bool) -> None:
        pieces = list(self._pieces(lanes))
        decoding = [lane for lane in lanes if lane not in self.filling]
        rows = torch.tensor(decoding, dtype=torch.int64, device=self.device)
        positions = self.position[rows]
        flat = [token for piece in pieces for token in piece.tokens]
        at = [i for piece in pieces for i in range(piece.start, piece.start + len(piece.tokens))]
        if long:  # the library picks factors by the longest position of a call: this token is it
            assert self.switch is not None
            flat, at = [*flat, 0], [*at, self.switch]
        logits = self.lm(
            input_ids=torch.cat((self.token[rows], torch.tensor(flat, device=self.device).long()))[
                None
            ],
            position_ids=torch.cat((positions, torch.tensor(at, device=self.device).long()))[None],
            use_cache=False,
            logits_to_keep=torch.arange(len(decoding), device=self.device),
            batch=Batch(
                self.cache,
                rows,
                positions,
                last_row=max(decoding, default=0),
                longest=1 + int(positions.max()) if decoding else 0,
                pieces=pieces,
            ),
        ).logits[0]
        if decoding:
            self._sample(logits, rows, positions, decoding)

    def _sample(
        self,
        logits: torch.Tensor,
        rows: torch.Tensor,
        positions: torch.Tensor,
        lanes: Sequence[int],
    ) -> None:
        index = positions + 1 - self.response_start[rows]  # of the new token in the response
        drawn = draw(
            logits,
            self.uniforms[rows, index],
            self.tau[rows],
            self.top_k[rows],
            self._support(lanes, logits),
        )
        for buffer, column in zip(self.drawn, drawn, strict=True):
            buffer[rows, index] = column.to(buffer.dtype)
        self.weight[rows] += self.alpha[rows] * drawn.logp.double() - drawn.logq.double()
        self.fell[rows] = self.weight[rows] < self.floor[rows]
        self.stopped[rows] = (drawn.token[:, None] == self.stops[rows]).any(1)
        self.token[rows] = drawn.token
        self.position[rows] = positions + 1

    def _support(self, lanes: Sequence[int], logits: torch.Tensor) -> torch.Tensor | None:
        supports = [self.jobs[lane].request.support for lane in lanes]
        if not any(supports):
            return None
        allowed = torch.ones_like(logits, dtype=torch.bool)
        for row, support in zip(allowed, supports, strict=True):
            if support is not None:
                row[:] = False
                row[list(support)] = True
        return allowed

    # -- completion -----------------------------------------------------------------------------

    def _done(self) -> list[int]:
        over = self.fell | self.stopped | (self.position + 1 == self.end)
        return [lane for lane, is_over in enumerate(over.tolist()) if is_over and lane in self.jobs]

    def _finish(self, lane: int) -> Draw:
        job = self.jobs[lane]
        first, after = job.request.keep, int(self.position[lane]) + 1 - len(job.prompt)
        tokens, logp, logq, entropy = (
            tuple(buffer[lane, first:after].tolist()) for buffer in self.drawn
        )
        if self.fell[lane]:
            ended = Ended.FLOOR
        elif self.stopped[lane]:
            ended = Ended.STOP
        else:
            ended = Ended.LENGTH
        self.rows[lane].tokens = [*job.known, *tokens[:-1]]
        self._release(lane)
        return Draw(tokens, logp, logq, entropy, ended, job.prefilled)

    def _release(self, lane: int) -> None:
        """The lane decodes no longer; what it holds stays."""
        self.jobs.pop(lane)
        self.filling.pop(lane, None)

    # -- state ----------------------------------------------------------------------------------

    def _allocate(self, capacity: int) -> None:
        def column(dtype: torch.dtype) -> torch.Tensor:
            return torch.zeros(self.width, dtype=dtype, device=self.device)

        def table(dtype: torch.dtype) -> torch.Tensor:
            return torch.zeros((self.width, capacity), dtype=dtype, device=self.device)

        self.token, self.position = column(torch.int64), column(torch.int64)
        self.response_start, self.end = column(torch.int64), column(torch.int64)
        self.top_k, self.tau = column(torch.int64), column(torch.float32)
        self.alpha, self.weight, self.floor = (column(torch.float64) for _ in range(3))
        self.stopped, self.fell = column(torch.bool), column(torch.bool)
        self.stops = torch.full((self.width, 1), -1, device=self.device)
        self.uniforms = table(torch.float64)
        self.drawn = table(torch.int64), *(table(torch.float32) for _ in range(3))

    def _reserve(self, length: int) -> None:
        if length <= self.cache.capacity:
            return
        self.cache.grow(length)
        short = length - self.uniforms.shape[1]
        self.uniforms = torch.nn.functional.pad(self.uniforms, (0, short))
        self.drawn = tuple(torch.nn.functional.pad(buffer, (0, short)) for buffer in self.drawn)
