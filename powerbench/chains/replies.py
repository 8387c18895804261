"""Chains that ask for whole responses alone, answered by text: as the runner, for models behind an API."""

import time
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import NamedTuple

from powerbench.chains.chain import ChainFactory
from powerbench.chains.runner import Completed
from powerbench.engines.base import TextEngine
from powerbench.errors import require
from powerbench.rng import Stream
from powerbench.types import (
    Answer,
    Cost,
    Draw,
    Extend,
    Key,
    Outcome,
    Progress,
    Prompt,
    SampleKey,
    Save,
    Together,
)

TICK = 0.5
"""Seconds after which a caller may show progress, though nothing has been answered."""


class TextChainSpec(NamedTuple):
    """A chain to run: its identity, its prompt as text, and how it is made."""

    key: SampleKey
    prompt: Prompt
    factory: ChainFactory
    stream: Stream


class _TextChain:
    """A chain at work, the draws that it waits for, and what it has cost."""

    def __init__(self, spec: TextChainSpec) -> None:
        self.spec, self.began = spec, time.time()
        self._chain = spec.factory()
        self._waits: Extend | Together | None = None
        self._arrived: dict[Key, Draw] = {}
        self._draws: list[Draw] = []

    def advance(self, answer: Answer = None) -> Outcome | tuple[Extend, ...]:
        """The outcome, or what is to be asked next. Raises UserError for what no endpoint can answer."""
        while True:
            try:
                request = self._chain.send(answer)
            except StopIteration as end:
                outcome: Outcome = end.value
                return outcome
            if isinstance(request, Save):
                answer = None  # what has been answered is on the disk, and is found there again
                continue
            require(
                isinstance(request, Extend | Together),
                f"the sampler asks for randomness in problem {self.spec.key.problem!r}: whole responses are "
                "all that an endpoint can give",
            )
            assert isinstance(request, Extend | Together)
            self._waits = request
            asked = request.requests if isinstance(request, Together) else (request,)
            for each in asked:
                self._require_whole(each)
            return asked

    def receive(self, key: Key, draw: Draw) -> Outcome | tuple[Extend, ...]:
        """Take a draw; the outcome or what is to be asked next, nothing while others are waited for."""
        self._arrived[key] = draw
        self._draws.append(draw)
        if not isinstance(self._waits, Together):
            return self.advance(self._arrived.pop(key))
        if len(self._arrived) < len(self._waits.requests):
            return ()
        return self.advance(tuple(self._arrived.pop(each.key) for each in self._waits.requests))

    def cost(self) -> Cost:
        """Of all that was asked: tokens and dollars as billed."""
        replies = [draw.reply for draw in self._draws if draw.reply is not None]
        dollars = [reply.reported.dollars for reply in replies]
        known = [each for each in dollars if each is not None]
        finished = time.time()
        return Cost(
            decoded=sum(reply.reported.tokens for reply in replies),
            prefilled=sum(reply.prompt_tokens for reply in replies),
            seconds=round(finished - self.began, 3),
            finished=round(finished, 3),
            attended=None,
            passes=None,
            rows=None,
            dollars=sum(known) if len(known) == len(dollars) else None,
        )

    def _require_whole(self, request: Extend) -> None:
        plain = Extend(request.key, (), 0, request.until, request.stop_tokens)
        asked = (request.response, request.keep, request.top_k, request.support, request.floor)
        require(
            asked == (plain.response, plain.keep, plain.top_k, plain.support, plain.floor),
            f"the sampler asks for part of a response, or for a truncated or weighted one, in problem "
            f"{self.spec.key.problem!r}: whole responses at a temperature are all that an endpoint can give",
        )


def run_text_chains(
    starts: Iterable[TextChainSpec], engine: TextEngine, progress: Progress
) -> Iterator[Completed | None]:
    """Run chains in the order given, with up to `engine.workers` requests under way; yield each as it
    completes, and None in between, so that a caller can show progress.

    What a request raises ends all: requests under way come to their end, so that their answers are kept, and
    chains that are complete are yielded before it is raised. Closing the iterator does the same.
    """
    queue = iter(starts)
    pending: dict[Future[Draw], tuple[_TextChain, Key]] = {}
    live: set[_TextChain] = set()
    pool = ThreadPoolExecutor(engine.workers)

    def settle(chain: _TextChain, reached: Outcome | tuple[Extend, ...]) -> Completed | None:
        if isinstance(reached, Outcome):
            live.discard(chain)
            return Completed(chain.spec.key, reached, chain.cost())
        live.add(chain)
        for each in reached:
            future = pool.submit(engine.reply, chain.spec.prompt, each, chain.spec.stream)
            pending[future] = chain, each.key
        return None

    try:
        while True:
            while len(pending) < engine.workers and (start := next(queue, None)) is not None:
                chain = _TextChain(start)
                settle(chain, chain.advance())
            progress.running = len(live)
            if not pending:
                return
            done, _ = wait(pending, TICK, FIRST_COMPLETED)
            failed: BaseException | None = None
            for future in done:
                chain, key = pending.pop(future)
                failed = failed or future.exception()
                if future.exception() is not None:
                    continue
                draw = future.result()
                progress.decoded += draw.reply.reported.tokens if draw.reply else 0
                yield settle(chain, chain.receive(key, draw))
            if failed is not None:
                raise failed
            if not done:
                yield None
    finally:
        for future in pending:
            future.cancel()
        engine.close()
        pool.shutdown()
