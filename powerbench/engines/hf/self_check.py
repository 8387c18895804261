"""A check of a device at its first use: the engine's ordinary path, against one plain pass of the same weights.

Four prompts of random tokens, drawn at known uniforms: prefill in pieces, decoding at three widths, a fork, a
stop, a floor, a prefix that another chain computed. Compared are log p, entropy, and whether each token is
the inverse CDF of q at its uniform. What fails is tried again without CUDA graphs, then without attention over
different lengths.
"""

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from transformers import PreTrainedModel

from powerbench.engines.base import Engine
from powerbench.engines.hf.kv_cache import KVCache
from powerbench.engines.hf.model_runner import ModelRunner
from powerbench.engines.hf.plain_pass import long_plain_logp, plain_logp
from powerbench.engines.hf.scheduler import Scheduler
from powerbench.errors import UserError
from powerbench.types import Draw, Extend, FinishReason, Tokens

LENGTHS = (3, 60, 130, 600)
"""Tokens of the prompts: the last is computed in several steps, where so much is not computed in one."""

TOKENS, KEPT = 24, 9
"""Tokens of a response, and those that the fork keeps."""

TAU, ALPHA = 0.5, 4.0

CHAINS = 10**9
"""Chains of the check are numbered from here."""

MARGIN = 1e-3
"""A weight nearer than this to the floor may fall on either side of it."""

SLACK = 5.0
"""At most this much more than `LIMITS` is allowed, where the library's own two ways to attend differ."""


class Checked(Engine, Protocol):
    """What the check reads of the hf engine, beside its verbs."""

    lm: PreTrainedModel
    device: torch.device
    cache: KVCache
    scheduler: Scheduler
    runner: ModelRunner
    switch: int | None
    vocabulary: int
    max_tokens: int


class Limits(NamedTuple):
    """How far right results may be off, in nats; `outside` is a probability."""

    mean: float
    """Rounding and a fault differ in the mean, more than in the largest difference."""
    most: float
    outside: float
    """How far a uniform may lie outside the interval of the CDF that its token has."""


LIMITS = {
    torch.float32: Limits(1e-4, 1e-2, 1e-3),
    torch.float16: Limits(0.01, 0.3, 0.05),
    torch.bfloat16: Limits(0.03, 0.7, 0.15),
}


class DeviceFaultError(Exception):
    """The engine's results are not those of a plain pass; says in what."""


class Case(NamedTuple):
    """What a chain was asked for."""

    prompt: Tokens
    request: Extend
    uniforms: np.ndarray


def self_check(engine: Checked) -> dict[str, Any]:
    """Check the engine, and switch off what does not work; what was found, for the manifest.

    Raises UserError, naming the difference, where nothing helps.
    """
    runner, began = engine.runner, time.perf_counter()
    failures: list[str] = []
    while True:
        try:
            found = check(engine, seed=len(failures))
        except DeviceFaultError as fault:
            failures.append(str(fault))
        else:
            return {
                **found,
                "graphs": runner.graphs,
                "varlen": runner.varlen,
                "failures": failures,
                "seconds": round(time.perf_counter() - began, 2),
            }
        if runner.graphs and not runner.graphs_required:
            runner.graphs, less = False, "CUDA graphs"
        elif runner.varlen:
            runner.varlen, less = False, "attention over different lengths"
        else:
            raise UserError(
                f"engine=hf does not compute on {engine.device} what the model says: {failures[0]}; "
                f"set another engine.device, or model.dtype=float32"
            )
        runner.discard_graphs()
        print(
            f"engine=hf on {engine.device}: {failures[-1]}; trying without {less}", file=sys.stderr
        )


def check(engine: Checked, seed: int = 0) -> dict[str, Any]:
    """Compare once; raises DeviceFaultError."""
    try:
        return _check(engine, np.random.default_rng(seed))
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, UserError) as error:  # a kernel that is not there, or no progress
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise DeviceFaultError(reason) from error
    finally:
        for chain in {request.chain for request in _at_work(engine)}:
            if chain >= CHAINS:
                engine.withdraw(chain)


def _check(engine: Checked, r: np.random.Generator) -> dict[str, Any]:
    room = max(engine.cache.capacity - TOKENS, LENGTHS[0])
    ask = Extend(("check",), (), 0, TOKENS, stop_tokens=(), tau=TAU, alpha=ALPHA)
    cases = {
        CHAINS + i: Case(_random(r, engine, min(n, room)), ask, r.random(TOKENS))
        for i, n in enumerate(LENGTHS)
    }
    short, long = min(cases), max(cases)
    draws = _answers(engine, cases)
    fork = replace(ask, key=("fork",), response=draws[long].tokens, keep=KEPT)
    forked = {long: Case(cases[long].prompt, fork, r.random(TOKENS))}
    fork_draws = _answers(engine, forked)
    for chain in cases:
        engine.withdraw(chain)
    ends = _ends(cases[short], draws[short])
    end_draws = _answers(engine, ends)
    for chain in ends:
        engine.withdraw(chain)
    again = {CHAINS + 9: Case(cases[long].prompt, ask, r.random(TOKENS))}
    pairs = [
        *_pairs(cases, draws),
        *_pairs(forked, fork_draws),
        *_pairs(ends, end_draws),
        *_pairs(again, _answers(engine, again)),
    ]
    for case, draw in pairs:
        _require_right_end(case, draw)
    return _compared(engine, pairs)


def _answers(engine: Checked, cases: Mapping[int, Case]) -> dict[int, Draw]:
    for chain, case in cases.items():
        engine.submit(chain, *case)
    draws: dict[int, Draw] = {}
    steps = 50 + sum(len(case.prompt) + TOKENS for case in cases.values())
    for _ in range(steps):
        draws |= {finished.chain: finished.draw for finished in engine.step()}
        if draws.keys() >= cases.keys():
            return draws
    raise DeviceFaultError(f"no answer after {steps} steps: decoding does nothing")


def _ends(case: Case, draw: Draw) -> dict[int, Case]:
    """The case again with a token of its response as a stop token, and with a floor that it falls below."""
    weight = _weights(draw)
    lowest = np.minimum.accumulate(weight)
    falls = lowest[:-1] - lowest[1:]
    at = int(falls.argmax())
    floor = float(lowest[at] + lowest[at + 1]) / 2
    stop = case._replace(request=replace(case.request, stop_tokens=(draw.tokens[TOKENS // 3],)))
    fall = case._replace(request=replace(case.request, floor=floor))
    return {CHAINS + 7: stop, CHAINS + 8: fall}


def _require_right_end(case: Case, draw: Draw) -> None:
    """The draw ended where the host says: at its first stop token, or where its weight fell below the floor."""
    request, last = case.request, len(draw.tokens) - 1
    weight = _weights(draw)
    for i, token in enumerate(draw.tokens):
        if abs(weight[i] - request.floor) < MARGIN:
            return
        reason = (
            FinishReason.FLOOR
            if weight[i] < request.floor
            else FinishReason.STOP
            if token in request.stop_tokens
            else FinishReason.LENGTH
        )
        ended = reason is not FinishReason.LENGTH or i == request.until - request.keep - 1
        if ended != (i == last) or (ended and reason is not draw.finish_reason):
            raise DeviceFaultError(
                f"a response of {last + 1} tokens ended by {draw.finish_reason.value}, where token {i + 1} "
                f"{'ends it by ' + reason.value if ended else 'does not end it'}"
            )


def _weights(draw: Draw) -> np.ndarray:
    return np.cumsum(ALPHA * np.array(draw.logp) - np.array(draw.logq))


def _compared(engine: Checked, pairs: Sequence[tuple[Case, Draw]]) -> dict[str, Any]:
    """The differences, where they are within the limits. Raises DeviceFaultError."""
    off, outside, noise = (
        np.concatenate(parts) for parts in zip(*_differences(engine, pairs), strict=True)
    )
    found = {
        "mean": float(off.mean()),
        "most": float(off.max()),
        "outside": float(outside.max()),
        "library": float(noise.mean()),
    }
    limits = LIMITS[engine.lm.dtype]
    slack = min(max(1.0, 3 * found["library"] / limits.mean), SLACK)
    for name, limit in limits._asdict().items():
        if not found[name] < slack * limit:  # not a number, too
            raise DeviceFaultError(
                f"log p and entropy differ from a plain pass by {found['mean']:.2g} in the mean and "
                f"{found['most']:.2g} at most, the CDF by {found['outside']:.2g} "
                f"({name}: at most {slack * limit:.2g})"
            )
    return {name: float(f"{value:.3g}") for name, value in found.items()}


def _differences(
    engine: Checked, pairs: Sequence[tuple[Case, Draw]]
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """For each draw: of log p and entropy from a plain pass; of uniforms from their tokens' intervals; and of
    log p between the library's two ways to attend."""
    for (prompt, request, uniforms), draw in pairs:
        before, new = prompt + request.prefix, len(draw.tokens)
        logp, other = (
            _plain(engine, before + draw.tokens, len(prompt), way, new) for way in ("eager", "sdpa")
        )
        at = np.arange(new), np.array(draw.tokens)
        p = np.exp(logp)
        entropy = -np.where(p > 0, p * logp, 0.0).sum(1)
        q = np.exp(logp / TAU - (logp / TAU).max(1, keepdims=True))
        q /= q.sum(1, keepdims=True)
        upper, u = q.cumsum(1)[at], uniforms[request.keep : request.keep + new]
        off = np.abs(np.array([logp[at] - draw.logp, entropy - draw.entropy]))
        outside = np.maximum(np.maximum(upper - q[at] - u, u - upper), 0.0)
        yield off.ravel(), outside, np.abs(logp[at] - other[at])


def _plain(engine: Checked, tokens: Tokens, prompt: int, way: str, new: int) -> np.ndarray:
    """log p [new, V], float64, that the library's own pass gives the last tokens, with the rotary factors that
    the engine uses."""
    sequence = torch.tensor([tokens], device=next(engine.lm.parameters()).device)
    if engine.switch is not None and prompt + engine.max_tokens > engine.switch:
        logp = long_plain_logp(engine.lm, sequence, engine.switch, way)
    else:
        logp = plain_logp(engine.lm, sequence, way)
    return logp[0, -new - 1 : -1].cpu().double().numpy()


def _pairs(cases: Mapping[int, Case], draws: Mapping[int, Draw]) -> list[tuple[Case, Draw]]:
    return [(case, draws[chain]) for chain, case in cases.items()]


def _random(r: np.random.Generator, engine: Checked, length: int) -> Tokens:
    return tuple(r.integers(3, engine.vocabulary - 3, length).tolist())


def _at_work(engine: Checked) -> list[Any]:
    return [*engine.scheduler.waiting, *engine.scheduler.by_slot.values()]
