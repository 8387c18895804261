"""Entropy-gated multiple-try Metropolis for p(x)^alpha: several tries where the entropy rises, none in sure
blocks (after EGPS, arXiv 2606.09926, with the restarts of Entropy-Cut, 2605.30327).

`multiple_try` with two parts more. Restarts: at position m with the probability lambda(m) of `entropy_cut`,
which depends on the response; so each candidate's weight is w * lambda'(m), lambda' its own, and the current
suffix's w_x * lambda(m). A step leaves p(x)^alpha on responses of at most `horizon` tokens exactly invariant.
Gate: a block whose draft has a mean next-token entropy below the gate is not refined. That is decided once,
from the draft, before any step of the block; so a block's kernel is a fixed one, and leaves p^alpha on its
horizon invariant, refined or not. (Decided anew at each step it would not.) What is not refined keeps the
draft's law: a chain tends to p^alpha where the gate is 0, and every block is refined. Cost, tokens decoded per
response token: tries * N_MCMC * T / (4 B), times the share of blocks that are refined.

Same as EGPS, as far as its abstract tells: sure blocks are skipped, each step restarts near high entropy, with
several tries. Differs: its neighbourhoods, thresholds and number of tries are not known to us; the rises of
Entropy-Cut, the mean over a block and the values here are our choices.
"""

import math
from dataclasses import dataclass

from powerbench.errors import require
from powerbench.samplers.common import Response
from powerbench.samplers.restarts import require_restarts, restart_law
from powerbench.samplers.tries import Tries
from powerbench.types import Choose, Key

MOST_ENTROPY = 100.0
"""More than the logarithm of any vocabulary's size."""


@dataclass(frozen=True)
class EntropyGated(Tries):
    """Settings as in `multiple_try`; exponent and uniform as in `entropy_cut`.

    gate: nats per token; blocks whose draft has less entropy are not refined. 0: every block is.
    """

    exponent: float = 4.0
    uniform: float = 0.0
    gate: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        require_restarts(self.exponent, self.uniform)
        require(
            0 <= self.gate <= MOST_ENTROPY,
            f"sampler.gate must be from 0 to {MOST_ENTROPY:g} nats per token, got {self.gate}",
        )

    def refinements(self, x: Response, start: int) -> int:
        """None for a block of low entropy, as one without new tokens is."""
        new = x.entropy[start:]
        mean = sum(new) / len(new) if new else 0.0
        return self.steps if mean >= self.gate else 0

    def restarts(self, x: Response) -> tuple[float, ...]:
        """lambda: the probability of a restart at each of the response's positions."""
        return restart_law(x.entropy, self.exponent, self.uniform)

    def restart(self, x: Response, horizon: int, key: Key) -> Choose:
        """Asks for the position to restart from: by lambda, within the response."""
        return Choose(key, self.restarts(x))

    def log_weight(self, x: Response, m: int) -> float:
        chance = self.restarts(x)[m]
        return super().log_weight(x, m) + math.log(chance) if chance else -math.inf
