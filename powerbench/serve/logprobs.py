"""Log-probabilities of an answer's tokens, and of a prompt's, under the base model.

A chain returns its response's log-likelihood as a whole. Token by token it is found in the draws that made the
response: `recorded` keeps them while a chain runs. A prompt is scored by drawing from one token at a time.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace

from powerbench.chains.chain import ChainFactory
from powerbench.models.base import Tokenizer
from powerbench.samplers.common import Response
from powerbench.types import (
    Answer,
    Chain,
    Draw,
    Extend,
    Outcome,
    Save,
    Together,
    Tokens,
    TopLogprobs,
)

WINDOW = 8
"""Tokens before one, with which it is decoded: what a token is as text can depend on them."""


@dataclass(frozen=True)
class TokenLogprob:
    """One token at its position."""

    token: int
    logp: float | None
    """Nats, at temperature 1 on the whole vocabulary; None where it is not known."""
    top: TopLogprobs


@dataclass(frozen=True)
class RecordedOutcome(Outcome):
    """An outcome, with its tokens' log-probabilities."""

    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass
class _Node:
    """What is known of the tokens after one prefix."""

    at: dict[int, TokenLogprob] = field(default_factory=dict)
    after: "dict[int, _Node]" = field(default_factory=dict)

    def add(self, prefix: Tokens, draw: Draw) -> None:
        node = self
        for token in prefix:
            node = node.after.setdefault(token, _Node())
        for i, token in enumerate(draw.tokens):
            top = draw.top_logprobs[i] if draw.top_logprobs else TopLogprobs((), ())
            for other, logp in zip(
                *top, strict=True
            ):  # a beam goes on from tokens that were not drawn
                node.at[other] = TokenLogprob(other, logp, top)
            node.at[token] = TokenLogprob(token, draw.logp[i], top)
            node = node.after.setdefault(token, _Node())

    def along(self, tokens: Tokens) -> tuple[TokenLogprob, ...]:
        node, found = self, []
        for token in tokens:
            found.append(node.at[token])
            node = node.after.get(token, _Node())
        return tuple(found)


def recorded(factory: ChainFactory, top: int) -> ChainFactory:
    """The same chain, whose outcome is a `RecordedOutcome` with the `top` likeliest tokens at each position.

    It saves no states: from one of them, what was drawn before would not be known.
    """
    return lambda state=None, /: _recording(factory(), top)


def scored(tokens: Tokens) -> Chain:
    """Goes through given tokens one by one, each drawn from a support of that token alone; its outcome is they.

    (A model with longrope, whose factors follow the length of prompt and response, is asked as for a prompt of
    one token.)
    """
    x = Response()
    for i, token in enumerate(tokens):
        draw = yield Extend(("score", i), x.tokens, i, i + 1, stop_tokens=(), support=(token,))
        x = x.then(draw)
    return x.outcome()


def piece(tokenizer: Tokenizer, before: Sequence[int], token: int) -> str:
    """A token as the text that it adds to those before it; a special token adds none."""
    near = before[-WINDOW:]
    return tokenizer.decode([*near, token])[len(tokenizer.decode(near)) :]


def _recording(chain: Chain, top: int) -> Chain:
    root = _Node()
    answer: Answer = None
    while True:
        try:
            request = chain.send(answer)
        except StopIteration as end:
            outcome: Outcome = end.value
            own = {each.name: getattr(outcome, each.name) for each in fields(Outcome)}
            return RecordedOutcome(**own, logprobs=root.along(outcome.tokens))
        match request:
            case Extend():
                draw: Draw = yield _reporting(request, top)
                root.add(request.prefix, draw)
                answer = _as_asked(request, draw)
            case Together():
                asked = tuple(_reporting(each, top) for each in request.requests)
                draws: tuple[Draw, ...] = yield Together(asked)
                for each, draw in zip(request.requests, draws, strict=True):
                    root.add(each.prefix, draw)
                answer = tuple(map(_as_asked, request.requests, draws))
            case Save():
                answer = None
            case _:
                answer = yield request


def _reporting(request: Extend, top: int) -> Extend:
    return replace(request, top_logprobs=max(top, request.top_logprobs))


def _as_asked(request: Extend, draw: Draw) -> Draw:
    """With as many of the likeliest tokens as the chain itself has asked for."""
    count = request.top_logprobs
    shown = (TopLogprobs(t.tokens[:count], t.logp[:count]) for t in draw.top_logprobs)
    return replace(draw, top_logprobs=tuple(shown) if count else ())
