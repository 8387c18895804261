"""Scalable Power Sampling token by token: Algorithm 1 of Ji et al. 2026 (arXiv 2601.21590).

Per token: take the K likeliest next tokens under p, draw M completions of H tokens from the base model after
each, and choose one token with probability proportional to p(token)^alpha * zeta, zeta as in `scalable_power`,
whose Algorithm 2 this is with blocks of one token and candidates that are not drawn but enumerated.

Law: tends to p^alpha on responses of up to T tokens as K reaches the vocabulary and M grows, if H reaches to T;
with K = 1 it is greedy's. Same as published: candidates, completions from the base model at temperature 1, the
jackknife. Ours: the same K and M at every token, their values (those of the blocks), and H, since completions
to the end would cost T / 2 tokens each.
Cost, tokens decoded per response token: 1 + K * M * H, that is 12289 with the defaults, against 96 for blocks.

A greedy draw of one token reports the K likeliest ones; the token drawn is not used.
"""

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any

from powerbench.errors import require_integer
from powerbench.samplers.common import (
    Response,
    Sampler,
    extended,
    require_alpha,
    require_temperature,
)
from powerbench.samplers.jackknife import jackknifed, plain
from powerbench.samplers.population import record, recorded
from powerbench.samplers.rollouts import futures
from powerbench.types import LOG_ZERO, Chain, Choose, Context, Request, Round, Save

SAVED_EVERY = 16
"""Tokens between two saved states."""


@dataclass(frozen=True)
class ScalablePowerTokens(Sampler):
    """Settings: K, M and H are `kept`, `rollouts` and `lookahead`; the others as in `scalable_power`."""

    alpha: float = 4.0
    kept: int = 8
    rollouts: int = 8
    lookahead: int = 192
    rollout_temperature: float | None = 1.0
    jackknife: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        require_alpha(self.alpha)
        for name in ("kept", "rollouts", "lookahead"):
            require_integer(f"sampler.{name}", getattr(self, name), 1)
        require_temperature("rollout_temperature", self.rollout_temperature)

    def chain(self, context: Context, state: Mapping[str, Any] | None = None) -> Chain:
        """Token by token, from the start or from a saved state."""
        x = Response.of_state(state["response"]) if state else Response()
        rounds = recorded(state["rounds"]) if state else []
        while len(x) < self.max_tokens and not x.finished:
            x, chosen = yield from self._token(x, context)
            rounds.append(chosen)
            if len(x) % SAVED_EVERY == 0:
                yield Save({"response": x.state(), "rounds": [list(each) for each in rounds]})
        return x.outcome(rounds=rounds)

    def _token(
        self, x: Response, context: Context
    ) -> Generator[Request, Any, tuple[Response, Round]]:
        """x and one more token, and how it was chosen."""
        at = len(x)
        draw = yield x.extend(
            at, at + 1, ("candidates", at), context, tau=0.0, top_logprobs=self.kept
        )
        ys = [
            extended(x, token, logp, draw, context)
            for token, logp in zip(*draw.top_logprobs[0], strict=True)
            if logp > LOG_ZERO
        ]
        after = yield from futures(
            ys,
            ("rollout", at),
            min(at + 1 + self.lookahead, self.max_tokens),
            context,
            count=self.rollouts,
            alpha=self.alpha,
            tau=self.rollout_temperature or 1 / self.alpha,
        )
        tokens = [self.alpha * y.logp[at] for y in ys]
        chances = (jackknifed if self.jackknife else plain)(tokens, after)
        chosen = yield Choose(("token", at), chances)
        return ys[chosen], record(at, at, ys, chances, (chosen,))
