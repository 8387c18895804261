"""What samplers share: the protocol, the response under construction, and checks of settings."""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from powerbench.errors import require, require_integer
from powerbench.types import (
    Chain,
    Context,
    Draw,
    Extend,
    FinishReason,
    Key,
    Outcome,
    Request,
    Round,
    Step,
    Together,
    Tokens,
)

Name = TypeVar("Name")


class Sampler(Protocol):
    """An algorithm for one response. Its fields are settings; `chain` is the algorithm."""

    @property
    def max_tokens(self) -> int:
        """The longest response it can return, in tokens: T."""
        ...

    def chain(self, context: Context) -> Chain:
        """The algorithm: a generator that yields requests and returns an Outcome.

        A sampler that yields `Save(state)` takes such a state as a second argument, and goes on from it.
        One that reads `context.answer` has a class attribute `votes`, which is true.
        """
        ...


@dataclass(frozen=True)
class Response:
    """A response under construction: tokens, and per token log p, log q and entropy (nats)."""

    tokens: Tokens = ()
    logp: tuple[float, ...] = ()
    logq: tuple[float, ...] = ()
    entropy: tuple[float, ...] = ()
    finish_reason: FinishReason = FinishReason.LENGTH

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def finished(self) -> bool:
        """Whether the last token is a stop token."""
        return self.finish_reason is FinishReason.STOP

    def then(self, draw: Draw, keep: int | None = None) -> "Response":
        """The first `keep` tokens (default: all) followed by a draw that continues them."""
        return Response(
            self.tokens[:keep] + draw.tokens,
            self.logp[:keep] + draw.logp,
            self.logq[:keep] + draw.logq,
            self.entropy[:keep] + draw.entropy,
            draw.finish_reason,
        )

    @property
    def total(self) -> float:
        """Log-likelihood under the base model, nats."""
        return sum(self.logp)

    def outcome(self, steps: Sequence[Step] = (), rounds: Sequence[Round] = ()) -> Outcome:
        """The response as a chain's result."""
        entropy = sum(self.entropy)
        return Outcome(
            self.tokens, self.total, entropy, self.finish_reason, tuple(steps), tuple(rounds)
        )

    def state(self) -> dict[str, Any]:
        """As plain data, for a `Save`."""
        return {
            "tokens": list(self.tokens),
            "logp": list(self.logp),
            "logq": list(self.logq),
            "entropy": list(self.entropy),
            "finish_reason": self.finish_reason.value,
        }

    @classmethod
    def of_state(cls, state: Mapping[str, Any]) -> "Response":
        """What `state` gave."""
        return cls(
            tuple(state["tokens"]),
            tuple(state["logp"]),
            tuple(state["logq"]),
            tuple(state["entropy"]),
            FinishReason(state["finish_reason"]),
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


def suffix(
    x: Response,
    keep: int,
    until: int,
    key: Key,
    context: Context,
    *,
    tau: float,
    top_k: int | None = None,
    alpha: float = 1.0,
    floor: float = float("-inf"),
    sequence: int = 0,
    proposal: bool = False,
    top_logprobs: int = 0,
) -> Extend:
    """Asks for a response like x up to its first `keep` tokens, drawn anew from there on."""
    return Extend(
        key=key,
        response=x.tokens,
        keep=keep,
        until=until,
        stop_tokens=context.stop_tokens,
        tau=tau,
        top_k=top_k,
        alpha=alpha,
        floor=floor,
        sequence=sequence,
        proposal=proposal,
        top_logprobs=top_logprobs,
    )


def together(asked: Mapping[Name, Extend]) -> Generator[Request, Any, dict[Name, Draw]]:
    """Asks for all of these at once, if there are any; their draws under the same names."""
    draws = (yield Together(tuple(asked.values()))) if asked else ()
    return dict(zip(asked, draws, strict=True))


def ancestral(context: Context, max_tokens: int, tau: float, top_k: int | None = None) -> Chain:
    """One response, token by token, at temperature tau."""
    draw = yield Extend(
        key=("response",),
        response=(),
        keep=0,
        until=max_tokens,
        stop_tokens=context.stop_tokens,
        tau=tau,
        top_k=top_k,
    )
    return Response().then(draw).outcome()


def require_length(max_tokens: int) -> None:
    require_integer("sampler.max_tokens", max_tokens, 1)


def require_top_k(top_k: int | None) -> None:
    if top_k is not None:
        require_integer("sampler.top_k", top_k, 1)


def require_alpha(alpha: float) -> None:
    require(alpha > 0, f"sampler.alpha must be > 0 (the paper: 4.0), got {alpha}")


def require_own_temperature(tau: float | None) -> None:
    """Of a sampler without an alpha, from which one could follow."""
    require(tau is not None and tau > 0, f"sampler.temperature must be > 0, got {tau}")


def require_temperature(name: str, tau: float | None) -> None:
    require(tau is None or tau > 0, f"sampler.{name} must be > 0 (or null for 1/alpha), got {tau}")
