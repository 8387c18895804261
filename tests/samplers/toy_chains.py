"""What the samplers' tests share: kernels as exact matrices, laws of whole chains, and chains run on the toy
engine."""

import json
import math
from collections.abc import Generator, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np

from powerbench.chains.law import context_of, law, responses
from powerbench.chains.runner import ChainSpec, Completed, run_chains, run_one
from powerbench.engines.toy import ToyEngine
from powerbench.models import TabularModel
from powerbench.rng import Stream
from powerbench.samplers.common import Response, Sampler
from powerbench.types import (
    Chain,
    Context,
    FinishReason,
    Outcome,
    Progress,
    Request,
    SampleKey,
    Save,
    Step,
    Tokens,
)

ENDLESS = Context((), eos=99, stop_tokens=(99,))
"""Nothing stops: every response has the full length."""


class Stepping(Protocol):
    """A sampler that makes Metropolis-Hastings steps."""

    @property
    def tau(self) -> float: ...
    def step(
        self, x: Response, horizon: int, k: int, n: int, context: Context
    ) -> Generator[Request, Any, tuple[Response, Step]]: ...


def state(
    model: TabularModel, x: Tokens, tau: float, exponents: Sequence[float] = (), top: int = 0
) -> Response:
    """The response x as a chain with proposal temperature tau would hold it.

    exponents, top: those whose log-normalisers its draws are asked for, and how many likeliest tokens.
    """
    p = [model.p(x[:i]) for i in range(len(x))]
    q = [row ** (1 / tau) / (row ** (1 / tau)).sum() for row in p]
    return Response(
        x,
        tuple(math.log(row[t]) for row, t in zip(p, x, strict=True)),
        tuple(math.log(row[t]) for row, t in zip(q, x, strict=True)),
        tuple(float(-(row[row > 0] * np.log(row[row > 0])).sum()) for row in p),
        FinishReason.STOP if x[-1] == 0 else FinishReason.LENGTH,
        tuple(tuple(math.log((row[row > 0] ** a).sum()) for a in exponents) for row in p)
        if exponents
        else (),
        tuple(entropy_of_likeliest(row, top) for row in p) if top else (),
    )


def entropy_of_likeliest(p: np.ndarray, top: int) -> float:
    """Of the `top` likeliest tokens, normalised over them."""
    kept = np.sort(p[p > 0])[::-1][:top]
    kept = kept / kept.sum()
    return float(-(kept * np.log(kept)).sum())


def transition(
    model: TabularModel,
    sampler: Stepping,
    horizon: int,
    states: Iterable[Tokens] | None = None,
    exponents: Sequence[float] = (),
    top: int = 0,
) -> tuple[list[Tokens], np.ndarray]:
    """The states (default: all responses of at most `horizon` tokens) and the exact transition matrix [S, S] of
    one step of the shipped kernel. exponents, top: as in `state`."""
    states = list(states or responses(model, horizon))
    index = {x: i for i, x in enumerate(states)}
    matrix = np.zeros((len(states), len(states)))

    def after(x: Response) -> Generator[Request, Any, Tokens]:
        y, _ = yield from sampler.step(x, horizon, 0, 0, context_of(model))
        return y.tokens

    for x in states:
        start = state(model, x, sampler.tau, exponents, top)
        for y, probability in law(lambda start=start: after(start), model).items():
            matrix[index[x], index[y]] += probability
    return states, matrix


def chain_law(
    sampler: Sampler, model: TabularModel, context: Context | None = None
) -> dict[Tokens, float]:
    """The exact law of the response that a sampler's whole chain returns."""

    def program() -> Generator[Request, Any, Tokens]:
        outcome = yield from sampler.chain(context or context_of(model))
        return outcome.tokens

    return law(program, model)


def completed(
    sampler: Sampler,
    model: TabularModel,
    width: int = 8,
    count: int = 20,
    context: Context | None = None,
    speculate: int = 0,
) -> dict[SampleKey, Completed]:
    """What `count` chains return and cost, on the toy engine."""

    def starts() -> Iterator[ChainSpec]:
        begin = partial(sampler.chain, context or context_of(model))
        for i in range(count):
            yield ChainSpec(SampleKey(f"p{i}", 0), (), begin, Stream(0, "task", f"p{i}", 0))

    done = run_chains(starts(), ToyEngine(model, max_num_seqs=width), Progress(), speculate)
    return {each.key: each for each in done if isinstance(each, Completed)}


def require_same_in_any_width(sampler: Sampler, model: TabularModel) -> None:
    """No outcome depends on how many requests the engine runs at once."""
    narrow, middle, wide = (completed(sampler, model, width) for width in (1, 3, 50))
    outcomes = {k: e.outcome for k, e in narrow.items()}
    assert outcomes == {k: e.outcome for k, e in middle.items()}
    assert outcomes == {k: e.outcome for k, e in wide.items()}


def resumed(
    sampler: Any, model: TabularModel, context: Context = ENDLESS
) -> tuple[Outcome, list[Outcome]]:
    """What a chain returns, and what it returns when it goes on from each of its saved states, as read back
    from JSON."""
    stream, states = Stream(0, "task", "p", 0), []

    def saving() -> Chain:
        chain, answer = sampler.chain(context), None
        while True:
            try:
                request = chain.send(answer)
            except StopIteration as end:
                return end.value
            if isinstance(request, Save):
                states.append(json.loads(json.dumps(request.state)))
            answer = yield request

    whole = run_one(saving, (), stream, ToyEngine(model))
    again = [partial(sampler.chain, context, saved) for saved in states]
    return whole, [run_one(begin, (), stream, ToyEngine(model)) for begin in again]
