"""What the rows that decode need on the device, and how one drawn token moves them on.

A lane that is over (stopped, fallen below its floor, full) stays where it is until the host looks: it may
be computed again, and nothing of it changes. So the host need not look after every token.
"""

from typing import NamedTuple

import numpy as np
import torch

from powerbench.engines.sampling import Drawn
from powerbench.types import Extend, FinishReason, TopLogprobs


class Read(NamedTuple):
    """What a lane drew, on the host."""

    tokens: tuple[int, ...]
    logp: tuple[float, ...]
    logq: tuple[float, ...]
    entropy: tuple[float, ...]
    finish_reason: FinishReason
    top: tuple[TopLogprobs, ...]


class Lanes:
    """One entry per lane: settings of its request, progress, and what it drew so far."""

    def __init__(self, width: int, length: int, device: torch.device) -> None:
        self.width, self.device = width, device
        integers = torch.zeros((6, width), dtype=torch.int64, device=device)
        doubles = torch.zeros((4, width), dtype=torch.float64, device=device)
        flags = torch.zeros((3, width), dtype=torch.bool, device=device)
        self._integers, self._doubles, self._flags = integers, doubles, flags
        self.token, self.position, self.start, self.first, self.end, self.top_k = integers
        self.tau, self.alpha, self.floor, self.weight = doubles
        self.active, self.stopped, self.fell = flags
        self.stop_tokens = torch.full((width, 1), -1, device=device)
        self.tops = [0] * width  # how many of the likeliest tokens are asked for
        self._allocate(length, top=0)

    def reserve(self, length: int, stop_tokens: int, top: int) -> bool:
        """Make room for responses of `length` tokens, so many stop tokens, and so many of the likeliest
        tokens at each position; whether tensors moved."""
        moved = False
        if (short := stop_tokens - self.stop_tokens.shape[1]) > 0:
            self.stop_tokens = torch.nn.functional.pad(self.stop_tokens, (0, short), value=-1)
            moved = True
        if length > self.length or top > self.top:
            old = self.uniforms, *self.drawn, *self.ranked
            self._allocate(max(length, self.length), max(top, self.top))
            tables = self.uniforms, *self.drawn, *self.ranked
            for new, before in zip(tables, old, strict=True):
                new[tuple(map(slice, before.shape))] = before
            moved = True
        return moved

    def load(
        self, lane: int, prompt: int, last: int, request: Extend, uniforms: np.ndarray, top_k: int
    ) -> None:
        """Put a request on a lane.

        prompt: the prompt's length; last: the token to be fed first, which ends the known ones.
        """
        known = prompt + request.keep
        integers = [last, known - 1, prompt, request.keep, prompt + request.until, top_k]
        doubles = [request.tau, request.alpha, request.floor, 0.0]
        self._integers[:, lane] = torch.tensor(integers, device=self.device)
        self._doubles[:, lane] = torch.tensor(doubles, dtype=torch.float64, device=self.device)
        self._flags[:, lane] = False
        stop_tokens = [
            *request.stop_tokens,
            *[-1] * (self.stop_tokens.shape[1] - len(request.stop_tokens)),
        ]
        self.stop_tokens[lane] = torch.tensor(stop_tokens, device=self.device)
        new = torch.from_numpy(np.ascontiguousarray(uniforms[request.keep : request.until]))
        self.uniforms[lane, request.keep : request.until] = new.to(self.device)
        self.tops[lane] = request.top_logprobs

    def settings(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """uniforms, tau and top_k of the next token of these lanes: [R] each."""
        index = (self.position[rows] + 1 - self.start[rows]).clamp_(max=self.length)
        return self.uniforms[rows, index], self.tau[rows].float(), self.top_k[rows]

    def advance(self, rows: torch.Tensor, drawn: Drawn) -> None:
        """Take in one drawn token for each of these lanes; those that are over take nothing."""
        active, position = self.active[rows], self.position[rows]
        index = torch.where(active, position + 1 - self.start[rows], self.length)
        *columns, top, top_logp = drawn
        for buffer, column in zip(self.drawn, columns, strict=True):
            buffer[rows, index] = column.to(buffer.dtype)
        if count := top.shape[1]:
            for buffer, column in zip(self.ranked, (top, top_logp), strict=True):
                buffer[rows, index, :count] = column
        gain = self.alpha[rows] * drawn.logp.double() - drawn.logq.double()
        weight = torch.where(active, self.weight[rows] + gain, self.weight[rows])
        fell = active & (weight < self.floor[rows])
        stopped = active & (drawn.token[:, None] == self.stop_tokens[rows]).any(1)
        after = torch.where(active, position + 1, position)
        self.weight[rows] = weight
        self.fell[rows] |= fell
        self.stopped[rows] |= stopped
        self.token[rows] = torch.where(active, drawn.token, self.token[rows])
        self.position[rows] = after
        self.active[rows] = active & ~fell & ~stopped & (after + 1 < self.end[rows])

    def progress(self) -> tuple[torch.Tensor, ...]:
        """The tensors that `advance` changes, but for what is drawn."""
        return self._integers, self._doubles, self._flags

    def read(self, lanes: list[int]) -> list[Read]:
        """What these lanes have drawn: one transfer per column, and two per lane for likeliest tokens."""
        rows = torch.tensor(lanes, device=self.device)
        columns = [buffer[rows].cpu() for buffer in self.drawn]
        first, after = self.first[rows].tolist(), (self.position + 1 - self.start)[rows].tolist()
        fell, stopped = self.fell[rows].tolist(), self.stopped[rows].tolist()
        reads = []
        for i, lane in enumerate(lanes):
            tokens, logp, logq, entropy = (
                tuple(column[i, first[i] : after[i]].tolist()) for column in columns
            )
            finish_reason = (
                FinishReason.FLOOR
                if fell[i]
                else FinishReason.STOP
                if stopped[i]
                else FinishReason.LENGTH
            )
            top = self._ranked(lane, slice(first[i], after[i]))
            reads.append(Read(tokens, logp, logq, entropy, finish_reason, top))
        return reads

    def _ranked(self, lane: int, new: slice) -> tuple[TopLogprobs, ...]:
        if (count := self.tops[lane]) == 0:
            return ()
        tokens, logp = (buffer[lane, new, :count].tolist() for buffer in self.ranked)
        return tuple(TopLogprobs(tuple(t), tuple(p)) for t, p in zip(tokens, logp, strict=True))

    def _allocate(self, length: int, top: int) -> None:
        def table(dtype: torch.dtype, *entry: int) -> torch.Tensor:
            """One column per position of a response, and one for what no lane takes in."""
            return torch.zeros((self.width, length + 1, *entry), dtype=dtype, device=self.device)

        self.length, self.top = length, top
        self.uniforms = table(torch.float64)
        self.drawn = table(torch.int64), *(table(torch.float32) for _ in range(3))
        self.ranked = table(torch.int64, top), table(torch.float32, top)
