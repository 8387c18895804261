"""One running chain: its requests are answered in order, and the next ones may be started speculatively.

While a chain waits for a proposal, a shadow of it, a second generator brought to the same point, is told
that the proposal was rejected. What the shadow requests next is started at once. If the chain then makes
the same request, its answer is already running or finished; if not (the proposal was accepted), the
speculative request is withdrawn. An engine that drafts knows its tokens nevertheless: where the next proposal
departs from what both futures share, they are drawn again in few passes. The chain only ever sees answers
to its own requests, and a draw depends on its request and key alone: so a chain is the same with any degree
of speculation.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np

from powerbench.engines.base import Engine
from powerbench.errors import require
from powerbench.models.flops import contexts
from powerbench.rng import Stream
from powerbench.types import (
    Answer,
    Chain,
    Checkpoint,
    Choose,
    Draw,
    Extend,
    FinishReason,
    Key,
    LogUniform,
    Outcome,
    Save,
    Together,
    Tokens,
)

D = TypeVar("D", Draw, tuple[Draw, ...])

REJECTED = Draw((), (), (), (), FinishReason.FLOOR)
"""The shadow's answer to a proposal that is still being decoded."""


class ChainFactory(Protocol):
    """Makes the chain, from its start or from a saved state."""

    def __call__(self, state: Mapping[str, Any] | None = None, /) -> Chain: ...


@dataclass
class _Speculative:
    """A request made before its turn."""

    request: Extend
    draw: Draw | None = None


class RunningChain:
    """A chain, its requests to the engine, and their cost so far."""

    def __init__(
        self,
        number: int,
        factory: ChainFactory,
        prompt: Tokens,
        stream: Stream,
        engine: Engine,
        checkpoint: Checkpoint | None = None,
    ) -> None:
        self.number, self.factory, self.prompt = number, factory, prompt
        self.stream, self.engine = stream, engine
        self.decoded = checkpoint.decoded if checkpoint else 0
        self.prefilled = checkpoint.prefilled if checkpoint else 0
        self.speculated = checkpoint.speculated if checkpoint else 0
        self.attended = checkpoint.attended if checkpoint else 0.0
        self.passes = checkpoint.passes if checkpoint else 0
        self.rows = checkpoint.rows if checkpoint else 0
        self.speculative: dict[Key, _Speculative] = {}
        """Requests made ahead, in the order in which the chain would make them."""
        self.spans = checkpoint.spans if checkpoint else ()
        """When it was worked on before."""
        self._state = checkpoint.state if checkpoint else None
        self._chain = self._new_generator()
        self._saved: Checkpoint | None = None
        self._answers: list[Draw | tuple[Draw, ...]] = []  # received since that state
        self._waits: Extend | Together | None = None
        self._arrived: dict[Key, Draw] = {}  # of those waited for together
        self._superseded: list[Key] = []
        self._keys: set[Key] = set()  # of the draws asked for since that state
        self._shadow: Chain | None = None

    def start(self) -> Outcome | None:
        """Run up to the first request to the engine, or to the end."""
        return self._advance(None)

    @property
    def busy(self) -> int:
        """The number of requests to the engine that the chain waits for, and of speculative ones."""
        waits = len(self._waits.requests) if isinstance(self._waits, Together) else 1
        return waits + len(self.speculative)

    def waits_for(self, key: Key) -> bool:
        """Whether this is the draw that the chain itself waits for, not a speculative one."""
        return key not in self.speculative

    def receive(self, key: Key, draw: Draw) -> Outcome | None:
        """Take a finished draw; the outcome, if the chain comes to its end.

        Of several at once, those made ahead come first: the chain may need them, or drop them.
        """
        if key in self.speculative:
            self.speculative[key].draw = draw
            return None
        if isinstance(self._waits, Together):
            self._withdraw_superseded()  # those that go on from it have it by now
            self._arrived[key] = draw
            if len(self._arrived) < len(self._waits.requests):
                return None
            draws = tuple(self._arrived.pop(each.key) for each in self._waits.requests)
            return self._advance(self._take(draws))
        return self._advance(self._take(draw))

    def speculate(self) -> bool:
        """Start one more request ahead of its turn; False if none can be predicted."""
        ahead = list(self.speculative.values())
        last = ahead[-1].request if ahead else self._waits
        if not isinstance(last, Extend) or not last.proposal:
            return False
        self._shadow = self._shadow or self._replay()
        request = self._speculative_request(self._shadow, REJECTED)
        if request is None:
            return False
        self.speculative[request.key] = _Speculative(request)
        self._submit(request)
        return True

    def saved(self) -> Checkpoint | None:
        """The checkpoint that the chain has reached since the last call, if any."""
        saved, self._saved = self._saved, None
        return saved

    def withdraw(self) -> None:
        """Leave the engine: nothing of this chain stays there."""
        self._drop_speculative()
        self.engine.withdraw(self.number)

    def _advance(self, answer: Answer) -> Outcome | None:
        while True:
            try:
                request = self._chain.send(answer)
            except StopIteration as end:
                return end.value
            match request:
                case Extend():
                    self._require_new(request.key)
                    draw = self._ask(request)
                    if draw is None:
                        return None
                    answer = self._take(draw)
                case Together():
                    self._ask_together(request)
                    return None
                case Save():
                    self._state, self._answers, answer = request.state, [], None
                    self._keys = set(self._superseded)  # the engine has yet to withdraw these
                    self._saved = Checkpoint(
                        request.state,
                        self.decoded,
                        self.prefilled,
                        self.speculated,
                        self.spans,
                        self.attended,
                        self.passes,
                        self.rows,
                    )
                case _:
                    self._require_new(request.key)
                    answer = self._random(request)

    def _require_new(self, key: Key) -> None:
        """Raise UserError where a key names two draws: an engine answers one of them only, and the chain would
        wait for ever."""
        require(
            key not in self._keys,
            f"the sampler uses the key {key} for two draws of one chain, of problem {self.stream.problem!r}: "
            "name the block, the step and what is drawn",
        )
        self._keys.add(key)

    def _new_generator(self) -> Chain:
        return self.factory() if self._state is None else self.factory(self._state)

    def _ask(self, request: Extend) -> Draw | None:
        """The answer, if it was speculated and is finished; None while the engine works on it."""
        self._waits = request
        first = next(iter(self.speculative.values()), None)
        if first is not None and first.request == request:
            draw = self.speculative.pop(request.key).draw
        else:
            draw = None
            self._drop_speculative()
            self._submit(request)
        self._withdraw_superseded()
        return draw

    def _ask_together(self, request: Together) -> None:
        require(len(request.requests) > 0, "the sampler asks for no draws together: at least one")
        for each in request.requests:
            self._require_new(each.key)
        self._waits = request
        self._drop_speculative()
        for each in request.requests:
            self._submit(each)

    def _withdraw_superseded(self) -> None:
        """To be called once the engine has the request that continues from them."""
        for key in self._superseded:
            self.engine.withdraw(self.number, key)
        self._superseded = []

    def _take(self, answer: D) -> D:
        """Count what an answer cost; the draws of a `Together` are one answer."""
        draws = answer if isinstance(answer, tuple) else (answer,)
        self.decoded += sum(len(draw.tokens) for draw in draws)
        self.prefilled += sum(draw.prefilled for draw in draws)
        self.speculated += sum(draw.preempted for draw in draws)
        self.passes += sum(draw.passes for draw in draws)
        self.rows += sum(draw.rows for draw in draws)
        self._answers.append(answer)
        assert self._waits is not None
        of = self._waits.requests if isinstance(self._waits, Together) else (self._waits,)
        self._superseded = [each.key for each in of]
        for each, draw in zip(of, draws, strict=True):
            known = len(self.prompt) + each.keep
            drafted = draw.rows / len(draw.tokens) if draw.tokens else 1.0
            self.attended += drafted * contexts(known, len(draw.tokens))
            self.attended += contexts(known - draw.prefilled, draw.prefilled)
        return answer

    def _submit(self, request: Extend) -> None:
        uniforms = self.stream.uniforms(request.key, request.until)
        self.engine.submit(self.number, self.prompt, request, uniforms)

    def _drop_speculative(self) -> None:
        for key, each in self.speculative.items():
            self.speculated += len(each.draw.tokens) + each.draw.preempted if each.draw else 0
            self.speculated += self.engine.withdraw(self.number, key)
        self.speculative.clear()
        self._shadow = None

    def _replay(self) -> Chain:
        """A second generator, at the request that this chain waits for."""
        shadow = self._new_generator()
        request = self._next_engine_request(shadow, None)
        for answer in self._answers:
            request = self._next_engine_request(shadow, answer)
        assert request == self._waits
        return shadow

    def _speculative_request(self, shadow: Chain, answer: Answer) -> Extend | None:
        """What the shadow asks the engine for next; None at its end, or where it asks for several at once or by
        a key that is in use, which ends it."""
        request = self._next_engine_request(shadow, answer)
        if isinstance(request, Extend) and self._in_use(request.key):
            request = None
        if not isinstance(request, Extend):
            shadow.close()
            return None
        return request

    def _in_use(self, key: Key) -> bool:
        return key in self._keys or key in self.speculative

    def _next_engine_request(self, shadow: Chain, answer: Answer) -> Extend | Together | None:
        """The next request of the shadow that is the engine's; None at its end."""
        while True:
            try:
                request = shadow.send(answer)
            except StopIteration:
                return None
            match request:
                case Extend() | Together():
                    return request
                case Save():
                    answer = None
                case _:
                    answer = self._random(request)

    def _random(self, request: LogUniform | Choose) -> float | int:
        if isinstance(request, LogUniform):
            return float(np.log1p(-self.stream.uniforms(request.key, 1)[0]))
        source = self.stream.shared() if request.shared else self.stream
        return _choose(request, float(source.uniforms(request.key, 1)[0]))


def _choose(request: Choose, uniform: float) -> int:
    cdf = np.cumsum(request.probabilities)
    index = int(np.searchsorted(cdf, uniform * cdf[-1], side="right"))
    return min(index, len(cdf) - 1)
