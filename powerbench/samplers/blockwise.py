"""Algorithm 1's frame, which Metropolis-Hastings samplers share: blocks, steps in each, and where it stands."""

from collections.abc import Callable, Generator, Mapping
from typing import Any, NamedTuple, Protocol

from powerbench.errors import require, require_integer
from powerbench.samplers.common import (
    Response,
    require_alpha,
    require_length,
    require_temperature,
    require_top_k,
    suffix,
    weight,
    weights_only_fall,
)
from powerbench.types import (
    Chain,
    Context,
    Draw,
    Extend,
    FinishReason,
    Key,
    LogUniform,
    Request,
    Save,
    Step,
)


class Blockwise(Protocol):
    """The settings that these samplers have in common."""

    @property
    def max_tokens(self) -> int: ...
    @property
    def alpha(self) -> float: ...
    @property
    def blocks(self) -> int: ...
    @property
    def steps(self) -> int: ...
    @property
    def proposal_temperature(self) -> float | None: ...
    @property
    def top_k(self) -> int | None: ...


class Stopping(Blockwise, Protocol):
    """Those of Algorithm 1 itself."""

    @property
    def tau(self) -> float: ...
    @property
    def stop_at_eos(self) -> bool: ...


Kernel = Callable[
    [Response, int, int, int, Context], Generator[Request, Any, tuple[Response, Step]]
]
"""A step: from a response, given the horizon, the block, the step's number and the context."""


class Proposal(NamedTuple):
    """A suffix to be drawn anew."""

    restart: int
    """Position, in tokens, from which it departs."""
    threshold: float
    """It is accepted if its weight, sum of alpha * log p - log q, is not below this: nats."""
    request: Extend


class SuffixMove(NamedTuple):
    """The exact local move for p(x)^alpha on responses of at most so many tokens.

    Accepts x' with probability min(1, [p(x')^alpha q(x | x')] / [p(x)^alpha q(x' | x)]): the kept prefix
    cancels, and each suffix contributes its weight. The log q of x must be that of this move's proposal.
    """

    alpha: float
    tau: float
    top_k: int | None = None
    early_rejection: bool = True

    def propose(
        self, x: Response, m: int, horizon: int, key: Key, context: Context, sequence: int = 0
    ) -> Generator[Request, Any, Proposal]:
        """A proposal from position m < len(x); key: names the step within the chain."""
        threshold = (yield LogUniform(("accept", *key))) + weight(x, self.alpha, start=m)
        only_falls = self.early_rejection and weights_only_fall(self.alpha, self.tau)
        request = suffix(
            x,
            m,
            horizon,
            ("propose", *key),
            context,
            tau=self.tau,
            top_k=self.top_k,
            alpha=self.alpha,
            floor=threshold if only_falls else float("-inf"),
            sequence=sequence,
            proposal=True,
        )
        return Proposal(m, threshold, request)

    def judge(self, x: Response, proposal: Proposal, y: Draw, block: int) -> tuple[Response, Step]:
        """The response after the step, given what was drawn for its proposal."""
        m, current = proposal.restart, x.total
        if y.finish_reason is FinishReason.FLOOR:
            return x, Step(block, m, current, None, len(y.tokens), False)
        accepted = proposal.threshold <= weight(y, self.alpha)
        proposed = sum(x.logp[:m]) + sum(y.logp)
        step = Step(block, m, current, proposed, len(y.tokens), accepted)
        return (x.then(y, keep=m) if accepted else x), step


class Progress(NamedTuple):
    """Where a blockwise chain stands between two blocks."""

    block: int
    """The block to come."""
    x: Response
    steps: list[Step]

    def saved(self) -> Save:
        steps = [list(step) for step in self.steps]
        return Save({"block": self.block, **self.x.state(), "steps": steps})


def progress(state: Mapping[str, Any] | None) -> Progress:
    """What `Progress.saved` saved; the beginning, if nothing was."""
    if state is None:
        return Progress(0, Response(), [])
    steps = [Step(*step) for step in state["steps"]]
    return Progress(state["block"], Response.of_state(state), steps)


def algorithm1(
    sampler: Stopping, kernel: Kernel, context: Context, state: Mapping[str, Any] | None
) -> Chain:
    """Block by block: extend to the block's horizon, then `steps` steps of a kernel, from the start or from a
    saved state."""
    first, x, steps = progress(state)
    block = sampler.max_tokens // sampler.blocks
    for k in range(first, sampler.blocks):
        horizon = (k + 1) * block
        if not x.finished:
            draft = suffix(
                x,
                len(x),
                horizon,
                ("extend", k),
                context,
                tau=sampler.tau,
                top_k=sampler.top_k,
                alpha=sampler.alpha,
            )
            x = x.then((yield draft))
        for n in range(sampler.steps):
            x, step = yield from kernel(x, horizon, k, n, context)
            steps.append(step)
        if x.finished and sampler.stop_at_eos:
            break
        yield Progress(k + 1, x, steps).saved()
    return x.outcome(steps)


def require_blockwise(sampler: Blockwise) -> None:
    """Raise UserError for an impossible setting."""
    require_length(sampler.max_tokens)
    require_alpha(sampler.alpha)
    require_integer("sampler.blocks", sampler.blocks, 1)
    require(
        sampler.max_tokens % sampler.blocks == 0,
        f"sampler.blocks={sampler.blocks} must divide max_tokens={sampler.max_tokens} (paper: 16 blocks of "
        "192)",
    )
    require_integer("sampler.steps", sampler.steps, 0)
    require_temperature("proposal_temperature", sampler.proposal_temperature)
    require_top_k(sampler.top_k)
