"""Beam search, a baseline: the likeliest response that can be found by keeping W prefixes at a time.

Each step extends every unfinished beam by one token, in all ways, and keeps the W beams with the largest
score, log p(x) / length^penalty; finished ones compete with the rest. The result is the best beam once no
other can overtake it, or at T tokens. Law: no randomness; with penalty 0, the exact argmax of p over
responses of up to T tokens if W is as large as the number of prefixes, and greedy's response if W = 1.
Cost, tokens decoded: W at most for each token of the longest beam.

A greedy draw of one token reports the W likeliest next ones, which is all that can stay among W beams; the
token drawn is not used. The blockwise beam search of later papers is `block_beam`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, ClassVar

from powerbench.errors import require, require_integer
from powerbench.samplers.common import Response, Sampler, extended, together
from powerbench.samplers.population import record
from powerbench.types import Chain, Context, Draw, Save

SAVED_EVERY = 64
"""Tokens between two saved states."""


@dataclass(frozen=True)
class Beam(Sampler):
    """width: W. length_penalty: 0 for none; at 1 beams compare by log p per token."""

    deterministic: ClassVar[bool] = True

    width: int = 4
    length_penalty: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_integer("sampler.width", self.width, 1)
        require(
            0 <= self.length_penalty <= 10,
            f"sampler.length_penalty must be >= 0 and <= 10, got {self.length_penalty}",
        )

    def chain(self, context: Context, state: Mapping[str, Any] | None = None) -> Chain:
        beams = [Response.of_state(each) for each in state["beams"]] if state else [Response()]
        for length in range(state["length"] if state else 0, self.max_tokens):
            asked = {
                i: x.extend(
                    length,
                    length + 1,
                    ("beam", length, i),
                    context,
                    tau=0.0,
                    top_logprobs=self.width,
                )
                for i, x in enumerate(beams)
                if not x.finished
            }
            beams = self._best(beams, (yield from together(asked)), context)
            if self._decided(beams):
                break
            if (length + 1) % SAVED_EVERY == 0:
                yield Save({"length": length + 1, "beams": [x.state() for x in beams]})
        scores = [self._score(x.total, len(x)) for x in beams]
        return beams[0].outcome(rounds=[record(0, 0, beams, scores, [0])], members=beams)

    def _best(
        self, beams: Sequence[Response], draws: Mapping[int, Draw], context: Context
    ) -> list[Response]:
        """The W best of the finished beams and of the extensions of the others, best first."""
        found: list[tuple[float, int, int | None, float]] = []
        for i, x in enumerate(beams):
            if i not in draws:
                found.append((self._score(x.total, len(x)), i, None, 0.0))
                continue
            total, (ranked,) = x.total, draws[i].top_logprobs
            for token, logp in zip(ranked.tokens, ranked.logp, strict=True):
                if isfinite(logp):
                    found.append((self._score(total + logp, len(x) + 1), i, token, logp))
        found.sort(key=lambda each: -each[0])
        return [
            beams[i] if token is None else extended(beams[i], token, logp, draws[i], context)
            for _, i, token, logp in found[: self.width]
        ]

    def _score(self, total: float, length: int) -> float:
        return float(total / length**self.length_penalty)

    def _decided(self, beams: Sequence[Response]) -> bool:
        """Whether the best is finished, and no other can overtake it: log p only falls."""
        best = self._score(beams[0].total, len(beams[0]))
        return beams[0].finished and all(
            x.finished or self._score(x.total, self.max_tokens) <= best for x in beams
        )
