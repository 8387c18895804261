"""What the rows that decode need on the device, and how one drawn token moves them on.

A finished slot (stopped, fallen below its floor, full) keeps its state until the next synchronisation: it
may be computed again, and nothing of it changes. So the host need not ask after every token.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from powerbench.engines.hf.request import EngineRequest, Status
from powerbench.engines.sampling import Drawn
from powerbench.models.device import supports
from powerbench.types import FinishReason, TopLogprobs


class NewTokens(NamedTuple):
    """What was drawn in a slot, on the host."""

    tokens: tuple[int, ...]
    logp: tuple[float, ...]
    logq: tuple[float, ...]
    entropy: tuple[float, ...]
    finish_reason: FinishReason
    top_logprobs: tuple[TopLogprobs, ...]


class Slots:
    """One entry per slot: settings of its request, progress, and what it drew so far.

    Weights are sums over thousands of tokens, and a floor may be met by a hair: they and the uniforms are
    float64, on the CPU where the device has none.
    """

    def __init__(self, max_num_seqs: int, length: int, device: torch.device) -> None:
        self.max_num_seqs, self.device = max_num_seqs, device
        self.doubles = device if supports(device, torch.float64) else torch.device("cpu")
        integers = torch.zeros((6, max_num_seqs), dtype=torch.int64, device=device)
        doubles = torch.zeros((4, max_num_seqs), dtype=torch.float64, device=self.doubles)
        flags = torch.zeros((3, max_num_seqs), dtype=torch.bool, device=device)
        self._integers, self._doubles, self._flags = integers, doubles, flags
        self.token, self.position, self.start, self.first, self.end, self.top_k = integers
        self.tau, self.alpha, self.floor, self.weight = doubles
        self.active, self.stopped, self.fell = flags
        self.stop_tokens = torch.full((max_num_seqs, 1), -1, device=device)
        self._allocate(length, top=0)

    def reserve(self, length: int, stop_tokens: int, top: int) -> bool:
        """Make room for responses of `length` tokens with this number of stop tokens, and of most likely tokens
        at each position (`top`); whether tensors moved."""
        moved = False
        if (short := stop_tokens - self.stop_tokens.shape[1]) > 0:
            self.stop_tokens = torch.nn.functional.pad(self.stop_tokens, (0, short), value=-1)
            moved = True
        if length > self.length or top > self.top:
            old = self.uniforms, *self.drawn, *self.top_logprobs
            self._allocate(max(length, self.length), max(top, self.top))
            tables = self.uniforms, *self.drawn, *self.top_logprobs
            for new, before in zip(tables, old, strict=True):
                new[tuple(map(slice, before.shape))] = before
            moved = True
        return moved

    def load(self, request: EngineRequest) -> None:
        """Set up a request's slot: it is active if nothing of what it knows is left to be computed."""
        slot, extend, prompt, known = request.slot, request.extend, request.prompt, request.known
        start, end = len(prompt), len(prompt) + extend.until
        integers = [known[-1], len(known) - 1, start, extend.keep, end, request.top_k]
        doubles = [extend.tau, extend.alpha, extend.floor, 0.0]
        self._integers[:, slot] = torch.tensor(integers, device=self.device)
        self._doubles[:, slot] = torch.tensor(doubles, dtype=torch.float64, device=self.doubles)
        self._flags[:, slot] = False
        self.active[slot] = request.status is Status.DECODING
        padding = [-1] * (self.stop_tokens.shape[1] - len(extend.stop_tokens))
        stop_tokens = [*extend.stop_tokens, *padding]
        self.stop_tokens[slot] = torch.tensor(stop_tokens, device=self.device)
        new = torch.from_numpy(np.ascontiguousarray(request.uniforms[extend.keep : extend.until]))
        self.uniforms[slot, extend.keep : extend.until] = new.to(self.doubles)

    def settings(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """uniforms, tau and top_k of the next token of these slots: [R] each, as `sampling.draw` takes them."""
        index = (self.position[rows] + 1 - self.start[rows]).clamp_(max=self.length)
        top_k, rows = self.top_k[rows], rows.to(self.doubles)
        tau = self.tau[rows].float().to(self.device)
        return self.uniforms[rows, index.to(self.doubles)], tau, top_k

    def advance(self, rows: torch.Tensor, drawn: Drawn) -> None:
        """Take in one drawn token for each of these slots; finished ones take nothing."""
        active, position = self.active[rows], self.position[rows]
        index = torch.where(active, position + 1 - self.start[rows], self.length)
        *columns, top, top_logp = drawn
        for buffer, column in zip(self.drawn, columns, strict=True):
            buffer[rows, index] = column.to(buffer.dtype)
        if count := top.shape[1]:
            for buffer, column in zip(self.top_logprobs, (top, top_logp), strict=True):
                buffer[rows, index, :count] = column
        fell = self._weigh(rows, active, drawn)
        stopped = active & (drawn.token[:, None] == self.stop_tokens[rows]).any(1)
        after = torch.where(active, position + 1, position)
        self.fell[rows] |= fell
        self.stopped[rows] |= stopped
        self.token[rows] = torch.where(active, drawn.token, self.token[rows])
        self.position[rows] = after
        self.active[rows] = active & ~fell & ~stopped & (after + 1 < self.end[rows])

    def _weigh(self, rows: torch.Tensor, active: torch.Tensor, drawn: Drawn) -> torch.Tensor:
        """Move the weights of these slots on; whether each has fallen below its floor."""
        columns = (each.to(self.doubles) for each in (rows, active, drawn.logp, drawn.logq))
        rows, active, logp, logq = columns
        gain = self.alpha[rows] * logp.double() - logq.double()
        weight = torch.where(active, self.weight[rows] + gain, self.weight[rows])
        self.weight[rows] = weight
        fell = active & ~(weight >= self.floor[rows])  # NaN, too, ends here
        return fell.to(self.device)

    def progress(self) -> tuple[torch.Tensor, ...]:
        """The tensors that `advance` changes, but for what is drawn."""
        return self._integers, self._doubles, self._flags

    def read(self, requests: Sequence[EngineRequest]) -> list[NewTokens]:
        """What these requests have drawn: one transfer per column, and two per request for the most likely
        tokens."""
        if not requests:
            return []
        rows = torch.tensor([request.slot for request in requests], device=self.device)
        columns = [buffer[rows].cpu() for buffer in self.drawn]
        first, after = self.first[rows].tolist(), (self.position + 1 - self.start)[rows].tolist()
        fell, stopped = self.fell[rows].tolist(), self.stopped[rows].tolist()
        result = []
        for i, request in enumerate(requests):
            new = slice(first[i], after[i])
            tokens, logp, logq, entropy = (tuple(column[i, new].tolist()) for column in columns)
            finish_reason = (
                FinishReason.FLOOR
                if fell[i]
                else FinishReason.STOP
                if stopped[i]
                else FinishReason.LENGTH
            )
            top = self._read_top_logprobs(request, new)
            result.append(NewTokens(tokens, logp, logq, entropy, finish_reason, top))
        return result

    def _read_top_logprobs(self, request: EngineRequest, new: slice) -> tuple[TopLogprobs, ...]:
        if (count := request.top_logprobs) == 0:
            return ()
        tokens, logp = (table[request.slot, new, :count].tolist() for table in self.top_logprobs)
        return tuple(TopLogprobs(tuple(t), tuple(p)) for t, p in zip(tokens, logp, strict=True))

    def _allocate(self, length: int, top: int) -> None:
        def table(dtype: torch.dtype, *entry: int) -> torch.Tensor:
            """One column per position of a response, and one for what no slot takes in."""
            device = self.doubles if dtype == torch.float64 else self.device
            return torch.zeros((self.max_num_seqs, length + 1, *entry), dtype=dtype, device=device)

        self.length, self.top = length, top
        self.uniforms = table(torch.float64)
        self.drawn = table(torch.int64), *(table(torch.float32) for _ in range(3))
        self.top_logprobs = table(torch.int64, top), table(torch.float32, top)
