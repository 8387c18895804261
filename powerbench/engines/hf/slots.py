"""What the rows that decode need on the device, and how drawn tokens move them on.

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
from powerbench.types import FinishReason, Tokens, TopLogprobs

NO_TOKEN = -1
"""No token's id: equal to none that is drawn."""


class NewTokens(NamedTuple):
    """What was drawn in a slot, on the host."""

    tokens: tuple[int, ...]
    logp: tuple[float, ...]
    logq: tuple[float, ...]
    entropy: tuple[float, ...]
    finish_reason: FinishReason
    top_logprobs: tuple[TopLogprobs, ...]
    log_normalisers: tuple[tuple[float, ...], ...]


class Fed(NamedTuple):
    """The tokens that a pass computes, and how the next one is drawn after each: [N] each."""

    rows: torch.Tensor
    """int64: whose it is."""
    offsets: torch.Tensor
    """int64: the how manieth of its row's tokens it is."""
    tokens: torch.Tensor
    positions: torch.Tensor
    uniforms: torch.Tensor
    """float64, on the CPU where the device has none."""
    tau: torch.Tensor
    top_k: torch.Tensor
    exponents: torch.Tensor
    """float32 [N, E]: those whose log-normalisers are reported."""

    def at(self, which: torch.Tensor) -> "Fed":
        """Those of these indices, int64."""
        return Fed(*(column[which.to(column.device)] for column in self))

    def padded(self, count: int) -> "Fed":
        """With so many more, all zeros, at the end."""
        zeros = (column.new_zeros(count, *column.shape[1:]) for column in self)
        return Fed(*(torch.cat(pair) for pair in zip(self, zeros, strict=True)))


class Slots:
    """One entry per slot: settings of its request, progress, and what it drew so far.

    Weights are sums over thousands of tokens, and a floor may be met by a hair: they and the uniforms are
    float64, on the CPU where the device has none.
    """

    def __init__(
        self, max_num_seqs: int, length: int, device: torch.device, most_drafted: int = 0
    ) -> None:
        self.max_num_seqs, self.device, self.most_drafted = max_num_seqs, device, most_drafted
        self.doubles = device if supports(device, torch.float64) else torch.device("cpu")
        integers = torch.zeros((6, max_num_seqs), dtype=torch.int64, device=device)
        doubles = torch.zeros((4, max_num_seqs), dtype=torch.float64, device=self.doubles)
        flags = torch.zeros((3, max_num_seqs), dtype=torch.bool, device=device)
        self._integers, self._doubles, self._flags = integers, doubles, flags
        self.token, self.position, self.start, self.first, self.end, self.top_k = integers
        self.tau, self.alpha, self.floor, self.weight = doubles
        self.active, self.stopped, self.fell = flags
        self.stop_tokens = torch.full((max_num_seqs, 1), NO_TOKEN, device=device)
        self.ahead = torch.arange(1 + most_drafted, device=device)
        self.drafts = torch.full((max_num_seqs, most_drafted), NO_TOKEN, device=device)
        """int64: what each slot may draw next, for the pass to come."""
        self._allocate(length, top=0, exponents=0)

    def reserve(self, length: int, stop_tokens: int, top: int, exponents: int = 0) -> bool:
        """Make room for responses of `length` tokens with this number of stop tokens, and of most likely tokens
        (`top`) and log-normalisers (`exponents`) at each position; whether tensors moved."""
        moved = False
        if (short := stop_tokens - self.stop_tokens.shape[1]) > 0:
            self.stop_tokens = torch.nn.functional.pad(self.stop_tokens, (0, short), value=NO_TOKEN)
            moved = True
        before = self.length, self.top, self.exponents.shape[1]
        length, top, exponents = map(max, (length, top, exponents), before)
        if (length, top, exponents) != before:
            old = self._tables()
            self._allocate(length, top, exponents)
            tables = self._tables()
            for new, smaller in zip(tables, old, strict=True):
                new[tuple(map(slice, smaller.shape))] = smaller
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
        padding = [NO_TOKEN] * (self.stop_tokens.shape[1] - len(extend.stop_tokens))
        stop_tokens = [*extend.stop_tokens, *padding]
        self.stop_tokens[slot] = torch.tensor(stop_tokens, device=self.device)
        if exponents := extend.exponents:
            self.exponents[slot, : len(exponents)] = torch.tensor(exponents, device=self.device)
        new = torch.from_numpy(np.ascontiguousarray(request.uniforms[extend.keep : extend.until]))
        self.uniforms[slot, extend.keep : extend.until] = new.to(self.doubles)

    def draft(self, requests: Sequence[EngineRequest], drafts: Sequence[Tokens]) -> int:
        """Put what these requests may draw next where a pass reads it; returns the longest draft's length."""
        longest = max(map(len, drafts), default=0)
        if longest:
            self.drafts.fill_(NO_TOKEN)
            padded = [[*draft, *[NO_TOKEN] * (longest - len(draft))] for draft in drafts]
            rows = torch.tensor([request.slot for request in requests], device=self.device)
            self.drafts[rows, :longest] = torch.tensor(padded, device=self.device)
        return longest

    def feed(self, rows: torch.Tensor, width: int, exponents: int) -> Fed:
        """What a pass computes that draws up to `width` tokens for each of these slots, [R * width]: the last
        token of each, its draft, and then any.

        exponents: of how many exponents each row's log-normalisers are reported.
        """
        ahead = self.ahead[:width]
        tokens = self.token[rows][:, None]
        if width > 1:
            tokens = torch.cat((tokens, self.drafts[rows, : width - 1].clamp(min=0)), dim=1)
        positions = self.position[rows][:, None] + ahead
        index = (positions + 1 - self.start[rows][:, None]).clamp_(max=self.length)
        tau = self.tau[rows.to(self.doubles)].float().to(self.device)
        columns = (
            rows[:, None].expand(-1, width),
            ahead.expand(len(rows), -1),
            tokens,
            positions,
            self.uniforms[rows[:, None].to(self.doubles), index.to(self.doubles)],
            tau[:, None].expand(-1, width),
            self.top_k[rows][:, None].expand(-1, width),
            self.exponents[rows, None, :exponents].expand(-1, width, -1),
        )
        return Fed(*(column.flatten(0, 1) for column in columns))

    def advance(self, rows: torch.Tensor, drawn: Drawn) -> None:
        """Take in what was drawn for each of these slots; finished ones take nothing.

        drawn: one token per row, or a draft's length more, [R, W] and [R, W, K]. Those count up to the first
        that differs from what was drafted in its place, or that ends the response: what follows was drawn
        after other tokens than these.
        """
        width = drawn.token.shape[1]
        position, active = self.position[rows], self.active[rows]
        after = position[:, None] + 1 + self.ahead[:width]
        weight = self._weights(rows, drawn)
        fell = ~(weight >= self.floor[rows.to(self.doubles)][:, None]).to(
            self.device
        )  # NaN falls, too
        stopped = (drawn.token[:, :, None] == self.stop_tokens[rows][:, None]).any(2)
        over = fell | stopped | (after + 1 >= self.end[rows][:, None])
        counts = active[:, None]
        if width > 1:
            goes_on = (drawn.token[:, :-1] == self.drafts[rows, : width - 1]) & ~over[:, :-1]
            counts = counts & torch.nn.functional.pad(goes_on.cumprod(1) > 0, (1, 0), value=True)
        index = torch.where(counts, after - self.start[rows][:, None], self.length)
        *columns, top, top_logp, log_normalisers = drawn
        for buffer, column in zip(self.drawn, columns, strict=True):
            buffer[rows[:, None], index] = column.to(buffer.dtype)
        if count := top.shape[2]:
            for buffer, column in zip(self.top_logprobs, (top, top_logp), strict=True):
                buffer[rows[:, None], index, :count] = column
        if count := log_normalisers.shape[2]:
            self.log_normalisers[rows[:, None], index, :count] = log_normalisers
        taken = counts.sum(1)
        self.fell[rows] |= _any(counts & fell)
        self.stopped[rows] |= _any(counts & stopped)
        self.token[rows] = torch.where(active, _last(drawn.token, taken), self.token[rows])
        self.position[rows] = position + taken
        self.active[rows] = active & ~_any(counts & over)
        rows, active, taken = (each.to(self.doubles) for each in (rows, active, taken))
        self.weight[rows] = torch.where(active, _last(weight, taken), self.weight[rows])

    def _weights(self, rows: torch.Tensor, drawn: Drawn) -> torch.Tensor:
        """The weights of these slots after each of the tokens drawn, float64 [R, W], summed one by one: in
        whatever pieces a response is drawn, its weight is the same to the last bit."""
        rows, logp, logq = (each.to(self.doubles) for each in (rows, drawn.logp, drawn.logq))
        gains = self.alpha[rows][:, None] * logp.double() - logq.double()
        weight, weights = self.weight[rows], []
        for gain in gains.unbind(1):
            weight = weight + gain
            weights.append(weight)
        return torch.stack(weights, dim=1) if len(weights) > 1 else weight[:, None]

    def progress(self) -> tuple[torch.Tensor, ...]:
        """The tensors that `advance` changes, but for what is drawn."""
        return self._integers, self._doubles, self._flags

    def latest(
        self, requests: Sequence[EngineRequest], counts: Sequence[int]
    ) -> list[tuple[list[int], list[float]]]:
        """The last tokens of each request, as many as asked for, oldest first, and their log q, nats: one
        transfer each."""
        most = max(counts)
        rows = torch.tensor([request.slot for request in requests], device=self.device)[:, None]
        after = self.position[rows] + 1 - self.start[rows]
        index = (after - torch.arange(most, 0, -1, device=self.device)).clamp_(min=0)
        token, _, logq, _ = self.drawn
        columns = token[rows, index].tolist(), logq[rows, index].tolist()
        return [
            (tokens[most - count :], log[most - count :])
            for tokens, log, count in zip(*columns, counts, strict=True)
        ]

    def read(self, requests: Sequence[EngineRequest]) -> list[NewTokens]:
        """What these requests have drawn: one transfer per column, two per request for the most likely tokens,
        and one for log-normalisers."""
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
            norms = self._read_log_normalisers(request, new)
            result.append(NewTokens(tokens, logp, logq, entropy, finish_reason, top, norms))
        return result

    def _read_top_logprobs(self, request: EngineRequest, new: slice) -> tuple[TopLogprobs, ...]:
        if (count := request.top_logprobs) == 0:
            return ()
        tokens, logp = (table[request.slot, new, :count].tolist() for table in self.top_logprobs)
        return tuple(TopLogprobs(tuple(t), tuple(p)) for t, p in zip(tokens, logp, strict=True))

    def _read_log_normalisers(
        self, request: EngineRequest, new: slice
    ) -> tuple[tuple[float, ...], ...]:
        if (count := len(request.extend.exponents)) == 0:
            return ()
        return tuple(map(tuple, self.log_normalisers[request.slot, new, :count].tolist()))

    def _tables(self) -> tuple[torch.Tensor, ...]:
        """The tensors that grow."""
        drawn = self.uniforms, *self.drawn, *self.top_logprobs
        return *drawn, self.exponents, self.log_normalisers

    def _allocate(self, length: int, top: int, exponents: int) -> None:
        def table(dtype: torch.dtype, *entry: int) -> torch.Tensor:
            """One column per position of a response, and one for what no slot takes in."""
            device = self.doubles if dtype == torch.float64 else self.device
            return torch.zeros((self.max_num_seqs, length + 1, *entry), dtype=dtype, device=device)

        self.length, self.top = length, top
        self.uniforms = table(torch.float64)
        self.drawn = table(torch.int64), *(table(torch.float32) for _ in range(3))
        self.top_logprobs = table(torch.int64, top), table(torch.float32, top)
        self.exponents = torch.ones((self.max_num_seqs, exponents), device=self.device)
        self.log_normalisers = table(torch.float32, exponents)


def _any(flags: torch.Tensor) -> torch.Tensor:
    """bool [R, W] -> [R]"""
    return flags[:, 0] if flags.shape[1] == 1 else flags.any(1)


def _last(column: torch.Tensor, taken: torch.Tensor) -> torch.Tensor:
    """Of each row the entry of the last token that counts, or any if none does: [R, W] -> [R]."""
    if column.shape[1] == 1:
        return column[:, 0]
    return column.gather(1, (taken - 1).clamp(min=0)[:, None])[:, 0]
