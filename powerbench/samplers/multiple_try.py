"""Multiple-try Metropolis for the power distribution (Liu, Liang & Wong 2000, J. Am. Stat. Assoc. 95:121; for
p(x)^alpha: EGPS, arXiv 2606.09926, and the code Nan-Jiang-Group/PreSTO).

Algorithm 1's frame. At a restart several candidate suffixes are drawn together, one is picked by its importance
weight w = exp(sum of alpha * log p - log q), and accepted with probability min(1, W / (W - w + w_x)): W the sum
over the candidates, w_x the current suffix's weight. Given the kept prefix, the candidates' law does not depend
on the current suffix (the method's independence variant), so those not picked serve, with the current suffix,
as its reference set: nothing more is drawn. A step leaves p(x)^alpha on responses of at most `horizon` tokens
exactly invariant; with one try it is that of `power`. Cost, tokens decoded per response token: tries * N_MCMC *
T / (4 B), at the wall-clock of one try where a batch has room. No try can be rejected early by itself, as its
chance depends on the others.

Same as EGPS: the pick and the acceptance (its Eqs. 6 and 7). Differs: restarts are uniform and every block is
refined, as in PreSTO; EGPS' restarts near high entropy and its gate are in `entropy_gated`, PreSTO's mixture of
temperatures in `temperature_mixture`. Tries: 5, our choice (PreSTO's settings 4, its example 5; EGPS' number is
not known to us).
"""

from dataclasses import dataclass

from powerbench.samplers.tries import Tries


@dataclass(frozen=True)
class MultipleTry(Tries):
    """Settings as in `power`, and the number of tries."""
