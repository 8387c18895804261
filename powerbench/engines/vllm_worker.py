"""What runs inside vLLM's workers: draws each token, notes its statistics, and hands them out.

vLLM imports this module by name, in every worker process. `InverseCDF` sees a step's raw logits before
vLLM's sampler does, draws with the project's own `draw`, and lifts the drawn token above all others, so
that a greedy request takes it. Every rank of a tensor-parallel group has the same logits and uniforms,
runs the same code, and so takes the same token.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor
from vllm.v1.sample.logits_processor.builtin import process_dict_updates

from powerbench.engines.sampling import draw
from powerbench.types import TopLogprobs

if TYPE_CHECKING:
    from vllm import SamplingParams
    from vllm.config import VllmConfig

ORDER = "powerbench"
"""The place of an Order in a request's `extra_args`."""


class Order(NamedTuple):
    """What to draw from, for one request; see `types.Extend`."""

    name: str
    uniforms: Sequence[float]
    """One for each token to come."""
    tau: float
    top_k: int
    """0: none."""
    support: tuple[int, ...] | None
    alpha: float
    floor: float
    top_logprobs: int
    """How many of the most likely tokens to note at each position; 0: none."""
    exponents: tuple[float, ...]
    """Those whose log-normalisers to note."""


class Record(NamedTuple):
    """What was drawn for one request: one entry per token, nats."""

    tokens: tuple[int, ...]
    logp: tuple[float, ...]
    logq: tuple[float, ...]
    entropy: tuple[float, ...]
    top_logprobs: tuple[TopLogprobs, ...]
    """The most likely tokens; empty if the order asks for none."""
    log_normalisers: tuple[tuple[float, ...], ...]
    """For each of the order's exponents; empty if it has none."""


@dataclass
class _RequestState:
    """A request at work. A step may be done again (a prompt in parts, a preempted request), or be thrown
    away: what counts is as many entries as vLLM's own list of output tokens has."""

    order: Order
    output: list[int]
    drawn: list[tuple[float, ...]] = field(default_factory=list)
    """Token, log p, log q, entropy."""
    weights: list[float] = field(default_factory=lambda: [0.0])
    """The running weight before each token, and after the last."""
    top: list[TopLogprobs] = field(default_factory=list)
    log_normalisers: list[tuple[float, ...]] = field(default_factory=list)

    def note(
        self,
        top: TopLogprobs,
        log_normalisers: list[float],
        token: float,
        logp: float,
        logq: float,
        entropy: float,
    ) -> None:
        at = len(self.output)
        if count := len(self.order.exponents):
            self.log_normalisers[at:] = [tuple(log_normalisers[:count])]
        if count := self.order.top_logprobs:
            self.top[at:] = [TopLogprobs(top.tokens[:count], top.logp[:count])]
        self.drawn[at:] = [(token, logp, logq, entropy)]
        self.weights[at + 1 :] = [self.weights[at] + self.order.alpha * logp - logq]

    def has_fallen(self) -> bool:
        return bool(self.output) and not self.weights[len(self.output)] >= self.order.floor

    def record(self) -> Record:
        drawn = self.drawn[: len(self.output)]
        token, logp, logq, entropy = zip(*drawn, strict=True) if drawn else ((),) * 4
        tokens = tuple(int(t) for t in token)
        if tokens != tuple(self.output):
            raise RuntimeError(f"vLLM took tokens {self.output}, but {tokens} were drawn")
        top, norms = self.top[: len(tokens)], self.log_normalisers[: len(tokens)]
        return Record(tokens, logp, logq, entropy, tuple(top), tuple(norms))


class InverseCDF(LogitsProcessor):  # type: ignore[misc]
    """Draws the next token of every request in the batch; requests without an order are vLLM's own."""

    def __init__(
        self, vllm_config: "VllmConfig", device: torch.device, is_pin_memory: bool
    ) -> None:
        self.batch: dict[int, _RequestState] = {}
        self.held: dict[str, _RequestState] = {}  # until they are taken, in the batch or not

    def is_argmax_invariant(self) -> bool:
        """False: vLLM then hands over raw float32 logits, and takes the argmax of what comes back."""
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        process_dict_updates(self.batch, batch_update, self._state)

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        if not self.batch:
            return logits
        rows = [self.batch[i] for i in range(len(logits))]
        uniforms, taus, top_ks = zip(
            *((r.order.uniforms[len(r.output)], r.order.tau, r.order.top_k) for r in rows),
            strict=True,
        )
        settings = torch.tensor((uniforms, taus, top_ks), dtype=torch.float64, device=logits.device)
        drawn = draw(
            logits,
            settings[0],
            settings[1].float(),
            settings[2].long().clamp(max=logits.shape[1]),
            _support(rows, logits),
            largest_k=min(max(top_ks), logits.shape[1]),
            greedy=min(taus) == 0,
            top=min(max(row.order.top_logprobs for row in rows), logits.shape[1]),
            exponents=_exponents(rows, logits.device),
        )
        *columns, top, top_logp, log_normalisers = drawn
        table = torch.stack([column.double() for column in columns], dim=1).tolist()
        ranked = map(TopLogprobs, map(tuple, top.tolist()), map(tuple, top_logp.tolist()))
        norms = log_normalisers.tolist()
        for row, values, most_likely, own in zip(rows, table, ranked, norms, strict=True):
            row.note(most_likely, own, *values)
        # Where logits are no numbers, NaN would win vLLM's argmax; the draw says NaN all the same.
        logits.masked_fill_(drawn.entropy.isnan()[:, None], 0.0)
        return logits.scatter_(1, drawn.token[:, None], float("inf"))

    def _state(
        self, params: "SamplingParams", prompt: list[int] | None, output: list[int]
    ) -> _RequestState | None:
        order: Order | None = (params.extra_args or {}).get(ORDER)
        if order is None:
            return None
        return self.held.setdefault(
            order.name, _RequestState(order, output)
        )  # there if it was preempted


class Access:
    """Methods that a worker gains (`worker_extension_cls`), for `collective_rpc`."""

    model_runner: Any

    def powerbench_fallen(self) -> list[str]:
        """The requests whose weight is below their floor."""
        return [name for name, row in self._processor().held.items() if row.has_fallen()]

    def powerbench_take(self, names: Sequence[str]) -> dict[str, Record]:
        """Remove and return the records of these requests, as far as they have begun."""
        held = self._processor().held
        return {name: held.pop(name).record() for name in names if name in held}

    def _processor(self) -> InverseCDF:
        processors = self.model_runner.input_batch.logitsprocs.all
        return next(each for each in processors if isinstance(each, InverseCDF))


def _exponents(rows: Sequence[_RequestState], device: torch.device) -> torch.Tensor:
    """float32 [R, E]: those of each row, and 1 up to the number that the longest list has."""
    most = max(len(row.order.exponents) for row in rows)
    padded = [[*row.order.exponents, *[1.0] * (most - len(row.order.exponents))] for row in rows]
    return torch.tensor(padded, dtype=torch.float32, device=device).reshape(len(rows), most)


def _support(rows: Sequence[_RequestState], logits: torch.Tensor) -> torch.Tensor | None:
    """bool [R, V]; None where every row may draw any token."""
    if all(row.order.support is None for row in rows):
        return None
    allowed = torch.ones_like(logits, dtype=torch.bool)
    for row, mask in zip(rows, allowed, strict=True):
        if row.order.support is not None:
            mask[:] = False
            mask[list(row.order.support)] = True
    return allowed
