"""What samplers share: the protocol, the response under construction, and checks of settings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from powerbench.errors import require, require_integer
from powerbench.types import Chain, Context, Draw, Ended, Extend, Outcome, Save, Step, Tokens


class Sampler(Protocol):
    """An algorithm for one response. Its fields are settings; `chain` is the algorithm."""

    @property
    def max_tokens(self) -> int:
        """The longest response it can return, in tokens: T."""
        ...

    def chain(self, context: Context) -> Chain:
        """The algorithm: a generator that yields requests and returns an Outcome.

        A sampler that yields `Save(state)` takes such a state as a second argument, and goes on from it.
        """
        ...


@dataclass(frozen=True)
class Response:
    """A response under construction: tokens, and per token log p, log q and entropy (nats)."""

    tokens: Tokens = ()
    logp: tuple[float, ...] = ()
    logq: tuple[float, ...] = ()
    entropy: tuple[float, ...] = ()
    ended: Ended = Ended.LENGTH

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def finished(self) -> bool:
        """Whether the last token is a stop token."""
        return self.ended is Ended.STOP

    def then(self, draw: Draw, keep: int | None = None) -> "Response":
        """The first `keep` tokens (default: all) followed by a draw that continues them."""
        return Response(
            self.tokens[:keep] + draw.tokens,
            self.logp[:keep] + draw.logp,
            self.logq[:keep] + draw.logq,
            self.entropy[:keep] + draw.entropy,
            draw.ended,
        )

    def outcome(self, steps: Sequence[Step] = ()) -> Outcome:
        """The response as a chain's result."""
        return Outcome(self.tokens, sum(self.logp), sum(self.entropy), self.ended, tuple(steps))


class Progress(NamedTuple):
    """Where a blockwise chain stands between two blocks."""

    block: int
    """The block to come."""
    x: Response
    steps: list[Step]

    def saved(self) -> Save:
        x = self.x
        return Save(
            {
                "block": self.block,
                "tokens": list(x.tokens),
                "logp": list(x.logp),
                "logq": list(x.logq),
                "entropy": list(x.entropy),
                "ended": x.ended.value,
                "steps": [list(step) for step in self.steps],
            }
        )


def progress(state: Mapping[str, Any] | None) -> Progress:
    """What `Progress.saved` saved; the beginning, if nothing was."""
    if state is None:
        return Progress(0, Response(), [])
    tokens, logp, logq, entropy = (
        tuple(state[name]) for name in ("tokens", "logp", "logq", "entropy")
    )
    x = Response(tokens, logp, logq, entropy, Ended(state["ended"]))
    return Progress(state["block"], x, [Step(*step) for step in state["steps"]])


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


def ancestral(context: Context, max_tokens: int, tau: float, top_k: int | None = None) -> Chain:
    """One response, token by token, at temperature tau."""
    draw = yield Extend(
        key=("response",),
        response=(),
        keep=0,
        until=max_tokens,
        stops=context.stops,
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


def require_temperature(name: str, tau: float | None) -> None:
    require(tau is None or tau > 0, f"sampler.{name} must be > 0 (or null for 1/alpha), got {tau}")


def require_blocks(max_tokens: int, blocks: int) -> None:
    require_integer("sampler.blocks", blocks, 1)
    require(
        max_tokens % blocks == 0,
        f"sampler.blocks={blocks} must divide max_tokens={max_tokens} (paper: 16 blocks of 192)",
    )


def require_steps(steps: int) -> None:
    require_integer("sampler.steps", steps, 0)


class Blockwise(Protocol):
    """The settings that the Metropolis-Hastings samplers have in common."""

    @property
    def max_tokens(self) -> int: ...
    @property
    def alpha(self) -> float: ...
    @property
    def blocks(self) -> int: ...
    @property
    def steps(self) -> int: ...
    @property
    def proposal_temperature(self) -> float | None: ...
    @property
    def top_k(self) -> int | None: ...


def require_blockwise(sampler: Blockwise) -> None:
    require_length(sampler.max_tokens)
    require_alpha(sampler.alpha)
    require_blocks(sampler.max_tokens, sampler.blocks)
    require_steps(sampler.steps)
    require_temperature("proposal_temperature", sampler.proposal_temperature)
    require_top_k(sampler.top_k)
