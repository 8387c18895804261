"""Block beam search, a baseline: the best of N sampled blocks at a time, by mean log p.

Per block: each of W beams is continued N / W times by up to B sampled tokens (at first one empty response, N
times), and the W candidates with the largest mean log p per token of the whole response go on; finished ones
compete with the rest, and equal ones count once. It ends when all beams are finished, or at T tokens, and
returns the best. Law: none for p(x)^alpha; for one block, that of `best_of_n` by score=per_token; for N = 1, p.
Cost, tokens decoded: N at most for each token of the longest beam.

This is the beam search of work on contrastive block beams (CBS): N 16, W 4, B 32, mean log p. `beam` instead
keeps every token's W best continuations without a draw, by total log p. Ours, since its source states neither:
temperature 1, and that equal candidates count once.
"""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from powerbench.errors import require, require_integer
from powerbench.samplers.common import (
    Response,
    Sampler,
    require_own_temperature,
    require_top_k,
    together,
)
from powerbench.samplers.population import record, recorded
from powerbench.types import Chain, Context, Request, Save


@dataclass(frozen=True)
class BlockBeam(Sampler):
    """candidates: N. beams: W, which divides N. block: B, in tokens. temperature, top_k: of the draws.

    Its rounds show the scores as weights.
    """

    candidates: int = 16
    beams: int = 4
    block: int = 32
    temperature: float = 1.0
    top_k: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("candidates", "beams", "block"):
            require_integer(f"sampler.{name}", getattr(self, name), 1)
        require(
            self.candidates % self.beams == 0,
            f"sampler.beams={self.beams} must divide sampler.candidates={self.candidates}",
        )
        require_own_temperature(self.temperature)
        require_top_k(self.top_k)

    def chain(self, context: Context, state: Mapping[str, Any] | None = None) -> Chain:
        """Block by block, from the start or from a saved state."""
        beams = [Response.of_state(each) for each in state["beams"]] if state else [Response()]
        rounds, ys = recorded(state["rounds"]) if state else [], list[Response]()
        for start in range(len(rounds) * self.block, self.max_tokens, self.block):
            ys = yield from self._candidates(beams, start, context)
            scores = [y.total / len(y) for y in ys]
            kept = sorted(range(len(ys)), key=lambda i: -scores[i])[: self.beams]
            rounds.append(record(start // self.block, start, ys, scores, kept))
            beams = [ys[i] for i in kept]
            if start + self.block >= self.max_tokens or all(x.finished for x in beams):
                break
            saved = [x.state() for x in beams]
            yield Save({"beams": saved, "rounds": [list(each) for each in rounds]})
        return beams[0].outcome(rounds=rounds, members=ys)

    def _candidates(
        self, beams: Sequence[Response], start: int, context: Context
    ) -> Generator[Request, Any, list[Response]]:
        """The finished beams, and the others continued: each token sequence once."""
        until = min(start + self.block, self.max_tokens)
        each = self.candidates // self.beams if start else self.candidates
        asked = {
            (i, n): x.extend(
                start,
                until,
                ("block", start, i, n),
                context,
                tau=self.temperature,
                top_k=self.top_k,
            )
            for i, x in enumerate(beams)
            if not x.finished
            for n in range(each)
        }
        draws = yield from together(asked)
        found = [x for x in beams if x.finished]
        found += [beams[i].then(draw) for (i, _), draw in draws.items()]
        return list({y.tokens: y for y in found}.values())
