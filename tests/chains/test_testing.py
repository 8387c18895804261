"""The laws as a library: samplers that keep them pass, and each broken one fails with its own message.

Run: pytest tests/chains/test_testing.py
"""

import subprocess
import sys
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from powerbench.chains.testing import (
    MODELS,
    check_invariant,
    check_law,
    check_sampler,
    power,
)
from powerbench.samplers.base import Base
from powerbench.samplers.blockwise import BlockState, Blockwise, Moving
from powerbench.samplers.common import Response, Sampler, weight
from powerbench.samplers.greedy import Greedy
from powerbench.samplers.low_temp import LowTemp
from powerbench.samplers.power import Power
from powerbench.types import Chain, Context, LogUniform, Outcome, Request, Save, Step

POWER = Power(12, blocks=3, steps=3)


@dataclass(frozen=True)
class LooksAround(Base):
    """Makes shorter responses while other chains are at work."""

    at_work: list[Context] = field(default_factory=list)

    def chain(self, context: Context) -> Chain:
        self.at_work.append(context)
        until = self.max_tokens + 1 - len(self.at_work)
        draw = yield Response().extend(0, max(1, until), ("response",), context)
        self.at_work.pop()
        return Response().then(draw).outcome()


@dataclass(frozen=True)
class Forgets(Power):
    """Goes on from a saved state without the steps before it."""

    def chain(self, context: Context, state: Mapping[str, Any] | None = None) -> Chain:
        now = BlockState.of_state(state)
        return super().chain(context, now._replace(steps=[]).saved().state if state else None)


@dataclass(frozen=True)
class SavesATuple(Base):
    def chain(self, context: Context) -> Chain:
        yield Save({"x": Response()})
        return (yield from super().chain(context))


@dataclass(frozen=True)
class Reuses(Power):
    """One key for all acceptances."""

    def move(self, x: Response, m: int, horizon: int, k: int, n: int, context: Context) -> Moving:
        return super().move(x, m, horizon, k, 0, context)


@dataclass(frozen=True)
class Edited(Base):
    """Changes its outcome."""

    change: Mapping[str, Any] = field(default_factory=dict)

    def chain(self, context: Context) -> Generator[Request, Any, Outcome]:
        outcome = yield from super().chain(context)
        return replace(outcome, **self.change)


@dataclass(frozen=True)
class Quiet(Greedy):
    deterministic = False


@dataclass(frozen=True)
class Loud(Base):
    deterministic = True


@dataclass(frozen=True)
class WrongWeight(Blockwise):
    """Accepts by the weights of p(x)^(alpha - 1)."""

    def move(self, x: Response, m: int, horizon: int, k: int, n: int, context: Context) -> Moving:
        y = yield self.draft(x, m, horizon, ("propose", k, n), context)
        threshold = (yield LogUniform(("accept", k, n))) + weight(x, self.alpha - 1, start=m)
        accepted = threshold <= weight(y, self.alpha - 1)
        step = Step(k, m, x.total, None, len(y.tokens), accepted)
        return (x.then(y, keep=m) if accepted else x), step


@pytest.mark.parametrize("sampler", [POWER, Base(12), Greedy(12), LowTemp(12)], ids=repr)
def test_samplers_that_keep_the_laws_pass(sampler: Sampler) -> None:
    check_sampler(sampler)


@pytest.mark.parametrize(
    ("sampler", "message"),
    [
        (LooksAround(12), "LooksAround: the outcome of chain p. depends on the batch"),
        (Forgets(12, blocks=3, steps=3), "Forgets: chain p., started again from a saved state"),
        (SavesATuple(12), "SavesATuple: a saved state must be plain data"),
        (
            Power(12, blocks=1),
            "Power: `chain` takes a saved state, but with these settings no chain saves",
        ),
        (Reuses(12, blocks=3, steps=3), r"Reuses: the key \('accept', 0, 0\) is used for two"),
        (Edited(12, None, {"logp": -1.0}), "Edited: .* has logp=-1.0, but the model gives"),
        (Edited(12, None, {"entropy": -1.0}), "has entropy=-1.0, but the model's along its"),
        (Edited(12, None, {"tokens": (1, 0, 2)}), r"goes on after a stop token: \(1, 0, 2\)"),
        (Edited(12, None, {"tokens": (1, 2)}), "ends with finish_reason="),
        (Edited(12, None, {"tokens": (1,) * 13}), "has 13 tokens, more than max_tokens=12"),
        (Edited(12, None, {"members": ((9,),)}), r"which is none of its members: \(\(9,\),\)"),
        (Quiet(12), "Quiet draws nothing: with the class attribute `deterministic = True`"),
        (Loud(12), "Loud says that it is deterministic, but asks for Extend"),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_a_broken_sampler_fails_with_what_is_wrong(sampler: Sampler, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_sampler(sampler)


def kernel(sampler: Blockwise) -> Any:
    return lambda x, context: sampler.step(x, 3, 0, 0, context)


def test_the_law_of_a_kernel_is_held_exactly() -> None:
    check_invariant(kernel(Power(3, blocks=1)), power(4.0), horizon=3, tau=1 / 4)
    with pytest.raises(
        AssertionError, match="a step does not leave the target invariant: after it"
    ):
        check_invariant(kernel(WrongWeight(3, blocks=1)), power(4.0), horizon=3, tau=1 / 4)


def test_the_law_of_a_whole_chain_is_held_exactly() -> None:
    check_law(Base(3), power(1.0))
    check_law(Base(3), power(1.0), models=MODELS[:1])
    with pytest.raises(AssertionError, match=r"Base: its law gives the response \(.*\) the prob"):
        check_law(Base(3), power(4.0))


def test_it_needs_no_test_framework() -> None:
    code = "import sys, powerbench.chains.testing; sys.exit('pytest' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
