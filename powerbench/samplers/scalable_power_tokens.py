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

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, ClassVar

from powerbench.samplers.common import Response, extended
from powerbench.samplers.lookahead import Candidates, Lookahead
from powerbench.types import LOG_ZERO, Context, Request

SAVED_EVERY = 16
"""Tokens between two saved states."""


@dataclass(frozen=True)
class ScalablePowerTokens(Lookahead):
    """Settings as in `Lookahead`."""

    unit: ClassVar[str] = "token"

    @property
    def size(self) -> int:
        return 1

    @property
    def saved_every(self) -> int:
        return SAVED_EVERY

    def offered(self, x: Response, k: int, context: Context) -> Generator[Request, Any, Candidates]:
        """x and each of the K likeliest next tokens."""
        at = len(x)
        key = ("candidates", at)
        draw = yield x.extend(at, at + 1, key, context, tau=0.0, top_logprobs=self.kept)
        ys = [
            extended(x, token, logp, draw, context)
            for token, logp in zip(*draw.top_logprobs[0], strict=True)
            if logp > LOG_ZERO
        ]
        return Candidates(ys, [self.alpha * y.logp[at] for y in ys])
