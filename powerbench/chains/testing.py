"""The laws that every sampler keeps, as checks for anybody's own sampler: plain asserts, no test framework.

`check_sampler` holds those that all share, on the toy engine: no outcome depends on the batch, on speculation
or on a restart from a saved state; an outcome is a response with its own log-likelihood; no key names two
draws. `check_law` and `check_invariant` hold a sampler's own law, by exact enumeration on toy models, with no
tolerance for luck. Each raises AssertionError, whose message says what failed and where to look.
"""

import inspect
import json
import math
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from powerbench.chains.law import context_of, held, law, loglikelihood, power_law
from powerbench.chains.runner import AtBlockEnd, ChainSpec, Completed, run_chains
from powerbench.engines.toy import ToyEngine
from powerbench.models import TabularModel
from powerbench.models.toy import EOS
from powerbench.rng import Stream
from powerbench.samplers.common import Response, Sampler
from powerbench.types import (
    Checkpoint,
    Choose,
    Context,
    Draw,
    Extend,
    FinishReason,
    Key,
    LogUniform,
    Outcome,
    Progress,
    Request,
    SampleKey,
    Save,
    Step,
    Together,
    Tokens,
)

VOCABULARY = 5


def _seldom_ending(context: Tokens) -> list[float]:
    """Random next-token probabilities, with a quarter of EOS's."""
    p = TabularModel(vocabulary=VOCABULARY, seed=4).p(context).copy()
    p[EOS] /= 4
    return (p / p.sum()).tolist()


MODEL = TabularModel(vocabulary=VOCABULARY, table=_seldom_ending)
"""Of its responses some end within 12 tokens, and others do not: so chains come to saved states."""
MODELS = tuple(TabularModel(seed=seed) for seed in range(3))
"""Three tokens each: few enough to enumerate."""
CHAINS = 6

Law = Callable[[TabularModel, int], Mapping[Tokens, float]]
"""The probability of every response, given a model and the length of the longest response in tokens."""
Kernel = Callable[[Response, Context], Generator[Request, Any, tuple[Response, Step]]]
"""A step from a response, as a generator of requests: it returns the response after it, and its record."""


def check_sampler(sampler: Sampler) -> None:
    """Every law that samplers share, of one with small settings: about 12 tokens, a few blocks and steps.

    sampler: inherits `powerbench.samplers.common.Sampler`. One that votes is given each response's first token
    as its answer.
    """
    check_keys(sampler)  # first: an engine tells requests apart by their keys
    check_batches(sampler)
    check_saved_states(sampler)
    check_outcomes(sampler)
    check_deterministic(sampler)


def check_batches(sampler: Sampler) -> None:
    """No outcome, and no number of tokens decoded, depends on the batch, on speculation or on drafts."""
    alone = _results(sampler, max_num_seqs=1)
    for max_num_seqs, speculate, draft in ((7, 0, 0), (60, 0, 0), (7, 8, 0), (7, 8, 3)):
        for key, result in _results(sampler, max_num_seqs, speculate, draft=draft).items():
            assert result == alone[key], (
                f"{_name(sampler)}: the outcome of chain {key.problem} depends on the batch: with "
                f"max_num_seqs={max_num_seqs}, speculate={speculate} and draft={draft} it is {result}, "
                f"alone it is {alone[key]}. A chain may know its settings, its context and the answers to its "
                "own requests, and nothing that is shared with other chains"
            )


def check_saved_states(sampler: Sampler) -> None:
    """From each saved state, read back from JSON, the chain goes on as if it had never stopped."""
    events = _events(sampler, 7)
    whole = {e.key: (e.outcome, e.cost.decoded) for e in events if isinstance(e, Completed)}
    saved = [e for e in events if isinstance(e, AtBlockEnd)]
    assert saved or len(inspect.signature(sampler.chain).parameters) == 1, (
        f"{_name(sampler)}: `chain` takes a saved state, but with these settings no chain saves one before its "
        "end: give it more max_tokens or blocks"
    )
    for each in saved:
        try:
            state = json.loads(json.dumps(dict(each.checkpoint.state)))
        except TypeError as error:
            raise AssertionError(
                f"{_name(sampler)}: a saved state must be plain data (JSON): {error}"
            ) from error
        checkpoint = replace(each.checkpoint, state=state)
        again = _results(sampler, 7, checkpoints={each.key: checkpoint})[each.key]
        assert again == whole[each.key], (
            f"{_name(sampler)}: chain {each.key.problem}, started again from a saved state, returns {again} "
            f"instead of {whole[each.key]}: the state leaves something out, or it is not all read: {state}"
        )


def check_outcomes(sampler: Sampler) -> None:
    """An outcome is a response of at most max_tokens, with its own log-likelihood, entropy and end; where it
    names the members that it was chosen from, it is one of them."""
    for key, (outcome, decoded) in _results(sampler, 7).items():
        tokens, where = outcome.tokens, f"{_name(sampler)}: the outcome of chain {key.problem}"
        assert len(tokens) <= sampler.max_tokens, (
            f"{where} has {len(tokens)} tokens, more than max_tokens={sampler.max_tokens}"
        )
        assert EOS not in tokens[:-1], f"{where} goes on after a stop token: {tokens}"
        stopped = tokens[-1:] == (EOS,) or not tokens
        assert stopped == (outcome.finish_reason is FinishReason.STOP), (
            f"{where} ends with finish_reason={outcome.finish_reason}, its tokens are {tokens}"
        )
        logp = loglikelihood(MODEL, tokens)
        assert outcome.logp is not None and outcome.entropy is not None
        assert math.isclose(outcome.logp, logp, rel_tol=1e-6, abs_tol=1e-9), (
            f"{where} has logp={outcome.logp}, but the model gives its tokens {logp}"
        )
        entropy = sum(held(MODEL, tokens, 1.0).entropy) if tokens else 0.0
        assert math.isclose(outcome.entropy, entropy, rel_tol=1e-6, abs_tol=1e-9), (
            f"{where} has entropy={outcome.entropy}, but the model's along its tokens is {entropy}"
        )
        assert tokens in (outcome.members or (tokens,)), (
            f"{where} is {tokens}, which is none of its members: {outcome.members}"
        )
        assert decoded >= len(tokens), (
            f"{where} has {len(tokens)} tokens, of which {decoded} decoded"
        )


def check_keys(sampler: Sampler) -> None:
    """No key names two draws of a chain: they would be made with the same random numbers."""
    for number in range(CHAINS):
        seen = set[Key]()
        for request in _requests(sampler, number):
            assert request.key not in seen, (
                f"{_name(sampler)}: the key {request.key} is used for two draws of chain p{number}, which are "
                "then not independent: name the block, the step and what is drawn"
            )
            seen.add(request.key)


def check_deterministic(sampler: Sampler) -> None:
    """A sampler says that it is deterministic if, and only if, it draws nothing."""
    requests = [request for i in range(CHAINS) for request in _requests(sampler, i)]
    draws = [r for r in requests if not isinstance(r, Extend) or r.tau > 0]
    if sampler.deterministic:
        assert not draws, f"{_name(sampler)} says that it is deterministic, but asks for {draws[0]}"
    else:
        assert draws, (
            f"{_name(sampler)} draws nothing: with the class attribute `deterministic = True` a run makes one "
            "response per problem"
        )


def check_law(
    sampler: Sampler, target: Law, models: Iterable[TabularModel] = MODELS, tolerance: float = 1e-12
) -> None:
    """What the whole chain returns has exactly this law, on responses of at most max_tokens (about 3)."""
    for model in models:

        def program(model: TabularModel = model) -> Generator[Request, Any, Tokens]:
            outcome = yield from sampler.chain(_context(sampler, model))
            return outcome.tokens

        expected = target(model, sampler.max_tokens)
        _require_equal(law(program, model), expected, tolerance, f"{_name(sampler)}: its law")


def check_invariant(
    kernel: Kernel,
    target: Law,
    horizon: int,
    tau: float,
    models: Iterable[TabularModel] = MODELS,
    tolerance: float = 1e-12,
) -> None:
    """A step from a response with this law leads to a response with this law, all of at most `horizon` tokens
    (about 3).

    tau: the temperature at which the response that the step departs from was proposed.
    """
    for model in models:
        before, after = target(model, horizon), dict[Tokens, float]()
        for x, mass in before.items():

            def program(
                x: Tokens = x, model: TabularModel = model
            ) -> Generator[Request, Any, Tokens]:
                y, _ = yield from kernel(held(model, x, tau), context_of(model))
                return y.tokens

            for y, chance in law(program, model).items():
                after[y] = after.get(y, 0.0) + mass * chance
        what = "a step does not leave the target invariant: after it, the law"
        _require_equal(after, before, tolerance, what)


def power(alpha: float) -> Law:
    """The law p(x)^alpha / Z, for `check_law` and `check_invariant`."""
    return lambda model, horizon: power_law(model, alpha, horizon)


def _require_equal(
    found: Mapping[Tokens, float], expected: Mapping[Tokens, float], tolerance: float, what: str
) -> None:
    def error(x: Tokens) -> float:
        return abs(found.get(x, 0.0) - expected.get(x, 0.0))

    worst = max({**found, **expected}, key=error)
    assert error(worst) <= tolerance, (
        f"{what} gives the response {worst} the probability {found.get(worst, 0.0):.12g}, not "
        f"{expected.get(worst, 0.0):.12g}"
    )


def _name(sampler: Sampler) -> str:
    return type(sampler).__name__


def _context(sampler: Sampler, model: TabularModel) -> Context:
    context = context_of(model)
    if not sampler.votes:
        return context
    return replace(context, answer=lambda tokens: str(tokens[0]) if tokens else None)


def _events(
    sampler: Sampler,
    max_num_seqs: int,
    speculate: int = 0,
    checkpoints: Mapping[SampleKey, Checkpoint] | None = None,
    draft: int = 0,
) -> list[Completed | AtBlockEnd]:
    """What chains yield on the toy engine; from checkpoints, only those that have one."""
    chain = partial(sampler.chain, _context(sampler, MODEL))
    keys = [SampleKey(f"p{i}", 0) for i in range(CHAINS)]
    specs = [
        ChainSpec(
            key, (), chain, Stream(0, "testing", key.problem, 0), (checkpoints or {}).get(key)
        )
        for key in keys
        if checkpoints is None or key in checkpoints
    ]
    engine = ToyEngine(MODEL, max_num_seqs=max_num_seqs, draft=draft)
    return [
        event for event in run_chains(specs, engine, Progress(), speculate) if event is not None
    ]


def _results(
    sampler: Sampler,
    max_num_seqs: int,
    speculate: int = 0,
    checkpoints: Mapping[SampleKey, Checkpoint] | None = None,
    draft: int = 0,
) -> dict[SampleKey, tuple[Outcome, int]]:
    """What chains return, and the tokens that each has decoded."""
    events = _events(sampler, max_num_seqs, speculate, checkpoints, draft)
    return {e.key: (e.outcome, e.cost.decoded) for e in events if isinstance(e, Completed)}


def _requests(sampler: Sampler, number: int) -> Iterator[LogUniform | Choose | Extend]:
    """What one chain asks for, one draw after the other, whatever their keys: each comes before its answer."""
    chain = sampler.chain(_context(sampler, MODEL))
    answer: Any = None
    rng = np.random.default_rng(number)
    while True:
        try:
            request = chain.send(answer)
        except StopIteration:
            return
        match request:
            case Save():
                answer = None
            case Together():
                yield from request.requests
                answer = tuple(_drawn(each, rng) for each in request.requests)
            case Extend():
                yield request
                answer = _drawn(request, rng)
            case Choose():
                yield request
                answer = int(rng.choice(len(request.probabilities), p=request.probabilities))
            case LogUniform():
                yield request
                answer = float(np.log1p(-rng.random()))


def _drawn(request: Extend, rng: np.random.Generator) -> Draw:
    """The answer of a new toy engine, which has seen no other request."""
    engine = ToyEngine(MODEL)
    engine.submit(0, (), request, rng.random(request.until))
    while not (finished := engine.step()):
        pass
    return finished[0].draw
