"""Power sampling as the official code runs it, every departure a field (commit 720a8e9).

Where it departs from Algorithm 1 or from what a reader expects, it is reproduced here and can be
switched off, one by one; with all departures off the chain is that of `power`. With them on, the
kernel does not leave p(x)^alpha invariant: its law is known exactly on toy models, and tested.
"""

from dataclasses import dataclass, field, replace

from powerbench.samplers.blockwise import Blockwise, Moving
from powerbench.samplers.common import Response, weight
from powerbench.types import Choose, Context, Extend, FinishReason, Key, LogUniform, Step


@dataclass(frozen=True)
class PowerOfficial(Blockwise):
    """Settings as in `power`; the departures are numbered as in conf/without and the README beside this file.

    within_response (1): positions are drawn from the current response, and proposals are decoded up
        to its length only, so a chain can shorten but never lengthen.
    cut_current_terms (1): when the proposal is shorter, the current suffix's terms are cut to its length.
    top_k (2): the library's default of 50 truncates every proposal; None for none.
    shared_positions (3): all chains and seeds draw restart positions from one stream.
    alpha_from_temperature (4): alpha is 1/proposal_temperature (on AlpacaEval: 2, not 4).
    eos_only (5): only the tokenizer's EOS stops a chain, not the model's other stop tokens.
    eos_in_prompt (6): EOS is looked for in the prompt too; if it is there, the response is empty.
    """

    top_k: int | None = 50
    within_response: bool = True
    cut_current_terms: bool = True
    shared_positions: bool = True
    alpha_from_temperature: bool = True
    eos_only: bool = True
    eos_in_prompt: bool = True
    stop_at_eos: bool = field(default=True, init=False)  # the official code knows no other way

    @property
    def power(self) -> float:
        """The alpha of the acceptance ratio."""
        return 1 / self.tau if self.alpha_from_temperature else self.alpha

    def until(self, x: Response, horizon: int) -> int:
        """The length within which positions are drawn, and up to which proposals are decoded."""
        return len(x) if self.within_response else horizon

    def restart(self, x: Response, horizon: int, key: Key) -> Choose:
        until = self.until(x, horizon)
        return Choose(key, (1 / until,) * until, shared=self.shared_positions)

    def move(self, x: Response, m: int, horizon: int, k: int, n: int, context: Context) -> Moving:
        """With the official acceptance ratio."""
        until = self.until(x, horizon)
        y = yield self.draft(x, m, until, ("propose", k, n), context)
        counted = m + len(y.tokens) if self.cut_current_terms else None
        threshold = (yield LogUniform(("accept", k, n))) + weight(x, self.power, m, counted)
        accepted = threshold <= weight(y, self.power)
        proposed = sum(x.logp[:m]) + sum(y.logp)
        step = Step(k, m, x.total, proposed, len(y.tokens), accepted)
        return (x.then(y, keep=m) if accepted else x), step

    def draft(self, x: Response, m: int, until: int, key: Key, context: Context) -> Extend:
        asked = super().draft(x, m, until, key, context)
        stop_tokens = (context.eos, *context.task_stop_tokens)
        return replace(asked, stop_tokens=stop_tokens) if self.eos_only else asked

    def end(self, x: Response, context: Context) -> Response | None:
        """The official code looks for EOS after each block."""
        if self.eos_in_prompt and context.eos in context.prompt:
            return Response(finish_reason=FinishReason.STOP)
        return super().end(x, context)
