"""Power sampling as the official code runs it, every departure a field (commit 720a8e9).

Where it departs from Algorithm 1 or from what a reader expects, it is reproduced here and can be
switched off, one by one; with all departures off the chain is that of `power`. With them on, the
kernel does not leave p(x)^alpha invariant: its law is known exactly on toy models, and tested.
"""

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any

from powerbench.samplers.blockwise import Progress, progress, require_blockwise
from powerbench.samplers.common import Response, weight
from powerbench.types import (
    Chain,
    Choose,
    Context,
    Extend,
    FinishReason,
    Key,
    LogUniform,
    Request,
    Step,
)


@dataclass(frozen=True)
class PowerOfficial:
    """Settings as in `power`; the departures are numbered as in the README's fidelity list.

    within_response (1): positions are drawn from the current response, and proposals are decoded up
        to its length only, so a chain can shorten but never lengthen.
    cut_current_terms (1): when the proposal is shorter, the current suffix's terms are cut to its length.
    top_k (2): the library's default of 50 truncates every proposal; None for none.
    shared_positions (3): all chains and seeds draw restart positions from one stream.
    alpha_from_temperature (4): alpha is 1/proposal_temperature (on AlpacaEval: 2, not 4).
    eos_only (5): only the tokenizer's EOS stops a chain, not the model's other stop tokens.
    eos_in_prompt (6): EOS is looked for in the prompt too; if it is there, the response is empty.
    """

    max_tokens: int
    alpha: float = 4.0
    blocks: int = 16
    steps: int = 10
    proposal_temperature: float | None = None
    within_response: bool = True
    cut_current_terms: bool = True
    top_k: int | None = 50
    shared_positions: bool = True
    alpha_from_temperature: bool = True
    eos_only: bool = True
    eos_in_prompt: bool = True

    def __post_init__(self) -> None:
        require_blockwise(self)

    @property
    def tau(self) -> float:
        """The proposal's temperature."""
        return self.proposal_temperature or 1 / self.alpha

    @property
    def power(self) -> float:
        """The alpha of the acceptance ratio."""
        return 1 / self.tau if self.alpha_from_temperature else self.alpha

    def chain(self, context: Context, state: Mapping[str, Any] | None = None) -> Chain:
        """The official `mcmc_power_samp`, from its start or from a saved state."""
        first, x, steps = progress(state)
        block = self.max_tokens // self.blocks
        for k in range(first, self.blocks):
            horizon = (k + 1) * block
            x = x.then((yield self._propose(x, len(x), horizon, ("extend", k), context)))
            for n in range(self.steps):
                x, step = yield from self.step(x, horizon, k, n, context)
                steps.append(step)
            if self.eos_in_prompt and context.eos in context.prompt:
                return Response(finish_reason=FinishReason.STOP).outcome(steps)
            if x.finished:
                break
            yield Progress(k + 1, x, steps).saved()
        return x.outcome(steps)

    def step(
        self, x: Response, horizon: int, k: int, n: int, context: Context
    ) -> Generator[Request, Any, tuple[Response, Step]]:
        """Step n of block k, with the official acceptance ratio."""
        until = len(x) if self.within_response else horizon
        m = yield Choose(("restart", k, n), (1 / until,) * until, shared=self.shared_positions)
        current = sum(x.logp)
        if m >= len(x):
            return x, Step(k, m, current, None, 0, False)
        y = yield self._propose(x, m, until, ("propose", k, n), context)
        counted = m + len(y.tokens) if self.cut_current_terms else None
        threshold = (yield LogUniform(("accept", k, n))) + weight(x, self.power, m, counted)
        accepted = threshold <= weight(y, self.power)
        proposed = sum(x.logp[:m]) + sum(y.logp)
        step = Step(k, m, current, proposed, len(y.tokens), accepted)
        return (x.then(y, keep=m) if accepted else x), step

    def _propose(self, x: Response, m: int, until: int, key: Key, context: Context) -> Extend:
        return Extend(
            key=key,
            response=x.tokens,
            keep=m,
            until=until,
            stop_tokens=(context.eos, *context.task_stop_tokens)
            if self.eos_only
            else context.stop_tokens,
            tau=self.tau,
            top_k=self.top_k,
        )
