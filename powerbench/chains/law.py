"""Exact laws of samplers: the shipped generators enumerated on a tabular model, not simulated.

Every request of a chain is a branching point whose branches and probabilities are known. A uniform is
never drawn: it is an interval that comparisons split, so early rejection, which compares it with a
running sum while a proposal is decoded, is enumerated exactly as it runs.
"""

import math
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import numpy as np

from powerbench.engines.toy import log_normalisers, proposal, top_logprobs
from powerbench.models import TabularModel
from powerbench.models.toy import EOS
from powerbench.samplers.common import Response
from powerbench.types import (
    Choose,
    Context,
    Draw,
    Extend,
    FinishReason,
    LogUniform,
    Request,
    Save,
    Together,
    Tokens,
    TopLogprobs,
)

Result = TypeVar("Result")
Program = Callable[[], Generator[Request, Any, Result]]


def context_of(model: TabularModel, prompt: Tokens = ()) -> Context:
    """The context a chain on this toy model is given."""
    return Context(prompt, model.tokenizer().eos, model.tokenizer().stop_tokens)


def responses(model: TabularModel, horizon: int, prefix: Tokens = ()) -> Iterator[Tokens]:
    """Every response of at most `horizon` tokens: ended by EOS, or cut there."""
    if prefix and (prefix[-1] == EOS or len(prefix) == horizon):
        yield prefix
        return
    p = model.p(prefix)
    for token in np.flatnonzero(p):
        yield from responses(model, horizon, (*prefix, int(token)))


def held(model: TabularModel, x: Tokens, tau: float) -> Response:
    """The response x as a chain with proposal temperature tau would hold it."""
    rows = [model.p(x[:i]) for i in range(len(x))]
    sharp = [row ** (1 / tau) for row in rows]
    return Response(
        x,
        tuple(math.log(row[t]) for row, t in zip(rows, x, strict=True)),
        tuple(math.log(row[t] / row.sum()) for row, t in zip(sharp, x, strict=True)),
        tuple(float(-(row[row > 0] * np.log(row[row > 0])).sum()) for row in rows),
        FinishReason.STOP if x[-1] == EOS else FinishReason.LENGTH,
    )


def loglikelihood(model: TabularModel, x: Tokens) -> float:
    """log p(x), nats."""
    return sum(math.log(model.p(x[:i])[token]) for i, token in enumerate(x))


def power_law(model: TabularModel, alpha: float, horizon: int) -> dict[Tokens, float]:
    """p(x)^alpha / Z over all responses of at most `horizon` tokens."""
    mass = {x: math.exp(alpha * loglikelihood(model, x)) for x in responses(model, horizon)}
    total = math.fsum(mass.values())
    return {x: m / total for x, m in mass.items()}


def total_variation(a: dict[Tokens, float], b: dict[Tokens, float]) -> float:
    """Half the L1 distance of two laws, in [0, 1]."""
    return 0.5 * math.fsum(abs(a.get(x, 0.0) - b.get(x, 0.0)) for x in a.keys() | b.keys())


def law(program: Program[Result], model: TabularModel) -> dict[Result, float]:
    """The exact distribution of what a program returns: {result: probability}.

    program: starts a fresh generator of requests whose return value is hashable.
    """
    result: dict[Result, float] = {}
    pending: list[list[int]] = [[]]
    positions = _Positions(model)
    while pending:
        branch = _Branch(pending.pop())
        outcome = _run(program(), positions, branch)
        result[outcome] = result.get(outcome, 0.0) + branch.probability
        pending += branch.siblings()
    return result


class _Position(NamedTuple):
    """What a request finds after a prefix: its distribution q, and by token what it reports."""

    q: tuple[float, ...]
    logp: tuple[float, ...]
    logq: tuple[float, ...]
    entropy: float
    top: TopLogprobs | None
    log_normalisers: tuple[float, ...]


@dataclass
class _Positions:
    """Each is computed once: paths share their beginnings."""

    model: TabularModel
    known: dict[Any, _Position] = field(default_factory=dict)

    def after(self, x: Tokens, request: Extend) -> _Position:
        count, exponents = request.top_logprobs, request.exponents
        key = x, request.tau, request.top_k, request.support, count, exponents
        if key not in self.known:
            p = self.model.p(x)
            q = proposal(p, request)
            with np.errstate(divide="ignore"):
                logp, logq = np.log(p), np.log(q)
            self.known[key] = _Position(
                tuple(q.tolist()),
                tuple(logp.tolist()),
                tuple(logq.tolist()),
                float(-(p[p > 0] * logp[p > 0]).sum()),
                top_logprobs(p, count) if count else None,
                log_normalisers(p, request) if exponents else (),
            )
        return self.known[key]


def _run(
    chain: Generator[Request, Any, Result], positions: _Positions, branch: "_Branch"
) -> Result:
    answer = None
    while True:
        try:
            request = chain.send(answer)
        except StopIteration as end:
            return end.value
        answer = _answer(request, positions, branch)


def _answer(request: Request, positions: _Positions, branch: "_Branch") -> Any:
    match request:
        case LogUniform():
            return _LogUniform(branch)
        case Choose():
            return branch.take(request.probabilities)
        case Save():
            return None
        case Extend():
            return _extend(request, positions, branch)
        case Together():
            return tuple(_extend(each, positions, branch) for each in request.requests)


def _extend(request: Extend, positions: _Positions, branch: "_Branch") -> Draw:
    x, logp, logq, entropy, weight = request.prefix, [], [], [], 0.0
    top, norms = [], []
    finish_reason = FinishReason.LENGTH
    while len(x) < request.until and finish_reason is FinishReason.LENGTH:
        position = positions.after(x, request)
        token = branch.take(position.q)
        x = (*x, token)
        logp.append(position.logp[token])
        logq.append(position.logq[token])
        entropy.append(position.entropy)
        if position.top:
            top.append(position.top)
        if request.exponents:
            norms.append(position.log_normalisers)
        weight += request.alpha * logp[-1] - logq[-1]
        if request.floor > weight:
            finish_reason = FinishReason.FLOOR
        elif token in request.stop_tokens:
            finish_reason = FinishReason.STOP
    new = x[request.keep :]
    return Draw(
        new,
        tuple(logp),
        tuple(logq),
        tuple(entropy),
        finish_reason,
        top_logprobs=tuple(top),
        log_normalisers=tuple(norms),
    )


@dataclass
class _Branch:
    """One path through a program: decisions fixed in advance, then always the first possible one."""

    fixed: list[int]
    taken: list[tuple[int, tuple[float, ...]]] = field(default_factory=list)
    probability: float = 1.0

    def take(self, probabilities: Any) -> int:
        at = len(self.taken)
        first = next(i for i, q in enumerate(probabilities) if q > 0)
        index = self.fixed[at] if at < len(self.fixed) else first
        self.taken.append((index, tuple(probabilities)))
        self.probability *= probabilities[index]
        return index

    def siblings(self) -> list[list[int]]:
        """The paths that leave this one at a decision that was not fixed."""
        path = [index for index, _ in self.taken]
        return [
            [*path[:at], other]
            for at, (index, probabilities) in enumerate(self.taken)
            if at >= len(self.fixed)
            for other in range(index + 1, len(probabilities))
            if probabilities[other] > 0
        ]


@dataclass
class _LogUniform:
    """log u, of which only an interval (low, high] for u is known; comparisons split it."""

    branch: _Branch
    low: float = 0.0
    high: float = 1.0

    def __add__(self, offset: float) -> "_Threshold":
        return _Threshold(self, offset)

    def at_most(self, value: float) -> bool:
        """Whether log u <= value: both answers are branches unless the interval decides."""
        split = math.exp(min(0.0, value))
        inside = (min(self.high, max(self.low, split)) - self.low) / (self.high - self.low)
        if inside in (0.0, 1.0):
            return inside == 1.0
        below = self.branch.take((inside, 1 - inside)) == 0
        self.low, self.high = (self.low, split) if below else (split, self.high)
        return below


@dataclass
class _Threshold:
    """log u + offset, as samplers compare it with weights."""

    log_u: _LogUniform
    offset: float

    def __le__(self, value: float) -> bool:
        return self.log_u.at_most(value - self.offset)

    def __gt__(self, value: float) -> bool:
        return not self <= value
