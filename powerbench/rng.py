"""Random numbers as functions of identity: who draws decides the number, never when or beside whom.

A stream is named by (seed, task, problem, replicate); within it, a key names the draw, and a draw
that needs several numbers indexes them by position. Nothing is consumed, so a sample is the same in
any batch, order, shard or resumed run.
"""

import hashlib
import json
from dataclasses import dataclass

import numpy as np

from powerbench.types import Key

NO_REPLICATE = -1
"""In the place of a replicate's number: what all of them share."""


@dataclass(frozen=True)
class Stream:
    """The randomness of one chain."""

    seed: int
    task: str
    problem: str
    replicate: int

    def uniforms(self, key: Key, count: int) -> np.ndarray:
        """float64 [count], uniform on [0, 1): the same for the same stream and key, any count."""
        name = json.dumps([self.seed, self.task, self.problem, self.replicate, *key])
        digest = hashlib.blake2b(name.encode(), digest_size=16).digest()
        bits = np.random.Philox(key=np.frombuffer(digest, dtype=np.uint64))
        return np.random.Generator(bits).random(count)

    def shared(self) -> "Stream":
        """The stream that the replicates of this problem have in common, which is no chain's own."""
        return Stream(self.seed, self.task, self.problem, NO_REPLICATE)
