"""Algorithm 1's frame, which Metropolis-Hastings samplers share: blocks, and the steps of each.

A kernel is a subclass of `Blockwise` that defines `move`: what a step does after a restart position is drawn.
"""

import math
from abc import abstractmethod
from collections.abc import Generator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from powerbench.errors import require, require_integer
from powerbench.samplers.common import (
    Response,
    Sampler,
    require_alpha,
    require_temperature,
    require_top_k,
    weight,
    weights_only_fall,
)
from powerbench.types import (
    Chain,
    Choose,
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

Moving = Generator[Request, Any, tuple[Response, Step]]
"""A step as a generator of requests: it returns the response after it, and its record."""


class Proposal(NamedTuple):
    """A request for a new suffix, and what it must reach to be accepted."""

    restart: int
    """Position, in tokens, from which it departs."""
    threshold: float
    """It is accepted if its weight, sum of alpha * log p - log q, is not below this: nats."""
    request: Extend


class SuffixMove(NamedTuple):
    """The exact local move for p(x)^alpha on responses up to a horizon.

    Accepts x' with probability min(1, [p(x')^alpha q(x | x')] / [p(x)^alpha q(x' | x)]): the kept prefix
    cancels, and each suffix contributes its weight. The log q of x must be that of this move's proposal.
    """

    alpha: float
    tau: float
    top_k: int | None = None
    early_rejection: bool = True
    exponents: tuple[float, ...] = ()
    """Those whose log-normalisers come with what is drawn."""
    top_logprobs: int = 0
    """How many of the likeliest tokens come with it."""

    def draft(
        self, x: Response, m: int, until: int, key: Key, context: Context, sequence: int = 0
    ) -> Extend:
        """Asks for tokens after the first m, drawn as proposals are, and not to be rejected."""
        drawn = {"tau": self.tau, "top_k": self.top_k, "exponents": self.exponents}
        told = {"sequence": sequence, "top_logprobs": self.top_logprobs}
        return x.extend(m, until, key, context, **drawn, **told)

    def propose(
        self,
        x: Response,
        m: int,
        horizon: int,
        key: Key,
        context: Context,
        sequence: int = 0,
        offset: float = 0.0,
    ) -> Generator[Request, Any, Proposal]:
        """A proposal from position m < len(x).

        key: names the step within the chain. sequence: as in `Extend`.
        offset: what is added to the log of p(x)^alpha q(x' | x): where positions are not drawn uniformly, the
            log-probability of m, given x, nats.
        """
        current = weight(x, self.alpha, start=m) + offset
        threshold = (yield LogUniform(("accept", *key))) + current
        only_falls = self.early_rejection and weights_only_fall(self.alpha, self.tau)
        request = replace(
            self.draft(x, m, horizon, ("propose", *key), context, sequence),
            alpha=self.alpha,
            floor=threshold if only_falls else -math.inf,
            proposal=True,
        )
        return Proposal(m, threshold, request)

    def judge(
        self, x: Response, proposal: Proposal, y: Draw, block: int, gain: float = 0.0
    ) -> tuple[Response, Step]:
        """The response after the step, given what was drawn for its proposal.

        gain: what `offset` is in `propose`, of the proposed response.
        """
        m, current = proposal.restart, x.total
        if y.finish_reason is FinishReason.FLOOR:
            return x, Step(block, m, current, None, len(y.tokens), False)
        accepted = proposal.threshold <= weight(y, self.alpha) + gain
        proposed = sum(x.logp[:m]) + sum(y.logp)
        step = Step(block, m, current, proposed, len(y.tokens), accepted)
        return (x.then(y, keep=m) if accepted else x), step

    def step(self, x: Response, m: int, horizon: int, k: int, n: int, context: Context) -> Moving:
        """Step n of block k, from position m < len(x): a proposal, and what is judged of it."""
        proposal = yield from self.propose(x, m, horizon, (k, n), context)
        return self.judge(x, proposal, (yield proposal.request), k)


class BlockState(NamedTuple):
    """A blockwise chain between two blocks."""

    block: int
    """The next block."""
    x: Response
    steps: list[Step]

    def saved(self) -> Save:
        steps = [list(step) for step in self.steps]
        return Save({"block": self.block, **self.x.state(), "steps": steps})

    @classmethod
    def of_state(cls, state: Mapping[str, Any] | None) -> "BlockState":
        """The inverse of `saved`; the chain's start where state is None."""
        if state is None:
            return cls(0, Response(), [])
        steps = [Step(*step) for step in state["steps"]]
        return cls(state["block"], Response.of_state(state), steps)


@dataclass(frozen=True)
class Blocks(Sampler):
    """The settings of samplers that go block by block, under the paper's names."""

    alpha: float = 4.0
    blocks: int = 16
    steps: int = 10
    proposal_temperature: float | None = None
    top_k: int | None = None
    stop_at_eos: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        require_alpha(self.alpha)
        require_integer("sampler.blocks", self.blocks, 1)
        require(
            self.max_tokens % self.blocks == 0,
            f"sampler.blocks={self.blocks} must divide max_tokens={self.max_tokens} (paper: 16 blocks of "
            "192)",
        )
        require_integer("sampler.steps", self.steps, 0)
        require_temperature("proposal_temperature", self.proposal_temperature)
        require_top_k(self.top_k)

    @property
    def tau(self) -> float:
        """The proposal's temperature."""
        return self.proposal_temperature or 1 / self.alpha

    def horizon(self, k: int) -> int:
        """Where block k ends, in tokens."""
        return (k + 1) * (self.max_tokens // self.blocks)


@dataclass(frozen=True)
class Blockwise(Blocks):
    """Algorithm 1: block by block, extend to the block's horizon, then `steps` steps of a kernel."""

    def chain(self, context: Context, state: Mapping[str, Any] | None = None) -> Chain:
        """Algorithm 1, from its start or from a saved state."""
        first, x, steps = BlockState.of_state(state)
        for k in range(first, self.blocks):
            horizon, start = self.horizon(k), len(x)
            if not x.finished:
                until = self.extent(x, k)
                x = x.then((yield self.draft(x, len(x), until, ("extend", k), context)))
            for n in range(self.refinements(x, start)):
                x, step = yield from self.step(x, horizon, k, n, context)
                steps.append(step)
            if (end := self.end(x, context)) is not None:
                return end.outcome(steps)
            yield BlockState(k + 1, x, steps).saved()
        return x.outcome(steps)

    def extent(self, x: Response, k: int) -> int:
        """The length up to which block k extends x: its horizon."""
        return self.horizon(k)

    def refinements(self, x: Response, start: int) -> int:
        """How many steps a block has whose draft is x from position `start` on."""
        return self.steps

    def step(self, x: Response, horizon: int, k: int, n: int, context: Context) -> Moving:
        """Step n of block k, on responses of at most `horizon` tokens."""
        m = yield self.restart(x, horizon, ("restart", k, n))
        if m >= len(x):  # past EOS there is one continuation only: the proposal is x itself
            return x, Step(k, m, x.total, None, 0, False)
        return (yield from self.move(x, m, horizon, k, n, context))

    def restart(self, x: Response, horizon: int, key: Key) -> Choose:
        """Asks for the position to restart from: uniform on the whole horizon."""
        return Choose(key, (1 / horizon,) * horizon)

    @abstractmethod
    def move(self, x: Response, m: int, horizon: int, k: int, n: int, context: Context) -> Moving:
        """The rest of a step that restarts from position m < len(x)."""

    def draft(self, x: Response, m: int, until: int, key: Key, context: Context) -> Extend:
        """Asks for tokens after the first m, drawn as proposals are."""
        return x.extend(m, until, key, context, tau=self.tau, top_k=self.top_k)

    def end(self, x: Response, context: Context) -> Response | None:
        """What the chain returns at the end of a block; None where it goes on."""
        return x if x.finished and self.stop_at_eos else None
