"""Power sampling as the official code runs it, every departure a setting (commit 720a8e9).

Where it departs from Algorithm 1 or from what a reader expects, it is reproduced here and can be
switched off, one by one; with all departures off the chain is that of `power`. With them on, the
kernel does not leave p(x)^alpha invariant: its law is known exactly on toy models, and tested against
an enumeration of the original's rule. Cost: as `power`, without early rejection.
"""

from dataclasses import dataclass

from powerbench.samplers.blockwise import Moving
from powerbench.samplers.common import Response, weight
from powerbench.samplers.official import Official
from powerbench.types import Context, LogUniform


@dataclass(frozen=True)
class PowerOfficial(Official):
    """alpha_from_temperature (4): alpha is 1/proposal_temperature (on AlpacaEval: 2, not 4)."""

    alpha_from_temperature: bool = True

    @property
    def power(self) -> float:
        """The alpha of the acceptance ratio."""
        return 1 / self.tau if self.alpha_from_temperature else self.alpha

    def move(self, x: Response, m: int, horizon: int, k: int, n: int, context: Context) -> Moving:
        """With the official acceptance ratio."""
        y = yield self.draft(x, m, self.until(x, horizon), ("propose", k, n), context)
        current = weight(x, self.power, m, self.compared(m, y))
        threshold = (yield LogUniform(("accept", k, n))) + current
        return self.after(x, m, y, k, accepted=threshold <= weight(y, self.power))
