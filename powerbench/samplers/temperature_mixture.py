"""Metropolis-Hastings for p(x)^alpha whose proposals are drawn at one of several temperatures, with several
tries (after the code Nan-Jiang-Group/PreSTO).

`multiple_try` with another proposal: each candidate's suffix is drawn at one temperature of a list, taken at
random and kept for the whole suffix. Its q is the mean of the suffix's probabilities at all of them, whichever
it was drawn at, and so is the current suffix's, in both directions: the draw of the temperature is integrated
out. A step leaves p(x)^alpha on responses of at most `horizon` tokens exactly invariant; with one try it is
`power` with a mixture for proposal, whose heavier tails let a chain leave a mode. log q at every temperature
follows from log p and the log-normalisers that come with each draw. Cost: as `multiple_try`; nothing can be
rejected early.

Same as PreSTO: the temperatures .25, .5 and 1, equally likely; the mean in both directions; 4 tries; uniform
restarts. Differs: a block is drafted at 1/alpha, as in `power`; proposals are not truncated unless `top_k` is
set, and then q is that of the truncated laws.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from powerbench.errors import require
from powerbench.samplers.common import Response, require_temperature
from powerbench.samplers.population import log_mean
from powerbench.samplers.tries import Tries
from powerbench.types import Choose, Context, Draw, Extend, Key, Request, Together


@dataclass(frozen=True)
class TemperatureMixture(Tries):
    """Settings as in `multiple_try`.

    temperatures: those of the proposals, equally likely. proposal_temperature: the drafts', None for 1/alpha.
    """

    tries: int = 4
    temperatures: Sequence[float] = (0.25, 0.5, 1.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(len(self.temperatures) > 0, "sampler.temperatures must name at least one, got none")
        for tau in self.temperatures:
            require_temperature("temperatures", tau)

    def draft(self, x: Response, m: int, until: int, key: Key, context: Context) -> Extend:
        exponents = tuple(1 / tau for tau in self.temperatures)
        return replace(super().draft(x, m, until, key, context), exponents=exponents)

    def candidates(
        self, x: Response, m: int, horizon: int, step: tuple[int, int], context: Context
    ) -> Generator[Request, Any, tuple[Draw, ...]]:
        asked, count = [], len(self.temperatures)
        for i in range(self.tries):
            chosen = yield Choose(("temperature", *step, i), (1 / count,) * count)
            request = self.draft(x, m, horizon, ("propose", *step, i), context)
            asked.append(replace(request, tau=self.temperatures[chosen]))
        draws: tuple[Draw, ...] = yield Together(tuple(asked))
        return draws

    def log_weight(self, x: Response, m: int) -> float:
        suffixes = (x.proposed_at(tau, i).logq[m:] for i, tau in enumerate(self.temperatures))
        return self.alpha * sum(x.logp[m:]) - log_mean([sum(logq) for logq in suffixes])
