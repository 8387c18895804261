"""What the official code's samplers share: its departures from Algorithm 1, each a setting (commit 720a8e9).

With all of them off, a sampler is the exact one of its name in Algorithm 1's frame.
"""

from dataclasses import dataclass, field, replace

from powerbench.samplers.blockwise import Blockwise
from powerbench.samplers.common import Response
from powerbench.types import Choose, Context, Draw, Extend, FinishReason, Key, Step


@dataclass(frozen=True)
class Official(Blockwise):
    """Settings as in `power`; the departures are numbered as in conf/without and the README beside this file.

    within_response (1): positions are drawn from the current response, and proposals are decoded up
        to its length only, so within a block a response can shorten but never lengthen.
    cut_current_terms (1): when the proposal is shorter, the current suffix's terms are cut to its length.
    top_k (2): the library's default of 50 truncates every proposal; None for none.
    shared_positions (3): the replicates of a problem draw restart positions from one stream, as the original's
        seeds do. A draw is named by the step and the response's length, so replicates restart from the same
        positions while their lengths agree. There the stream is a process's, `random.seed(0)`, and runs on
        from problem to problem: problems share no position, which is so here too; but seeds share the first
        problem's of a shard alone, since a later one begins where the lengths of all earlier responses have
        led. That depends on the order of problems in a shard, which no draw here knows: replicates share
        positions on every problem.
    eos_only (5): only the tokenizer's EOS stops a chain, not the model's other stop tokens.
    eos_in_prompt (6): EOS is looked for in the prompt too; if it is there, the response is empty.
    extend_by_block (11): a block adds B tokens to the response as it stands, which may be short of the
        block's start, instead of extending it to the block's end: a chain can end before T without EOS.
        Nothing changes unless within_response lets a response become so short.
    """

    top_k: int | None = 50
    within_response: bool = True
    cut_current_terms: bool = True
    extend_by_block: bool = True
    shared_positions: bool = True
    eos_only: bool = True
    eos_in_prompt: bool = True
    stop_at_eos: bool = field(default=True, init=False)  # the official code knows no other way

    def extent(self, x: Response, k: int) -> int:
        return len(x) + self.horizon(0) if self.extend_by_block else super().extent(x, k)

    def restart(self, x: Response, horizon: int, key: Key) -> Choose:
        until = self.until(x, horizon)
        name = (*key, until) if self.shared_positions else key
        return Choose(name, (1 / until,) * until, shared=self.shared_positions)

    def until(self, x: Response, horizon: int) -> int:
        """The length within which positions are drawn, and up to which proposals are decoded."""
        return len(x) if self.within_response else horizon

    def draft(self, x: Response, m: int, until: int, key: Key, context: Context) -> Extend:
        asked = super().draft(x, m, until, key, context)
        stop_tokens = (context.eos, *context.task_stop_tokens)
        return replace(asked, stop_tokens=stop_tokens) if self.eos_only else asked

    def compared(self, m: int, y: Draw) -> int | None:
        """Up to where the current response's terms enter the acceptance of y, drawn from m on; None: all."""
        return m + len(y.tokens) if self.cut_current_terms else None

    def after(
        self, x: Response, m: int, y: Draw, block: int, accepted: bool
    ) -> tuple[Response, Step]:
        """The response after a step that proposed y from m on, and its record."""
        proposed = sum(x.logp[:m]) + sum(y.logp)
        step = Step(block, m, x.total, proposed, len(y.tokens), accepted)
        return (x.then(y, keep=m) if accepted else x), step

    def end(self, x: Response, context: Context) -> Response | None:
        """The official code looks for EOS after each block."""
        if self.eos_in_prompt and context.eos in context.prompt:
            return Response(finish_reason=FinishReason.STOP)
        return super().end(x, context)
