"""Scalable Power Sampling (Ji et al. 2026, arXiv 2601.21590): blocks drawn by p^alpha and their futures.

Per block of B tokens: draw L candidate blocks, keep the K likeliest, draw M rollouts of H tokens from
the base model after each, and choose one block with probability proportional to p(block)^alpha * zeta,
where zeta = E[p(rollout)^(alpha - 1)] = sum of p(future)^alpha over the futures of H tokens, estimated by
its mean over the rollouts. A block that ends the response, and the last block, have no future: zeta = 1.

Same as published: candidates and rollouts from the base model, at temperature 1; K, M, B; the jackknife; no
rollouts in the last block. Open in the paper: L and H (public re-implementations: 32 or 64, and 192), whether
equal candidates count once (`weights`), and what becomes of negative jackknifed weights (cut at 0 here).

Law: with `weights=distinct` it tends to p^alpha on responses of up to T tokens as L, K and M grow, if H
reaches to T; with `importance`, as L = K grows, whatever M is. With `published`, each copy of a candidate
counts, and what is likely is preferred twice: as L grows, copies of the likeliest block fill the K places.
Exact total variation from p^4 on a toy model with 9 blocks of up to 8 tokens (in the tests; low temperature:
.781), published with M unlimited, distinct with M = 8:

    candidates at   | published: L = 32, 64 | distinct: L = 32, 64, unlimited
    1 (the paper)   | .770, .826            | .0026, .0006, .0004
    1/alpha         | .826, .826            | .287, .105, .0004

With M unlimited distinct ones have the same; without the jackknife .0046 instead of .0026. So distinct
candidates at temperature 1 are nearly exact here, and counting copies makes all of the bias; drawn at 1/alpha,
blocks that only their futures make likely are missed. On other models all of 32 blocks at temperature 1 may
be poor: run both.

Cost, tokens decoded per response token: L + K * M * H / B; 96 with the defaults.
"""

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

from powerbench.errors import require, require_integer, unknown
from powerbench.samplers.common import Response, require_temperature, require_top_k
from powerbench.samplers.lookahead import Candidates, Lookahead
from powerbench.types import Context, Request, Together

WEIGHTS = ("published", "distinct", "importance")


@dataclass(frozen=True)
class ScalablePower(Lookahead):
    """Settings: L is `candidates`; the others as in `Lookahead`.

    proposal_temperature: of the candidates; None means 1/alpha.
    weights: `published`, p^alpha * zeta for each candidate, copies too; `distinct`, the same for the set of
        the candidates, equal ones once; `importance`, p^alpha * zeta / q for each, consistent for kept = L.
    """

    blocks: int = 16
    candidates: int = 32
    proposal_temperature: float | None = 1.0
    top_k: int | None = None
    weights: str = "published"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("blocks", "candidates"):
            require_integer(f"sampler.{name}", getattr(self, name), 1)
        require_integer("sampler.kept", self.kept, 1, self.candidates)
        require(
            self.max_tokens % self.blocks == 0,
            f"sampler.blocks={self.blocks} must divide max_tokens={self.max_tokens} (paper: B = 192)",
        )
        require_temperature("proposal_temperature", self.proposal_temperature)
        require_top_k(self.top_k)
        if self.weights not in WEIGHTS:
            raise unknown("sampler.weights", self.weights, WEIGHTS)

    @property
    def tau(self) -> float:
        """The candidates' temperature."""
        return self.proposal_temperature or 1 / self.alpha

    @property
    def size(self) -> int:
        return self.max_tokens // self.blocks

    def offered(self, x: Response, k: int, context: Context) -> Generator[Request, Any, Candidates]:
        """The K likeliest of L blocks that are drawn after x."""
        asked = (
            x.extend(
                len(x),
                len(x) + self.size,
                ("candidate", k, i),
                context,
                tau=self.tau,
                top_k=self.top_k,
            )
            for i in range(self.candidates)
        )
        drawn = [x.then(draw) for draw in (yield Together(tuple(asked)))]
        if self.weights == "distinct":
            drawn = list({y.tokens: y for y in drawn}.values())
        ys = sorted(drawn, key=lambda y: -y.total)[: self.kept]
        start = len(x)
        log_weights = [self.alpha * sum(y.logp[start:]) for y in ys]
        if self.weights == "importance":
            log_weights = [w - sum(y.logq[start:]) for w, y in zip(log_weights, ys, strict=True)]
        return Candidates(ys, log_weights)
