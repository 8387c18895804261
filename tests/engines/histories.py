"""Random histories of an engine's cache, each log p checked against a plain forward pass."""

import random

import numpy as np
from tiny import plain_logp

from powerbench.engines.hf import HFEngine
from powerbench.types import Extend, FinishReason, Key, Tokens


def close(
    name: str,
    prompt: Tokens,
    kept: Tokens,
    tokens: Tokens,
    logp: tuple[float, ...],
    off: float = 1e-4,
) -> bool:
    first = len(prompt) + len(kept)
    rows = plain_logp(name, prompt + kept + tokens)[first - 1 : -1]
    expected = rows[range(len(tokens)), tokens]
    return bool(np.abs(expected - logp).max() < off)


class Histories:
    """Chains that extend, fork, take or leave what was drawn, run ahead, jump, end and make room."""

    def __init__(self, name: str, engine: HFEngine, seed: int, off: float = 1e-4) -> None:
        self.name, self.engine, self.choose = name, engine, random.Random(seed)
        self.off, self.checks = off, True
        some = self.choose.randrange
        self.prompts = {c: tuple(some(300) for _ in range(1 + some(12))) for c in range(12)}
        self.prompts[3] = self.prompts[2]  # replicates share a prompt
        self.current: dict[int, Tokens] = {}
        self.pending: dict[tuple[int, Key], Extend] = {}
        self.checked = self.withdrawn = 0

    def turn(self, number: int) -> None:
        choose, width = self.choose, self.engine.max_num_seqs
        while len(self.current) < width:
            chain = choose.choice([c for c in self.prompts if c not in self.current])
            self.current[chain] = ()
        for chain, x in self.current.items():
            busy = [key for c, key in self.pending if c == chain]
            if not busy or (len(self.pending) < width and choose.random() < 0.3):
                keep = choose.randint(0, min(len(x), 23))
                request = Extend(
                    key=(number, len(busy)),
                    response=x,
                    keep=keep,
                    until=choose.randint(keep + 1, 24),
                    stop_tokens=(7,),
                    tau=0.5,
                    alpha=2.0,
                    floor=choose.choice([-np.inf, -1.0]),
                )
                self.pending[chain, request.key] = request
                u = np.random.default_rng(number).random(24)
                self.engine.submit(chain, self.prompts[chain], request, u)
        for chain, key, drawn in self.engine.step():
            request = self.pending.pop((chain, key), None)
            if request is None:  # withdrawn a moment ago
                continue
            prompt = self.prompts[chain]
            assert not self.checks or close(
                self.name, prompt, request.prefix, drawn.tokens, drawn.logp, self.off
            )
            self.checked += 1
            fate = choose.random()
            if drawn.finish_reason is not FinishReason.FLOOR and fate < 0.4:
                self.move(chain, request.prefix + drawn.tokens)
            elif fate < 0.5:  # a response that the engine has never seen
                self.move(chain, tuple(choose.randrange(300) for _ in range(choose.randint(0, 23))))
            if fate > 0.3:
                self.engine.withdraw(chain, key)
            if fate > 0.97:
                self.move(chain, ())
                self.engine.withdraw(chain)
                del self.current[chain]

    def move(self, chain: int, x: Tokens) -> None:
        """What was started from another response is withdrawn."""
        self.current[chain] = x
        for other, key in [name for name in self.pending if name[0] == chain]:
            self.engine.withdraw(other, key)
            del self.pending[other, key]
            self.withdrawn += 1

    def play(self, count: int) -> None:
        """Until so many draws are checked."""
        number = 0
        while self.checked < count:
            self.turn(number := number + 1)
