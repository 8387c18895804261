"""The engine protocol: three verbs, over a model that gives text its tokens."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from powerbench.rng import Stream
from powerbench.types import Draw, Extend, Key, Prompt, Tokens

EFFICIENT_NUM_SEQS = {"cpu": 8, "mps": 16, "cuda": 64}
"""Batch sizes below which decoding is memory-bound: a step mostly waits for the weights to be read."""


class Finished(NamedTuple):
    """A request that an engine has answered."""

    chain: int
    key: Key
    draw: Draw


class Engine(Protocol):
    """Runs up to `max_num_seqs` requests at once. A request is named by its chain and its key."""

    max_num_seqs: int
    efficient_num_seqs: int
    """Up to this number of requests at once, a step takes hardly longer than for one."""

    def submit(self, chain: int, prompt: Tokens, request: Extend, uniforms: np.ndarray) -> None:
        """Queue a request. The token at position i of the response is the inverse CDF of q, tokens
        in the order of their ids, at uniforms[i] (float64 [request.until])."""
        ...

    def step(self) -> list[Finished]:
        """Go on with the requests at work, prompts first; return the draws that are complete."""
        ...

    def withdraw(self, chain: int, key: Key | None = None) -> int:
        """Forget a request, finished or not; without a key, the chain and whatever is cached for it.

        What a finished request decoded stays cached until it is withdrawn, for its chain may go on from
        it. Returns the tokens decoded for requests that were not finished.
        """
        ...


@runtime_checkable
class SelfChecking(Protocol):
    """An engine that compares what a device computes with what the model says."""

    device_check: Mapping[str, Any] | None
    """What was found, for the manifest; None where nothing had to be checked."""


@runtime_checkable
class TextEngine(Protocol):
    """What stands for an engine where a model gives whole responses as text, and nothing of its own: an API."""

    workers: int
    """How many calls of `reply`, each in a thread, may run at once."""

    def reply(self, prompt: Prompt, request: Extend, stream: Stream) -> Draw:
        """The draw for a request for a whole response, with a `reply` instead of tokens.

        stream: names it together with the request's key. May be called from several threads. Raises UserError.
        """
        ...

    def progress(self) -> str:
        """What has been asked and spent, in a few words."""
        ...

    def close(self) -> None:
        """End what waits, let what is under way come to its end, disconnect."""
        ...
