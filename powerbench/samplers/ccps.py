"""CCPS, chopthin consensus power sampling: Power-SMC whose particles vote (Ahmadi et al., COLM 2026 workshop).

Particles are resampled by chopthin (`resampling`), which keeps their weights unequal but within a ratio of
3 + sqrt(8), and so keeps more lineages than systematic resampling. At the end equal responses are one lineage
with their weights pooled; lineages with the same answer are one group; the group with most lineages wins, ties
by weight, and its heaviest lineage is returned.

Law: with `select=draw`, a response drawn by weight, that of `power_smc`: unbiased weights, p^alpha as N grows.
A vote tends to no p^alpha. Cost, tokens decoded per response token: N, as `power_smc`.

Same as published: chopthin and its ratio, the vote, and the settings: alpha 2, N 32, looks every 64 tokens, a
ramp of 100, at least 100 tokens, a nucleus of .9, the end of a particle at its boxed answer; with
top_p=null min_tokens=0 stop_at_answer=false the method alone. Ours: new weights are not scaled to their former
sum, as in the authors' code, since that biases them (by enumeration); where nothing has an answer, the heaviest
lineage is returned; answers are equal as the verifier spells them, so that programs, which have none, do not
vote.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

from powerbench.errors import unknown
from powerbench.samplers.common import Response
from powerbench.samplers.particles import Particles
from powerbench.samplers.population import Population
from powerbench.samplers.voting import answers
from powerbench.types import Context, Request

SELECT = ("draw", "vote")


@dataclass(frozen=True)
class CCPS(Particles):
    """select: `vote`, or `draw` by weight. The others as in `Particles`."""

    alpha: float = 2.0
    particles: int = 32
    interval: int = 64
    resampling: str = "chopthin"
    top_p: float | None = 0.9
    min_tokens: int = 100
    stop_at_answer: bool = True
    select: str = "vote"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.select not in SELECT:
            raise unknown("sampler.select", self.select, SELECT)

    @property
    def votes(self) -> bool:
        return self.select == "vote" or self.stop_at_answer

    def choice(
        self, end: Population, weights: Sequence[float], context: Context
    ) -> Generator[Request, Any, int]:
        if self.select == "draw":
            return (yield from super().choice(end, weights, context))
        return consensus(end.particles, weights, answers(context, end.particles))


def consensus(
    responses: Sequence[Response], weights: Sequence[float], given: Sequence[str | None]
) -> int:
    """Which response is returned: the first of the heaviest lineage of the answer that most lineages give."""
    first, mass = dict[tuple[int, ...], int](), dict[int, float]()
    for i, (x, weight) in enumerate(zip(responses, weights, strict=True)):
        at = first.setdefault(x.tokens, i)
        mass[at] = mass.get(at, 0.0) + weight
    groups = dict[str, list[int]]()
    for i in mass:
        if (answer := given[i]) is not None:
            groups.setdefault(answer, []).append(i)
    won = max(
        groups.values(), key=lambda each: (len(each), sum(mass[i] for i in each)), default=[*mass]
    )
    return max(won, key=mass.__getitem__)
