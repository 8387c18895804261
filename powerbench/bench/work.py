"""What a chain of each sampler asks of an engine, for a response of some length: from its settings alone."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple


class Work(NamedTuple):
    """What one chain asks of an engine, for a response of some length."""

    tokens: float
    """Decoded in all."""
    depth: float
    """Decoded one after the other."""
    together: int = 1
    """Requests at once."""


def _one(sampler: Any, length: float) -> Work:
    return Work(length, length)


def _moves(sampler: Any, length: float) -> Work:
    """Algorithm 1: at each of N steps of block k, half of its k * B tokens again, from a uniform position.

    length + N * T * (T + B) / (4 * B), T the response's length (the paper's N * T / (4 * B) for each token,
    section 4.3, leaves out what is smaller by B / T).
    """
    block = sampler.max_tokens / sampler.blocks
    again = sampler.steps * length * (length + block) / (4 * block)
    return Work(length + again, length + again)


def _times(count: str, together: str = "") -> Callable[[Any, float], Work]:
    """So many independent responses, or moves, of which so many at once."""

    def work(sampler: Any, length: float) -> Work:
        one = _moves(sampler, length) if hasattr(sampler, "steps") else _one(sampler, length)
        n, at_once = getattr(sampler, count), getattr(sampler, together or count)
        return Work(n * one.tokens, one.depth * math.ceil(n / at_once), at_once)

    return work


def _lengths(sampler: Any, length: float) -> Work:
    """At each step half of every block's horizon again, and a chunk of a block for half of the pairs."""
    block = length / sampler.blocks
    again = length * (sampler.blocks + 1) / 4 + (length - block) / 2
    return Work(length + sampler.steps * again, length + sampler.steps * length, sampler.blocks)


def _scalable(sampler: Any, length: float) -> Work:
    """L candidates a block, and M rollouts of H tokens after K of them."""
    block = sampler.max_tokens / sampler.blocks
    rollouts = sampler.kept * sampler.rollouts
    each = sampler.candidates + rollouts * sampler.lookahead / block
    depth = length * (1 + sampler.lookahead / block)
    return Work(length * each, depth, max(sampler.candidates, rollouts))


def _apps(sampler: Any, length: float) -> Work:
    """N particles, and M rollouts of H tokens after each of their blocks but the last."""
    rollouts = sampler.particles * sampler.rollouts
    looks = (length - 1) // sampler.interval
    tokens = sampler.particles * length + looks * rollouts * sampler.lookahead
    return Work(tokens, length + looks * sampler.lookahead, max(sampler.particles, rollouts))


def _scalable_tokens(sampler: Any, length: float) -> Work:
    """A token that reports the likeliest, and M rollouts of H tokens after K of them."""
    rollouts = sampler.kept * sampler.rollouts
    each = 1 + rollouts * sampler.lookahead
    return Work(length * each, length * (1 + sampler.lookahead), rollouts)


WORK: Mapping[str, Callable[[Any, float], Work]] = {
    "base": _one,
    "greedy": _one,
    "low_temp": _one,
    "power": _moves,
    "power_official": _moves,
    "max_swap": _moves,
    "max_swap_official": _moves,
    "entropy_cut": _moves,
    "multiple_try": _times("tries"),
    "entropy_gated": _times("tries"),
    "temperature_mixture": _times("tries"),
    "parallel_tempering": _times("replicas"),
    "prefix_exchange": _lengths,
    "beam": _times("width"),
    "block_beam": _times("candidates"),
    "best_of_n": _times("n"),
    "self_consistency": _times("n"),
    "aps": _times("n", "together"),
    "deepconf": _times("n", "together"),
    "deepconf_online": _times("n", "together"),
    "scalable_power": _scalable,
    "scalable_power_tokens": _scalable_tokens,
    "power_smc": _times("particles"),
    "ccps": _times("particles"),
    "apps": _apps,
}
"""What a chain of each sampler asks for. entropy_cut, entropy_gated: as if restarts were uniform, and all
blocks refined; deepconf_online: as if no response were stopped."""
