"""What samplers share: their base class, the response under construction, and checks of settings."""

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeVar

from powerbench.errors import require, require_integer
from powerbench.types import (
    Chain,
    Context,
    Draw,
    Extend,
    FinishReason,
    Key,
    Outcome,
    Reply,
    Request,
    Round,
    Step,
    Together,
    Tokens,
)

Name = TypeVar("Name")

MAX_LOGIT_SCALE = 1e6
"""The largest alpha and temperature, and 1 over the smallest temperature: float32 can scale logits by them."""


@dataclass(frozen=True)
class Sampler(ABC):
    """An algorithm for one response. Its fields are settings; `chain` is the algorithm."""

    deterministic: ClassVar[bool] = False
    """Whether nothing is drawn, whatever the settings: every replicate of a problem is the same response, so
    that a run makes one."""
    whole_responses: ClassVar[bool] = False
    """Whether it asks for independent whole responses and nothing else, so that it can also ask an endpoint."""
    ranks: ClassVar[bool] = False
    """Whether it compares responses by log-probabilities, which an endpoint then has to give."""

    max_tokens: int
    """The longest response it can return, in tokens: T."""

    def __post_init__(self) -> None:
        """Raise UserError for an impossible setting."""
        require_integer("sampler.max_tokens", self.max_tokens, 1)

    @property
    def votes(self) -> bool:
        """Whether `context.answer` is read, so that the task's responses must have answers."""
        return False

    @abstractmethod
    def chain(self, context: Context) -> Chain:
        """The algorithm: a generator that yields requests and returns an Outcome.

        A sampler that yields `Save(state)` takes such a state as a second argument, and goes on from it.
        """


@dataclass(frozen=True)
class Response:
    """A response under construction: tokens, and per token log p, log q and entropy (nats)."""

    tokens: Tokens = ()
    logp: tuple[float, ...] = ()
    logq: tuple[float, ...] = ()
    entropy: tuple[float, ...] = ()
    finish_reason: FinishReason = FinishReason.LENGTH
    log_normalisers: tuple[tuple[float, ...], ...] = ()
    """Per token, for each of the exponents that its draws were asked for; empty if for none."""
    top_entropy: tuple[float, ...] = ()
    """Per token, over the likeliest tokens that its draws were asked for alone; empty if for none."""
    reply: Reply | None = None
    """All of the response, where an endpoint gave it: then there are no tokens, and log p is as it reports."""

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def finished(self) -> bool:
        """Whether the last token is a stop token."""
        return self.finish_reason is FinishReason.STOP

    def extend(self, keep: int, until: int, key: Key, context: Context, **settings: Any) -> Extend:
        """Asks for a response like this up to its first `keep` tokens, drawn anew from there to `until`.

        settings: further fields of `Extend`, such as tau.
        """
        return Extend(key, self.tokens, keep, until, context.stop_tokens, **settings)

    def then(self, draw: Draw, keep: int | None = None) -> "Response":
        """The first `keep` tokens (default: all) followed by a draw that continues them."""
        return Response(
            self.tokens[:keep] + draw.tokens,
            self.logp[:keep] + draw.logp,
            self.logq[:keep] + draw.logq,
            self.entropy[:keep] + draw.entropy,
            draw.finish_reason,
            self.log_normalisers[:keep] + draw.log_normalisers,
            self.top_entropy[:keep] + tuple(top.entropy for top in draw.top_logprobs),
            draw.reply,
        )

    def upto(self, length: int) -> "Response":
        """Its first tokens, fewer than it has."""
        return Response(
            self.tokens[:length], self.logp[:length], self.logq[:length], self.entropy[:length]
        )

    def proposed_at(self, tau: float, i: int) -> "Response":
        """The same response, with log q at temperature tau, 1/tau being the i-th of its exponents."""
        pairs = zip(self.logp, self.log_normalisers, strict=True)
        return replace(self, logq=tuple(p / tau - norms[i] for p, norms in pairs))

    @property
    def said(self) -> Tokens | str:
        """What `Context.answer` reads: the tokens, or the text where an endpoint gave that."""
        return self.tokens if self.reply is None else self.reply.text

    @property
    def total(self) -> float:
        """Log-likelihood under the base model, nats; of an endpoint's, the sum of what it reports."""
        return sum(self.logp)

    def outcome(
        self,
        steps: Sequence[Step] = (),
        rounds: Sequence[Round] = (),
        members: Iterable["Response"] = (),
    ) -> Outcome:
        """The response as a chain's result. members: those that it was chosen from, itself among them."""
        known = self.reply is None
        return Outcome(
            self.tokens,
            self.total if known else None,
            sum(self.entropy) if known else None,
            self.finish_reason,
            tuple(steps),
            tuple(rounds),
            self.reply,
            tuple(x.said for x in members),
        )

    def state(self) -> dict[str, Any]:
        """As plain data, for a `Save`."""
        return {
            "tokens": list(self.tokens),
            "logp": list(self.logp),
            "logq": list(self.logq),
            "entropy": list(self.entropy),
            "finish_reason": self.finish_reason.value,
            "log_normalisers": list(self.log_normalisers),
            "top_entropy": list(self.top_entropy),
        }

    @classmethod
    def of_state(cls, state: Mapping[str, Any]) -> "Response":
        """The inverse of `state`."""
        return cls(
            tuple(state["tokens"]),
            tuple(state["logp"]),
            tuple(state["logq"]),
            tuple(state["entropy"]),
            FinishReason(state["finish_reason"]),
            tuple(map(tuple, state.get("log_normalisers", ()))),
            tuple(state.get("top_entropy", ())),
        )


def extended(x: Response, token: int, logp: float, draw: Draw, context: Context) -> Response:
    """x and one more token, at the position of a greedy draw that reported it."""
    finish_reason = FinishReason.STOP if token in context.stop_tokens else FinishReason.LENGTH
    return Response(
        (*x.tokens, token),
        (*x.logp, logp),
        (*x.logq, 0.0),
        (*x.entropy, *draw.entropy),
        finish_reason,
    )


def weight(drawn: Draw | Response, alpha: float, start: int = 0, stop: int | None = None) -> float:
    """Sum of alpha * log p - log q, in nats, over the tokens start..stop."""
    pairs = zip(drawn.logp[start:stop], drawn.logq[start:stop], strict=True)
    return sum(alpha * p - q for p, q in pairs)


def weights_only_fall(alpha: float, tau: float) -> bool:
    """Whether alpha * log p - log q <= 0 for every token: q ~ p^(1/tau), truncated or not.

    w = (alpha - 1/tau) log p + log sum_v p(v)^(1/tau), and both terms are at most zero when
    tau <= 1 <= alpha * tau. (The tolerance is for tau = 1/alpha in floating point.)
    """
    return tau <= 1 and alpha * tau >= 1 - 1e-12


def together(asked: Mapping[Name, Extend]) -> Generator[Request, Any, dict[Name, Draw]]:
    """Asks for all of these at once; their draws under the same names."""
    draws = (yield Together(tuple(asked.values()))) if asked else ()
    return dict(zip(asked, draws, strict=True))


def independent(
    context: Context, numbers: Iterable[int], max_tokens: int, **settings: Any
) -> Generator[Request, Any, tuple[Draw, ...]]:
    """The draws of independent whole responses, all at once.

    numbers: name these responses among all that the chain draws. settings: as in `Response.extend`.
    """
    empty = Response()
    asked = (empty.extend(0, max_tokens, ("response", i), context, **settings) for i in numbers)
    draws: tuple[Draw, ...] = yield Together(tuple(asked))
    return draws


def ancestral(context: Context, max_tokens: int, tau: float, top_k: int | None = None) -> Chain:
    """One response, token by token, at temperature tau."""
    empty = Response()
    draw = yield empty.extend(0, max_tokens, ("response",), context, tau=tau, top_k=top_k)
    return empty.then(draw).outcome()


def require_top_k(top_k: int | None) -> None:
    if top_k is not None:
        require_integer("sampler.top_k", top_k, 1)


def require_alpha(alpha: float) -> None:
    require(alpha > 0, f"sampler.alpha must be > 0 (the paper: 4.0), got {alpha}")
    require(alpha <= MAX_LOGIT_SCALE, f"sampler.alpha must be <= {MAX_LOGIT_SCALE:g}, got {alpha}")


def require_own_temperature(tau: float | None) -> None:
    """For a sampler without an alpha that a temperature could follow from."""
    require(tau is not None and tau > 0, f"sampler.temperature must be > 0, got {tau}")
    require_temperature("temperature", tau)


def require_temperature(name: str, tau: float | None) -> None:
    require(tau is None or tau > 0, f"sampler.{name} must be > 0 (or null for 1/alpha), got {tau}")
    require(
        tau is None or 1 / MAX_LOGIT_SCALE <= tau <= MAX_LOGIT_SCALE,
        f"sampler.{name} must be from {1 / MAX_LOGIT_SCALE:g} to {MAX_LOGIT_SCALE:g}, got {tau}",
    )


def known(numbers: Sequence[float | None]) -> list[float]:
    """The same numbers, of responses that a model with weights gave: none of them is unknown there."""
    found = [number for number in numbers if number is not None]
    assert len(found) == len(numbers)
    return found
