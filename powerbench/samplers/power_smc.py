"""Power-SMC: sequential Monte Carlo for p(x)^alpha (Azizi et al. 2026, arXiv 2602.10273).

N particles are drawn at temperature 1/a(t) and weighted by p^a(t) / q of their tokens, where a(t), the exponent
at position t, rises from 1 to alpha over the first R tokens (`ramp`): where it changes, each particle's log
weight also gets the change times the log p of its prefix. Where the weights have become too unequal, particles
are resampled; at the end one is drawn by weight. Law: for any N and R, the estimate of Z = sum_x p(x)^alpha is
unbiased; the response's law tends to p^alpha as N grows, and for N = 1 is that of the proposal: with R = 0, low
temperature. Cost, tokens decoded per response token: about N; fewer for particles that end early.

Same as published, as far as re-implementations that agree tell: N, alpha, R = 100, the weights looked at after
every token, resampling below half of N, a finished particle kept as it is. Ours: no resampling after the last
token, which would only add variance. The official code differs from its paper: ramp=400 interval=64
proposal_temperature=0.25 top_p=0.9 min_tokens=100 stop_at_answer=true. The last three move the target, to
responses of at least that length, within reach of the nucleus (`truncated`), that end with their first answer.
"""

from dataclasses import dataclass

from powerbench.samplers.particles import Particles


@dataclass(frozen=True)
class PowerSMC(Particles):
    """Settings as in `Particles`; the defaults are the paper's."""
