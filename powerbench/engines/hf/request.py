"""A request as the hf engine keeps it, from its submission until it is withdrawn; and a step's, together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import cached_property
from typing import NamedTuple

import numpy as np

from powerbench.engines.drafter import Writing
from powerbench.types import Extend, Key, Tokens


class Status(Enum):
    """How far a request is."""

    WAITING = auto()
    """It has no slot yet."""
    PREFILLING = auto()
    """Its known tokens are being computed."""
    DECODING = auto()
    FINISHED = auto()
    """Answered, not yet withdrawn: its slot keeps what it decoded, but may be given away."""


@dataclass(eq=False)
class EngineRequest:
    """An Extend of one chain, and what the engine makes of it."""

    chain: int
    prompt: Tokens
    extend: Extend
    uniforms: np.ndarray
    """float64 [extend.until]"""
    long: bool
    """Whether the chain uses longrope's long factors: decided by its own longest length alone."""
    top_k: int
    """At most the vocabulary; 0 for none."""
    top_logprobs: int
    """At most the vocabulary."""
    status: Status = Status.WAITING
    slot: int = field(default=-1, init=False)
    """Where it runs, or ran last; -1 while it waits."""
    number: int = field(default=-1, init=False)
    """Of the engine's requests, the how manieth: lower ones are older."""
    prefilled: int = field(default=0, init=False)
    """Known tokens that had to be computed, for no row of the cache held them."""
    decoded: int = field(default=0, init=False)
    """Tokens decoded since it got its slot, when the host last knew it."""
    writing: Writing | None = field(default=None, init=False)
    """What is drafted for it, once it has a slot; None where nothing is."""
    reserved: int = field(default=0, init=False)
    """Up to which position its slot may be written."""
    preempted: int = field(default=0, init=False)
    """Tokens that were decoded for it and thrown away, since memory ran out."""

    @property
    def key(self) -> Key:
        return self.extend.key

    @cached_property
    def known(self) -> Tokens:
        """Prompt and reused response: the last of these tokens is the first to be fed for decoding."""
        return self.prompt + self.extend.prefix

    @property
    def left(self) -> int:
        """Tokens that it may still draw, by what the host knows."""
        return self.extend.until - self.extend.keep - self.decoded

    @property
    def running(self) -> bool:
        """Whether its slot is being written."""
        return self.status in (Status.PREFILLING, Status.DECODING)

    def is_named(self, chain: int, key: Key | None) -> bool:
        """Whether this is the chain's request of that key, or, without a key, any of the chain's."""
        return self.chain == chain and key in (None, self.key)


class DecodeSettings(NamedTuple):
    """What is known of the requests of a step without asking the device."""

    largest_k: int
    greedy: bool
    top: int
    """The largest number of most likely tokens that any of them asks for."""
    supports: Mapping[int, Tokens | None]
    """By slot."""
    exponents: int = 0
    """The largest number of exponents whose log-normalisers any of them asks for."""

    @classmethod
    def of(cls, requests: Sequence[EngineRequest]) -> "DecodeSettings":
        return cls(
            largest_k=max(request.top_k for request in requests),
            greedy=any(request.extend.tau == 0 for request in requests),
            top=max(request.top_logprobs for request in requests),
            supports={request.slot: request.extend.support for request in requests},
            exponents=max(len(request.extend.exponents) for request in requests),
        )
