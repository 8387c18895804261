"""The official code's samplers, against an enumeration of the original's rule that is written for these tests.

Run: pytest tests/samplers/test_official.py
"""

import math
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from toy_chains import ENDLESS, chain_law

from powerbench.chains.law import context_of, held, law, total_variation
from powerbench.chains.runner import ChainSpec, Completed, run_chains
from powerbench.config import compose
from powerbench.engines.toy import ToyEngine
from powerbench.models import TabularModel
from powerbench.rng import Stream
from powerbench.samplers.common import Response
from powerbench.samplers.max_swap import MaxSwap
from powerbench.samplers.max_swap_official import MaxSwapOfficial
from powerbench.samplers.official import Official
from powerbench.samplers.power import Power
from powerbench.samplers.power_official import PowerOfficial
from powerbench.types import Choose, Context, Progress, Request, SampleKey, Save, Step, Tokens

EOS = 0
ALPHA = 2.0
T, BLOCKS, STEPS = 4, 2, 2
SAMPLERS = (PowerOfficial, MaxSwapOfficial)
CLEAN: Mapping[str, Any] = {
    "within_response": False,
    "cut_current_terms": False,
    "extend_by_block": False,
    "top_k": None,
    "shared_positions": False,
    "eos_only": False,
    "eos_in_prompt": False,
}
"""The settings of both samplers without a departure."""

Law = dict[Tokens, float]


def branching(x: Tokens) -> list[float]:
    """Few continuations, so that whole chains can be enumerated; EOS can come at the first three places."""
    if len(x) == 0:
        return [0.35, 0.4, 0.25, 0.0]
    if len(x) == 1:
        return [0.0, 0.3, 0.7, 0.0] if x[0] == 1 else [0.5, 0.4, 0.0, 0.1]
    return [0.45, 0.0, 0.0, 0.55] if len(x) == 2 else [0.0, 0.0, 0.0, 1.0]


LETTERS = TabularModel(vocabulary=5)
FEW = TabularModel(vocabulary=4, table=branching)
MANY = tuple(TabularModel(vocabulary=4, seed=seed) for seed in (0, 2))


# -- the original ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Original:
    """The official rule as a law over tokens alone: all else that it keeps follows from them.

    A block generates B more tokens, wherever the response stands. A step draws a position of the response,
    generates from there up to the response's length, and compares the new suffix with as many tokens of the old
    one. Where EOS is there after a block, the response is what comes before it, and EOS.
    """

    model: TabularModel
    likeliest: int
    """How many tokens a proposal keeps."""
    climbs: bool
    """Whether it is max swap."""

    def q(self, x: Tokens) -> np.ndarray:
        sharp = self.model.p(x) ** ALPHA
        dropped = np.argsort(-sharp, kind="stable")[self.likeliest :]
        sharp[dropped] = 0
        return sharp / sharp.sum()

    def generated(self, x: Tokens, until: int) -> Iterator[tuple[Tokens, float]]:
        if len(x) == until or x[-1:] == (EOS,):
            yield x, 1.0
            return
        for token, chance in enumerate(self.q(x)):
            if chance > 0:
                for y, later in self.generated((*x, token), until):
                    yield y, chance * later

    def acceptance(self, x: Tokens, y: Tokens, start: int) -> float:
        """The chance that y replaces x: of each, the tokens from `start` to the end of y count."""
        target, proposal = 0.0, 0.0
        for z, sign in ((y, 1), (x, -1)):
            for i in range(start, len(y)):
                target += sign * ALPHA * math.log(self.model.p(z[:i])[z[i]])
                proposal += sign * math.log(self.q(z[:i])[z[i]])
        if self.climbs:
            return float(target > 1e-12)
        return min(1.0, math.exp(target - proposal))

    def stepped(self, before: Law) -> Law:
        after: Law = {}
        for x, mass in before.items():
            for start in range(len(x)):
                for y, chance in self.generated(x[:start], len(x)):
                    moved = mass / len(x) * chance
                    accepted = moved * self.acceptance(x, y, start)
                    after[y] = after.get(y, 0.0) + accepted
                    after[x] = after.get(x, 0.0) + moved - accepted
        return after

    def law(self, steps: tuple[int, ...] = (STEPS,) * BLOCKS) -> Law:
        """steps: of each block."""
        now, returned = {(): 1.0}, Law()
        for count in steps:
            longer: Law = {}
            for x, mass in now.items():
                for y, chance in self.generated(x, len(x) + T // BLOCKS):
                    longer[y] = longer.get(y, 0.0) + mass * chance
            for _ in range(count):
                longer = self.stepped(longer)
            now = {x: mass for x, mass in longer.items() if EOS not in x}
            for x in longer.keys() - now.keys():
                returned[x] = returned.get(x, 0.0) + longer[x]
        for x, mass in now.items():
            returned[x] = returned.get(x, 0.0) + mass
        return returned


def original(sampler: Official, model: TabularModel) -> Original:
    likeliest = sampler.top_k or len(model.p(()))
    return Original(model, likeliest, climbs=isinstance(sampler, MaxSwapOfficial))


# -- the shipped code -----------------------------------------------------------------------------


def stepwise_law(sampler: Official, model: TabularModel) -> Law:
    """The law of the shipped chain, its pieces enumerated one by one: whole chains have too many paths.

    Extensions are the chain's own, without a step, from one saved state to the next; steps are `step`'s.
    """
    context, block = context_of(model), T // BLOCKS
    extending = replace(sampler, steps=0)
    now: dict[Response, float] = {Response(): 1.0}
    returned: Law = {}
    for k in range(BLOCKS):
        extend = partial(extended, extending, k, context)
        longer = composed(now, extend, model)
        for n in range(sampler.steps):
            longer = composed(longer, partial(stepped, sampler, block * (k + 1), k, n), model)
        for x, mass in longer.items():
            if (end := sampler.end(x, context)) is not None or k == BLOCKS - 1:
                tokens = x.tokens if end is None else end.tokens
                returned[tokens] = returned.get(tokens, 0.0) + mass
        now = {x: mass for x, mass in longer.items() if sampler.end(x, context) is None}
    return returned


def composed(
    now: Mapping[Response, float],
    program: Callable[[Response], Generator[Request, Any, Response]],
    model: TabularModel,
) -> dict[Response, float]:
    after: dict[Response, float] = {}
    for x, mass in now.items():
        for y, chance in law(partial(program, x), model).items():
            after[y] = after.get(y, 0.0) + mass * chance
    return after


def extended(
    sampler: Official, k: int, context: Context, x: Response
) -> Generator[Request, Any, Response]:
    """What the chain's block k makes of x, before its steps: its first draw."""
    chain = sampler.chain(context, {"block": k, "steps": [], **x.state()})
    draw = yield next(chain)
    return x.then(draw)


def stepped(
    sampler: Official, horizon: int, k: int, n: int, x: Response
) -> Generator[Request, Any, Response]:
    y, _ = yield from sampler.step(x, horizon, k, n, Context((), EOS, (EOS,)))
    return y


def law_of_blocks(sampler: Official, model: TabularModel) -> tuple[Law, dict[str, Any]]:
    """What the shipped chain returns after its first block, and the states that it saves there, by tokens."""
    states: dict[str, Any] = {}

    def first_block() -> Generator[Request, Any, tuple[Tokens, bool]]:
        chain, answer = sampler.chain(context_of(model)), None
        while True:
            try:
                request = chain.send(answer)
            except StopIteration as end:
                return end.value.tokens, True
            if isinstance(request, Save):
                tokens = tuple(request.state["tokens"])
                states[str(tokens)] = request.state
                return tokens, False
            answer = yield request

    found = law(first_block, model)
    done = {tokens: mass for (tokens, ended), mass in found.items() if ended}
    open_ = {tokens: mass for (tokens, ended), mass in found.items() if not ended}
    return done, {"mass": open_, "states": states}


# -- laws -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("top_k", [50, 2])
@pytest.mark.parametrize(
    "model",
    [MANY[0], *(pytest.param(model, marks=pytest.mark.faults) for model in MANY[1:])],
    ids=lambda m: f"model{m.seed}",
)
def test_the_law_is_the_originals(
    sampler: Callable[..., Official], top_k: int, model: TabularModel
) -> None:
    ours = sampler(T, ALPHA, blocks=BLOCKS, steps=STEPS, top_k=top_k)
    expected = original(ours, model).law()
    assert math.fsum(expected.values()) == pytest.approx(1, abs=1e-12)
    assert total_variation(stepwise_law(ours, model), expected) < 1e-12


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_whole_chains_have_the_originals_law(sampler: Callable[..., Official]) -> None:
    """Two steps in the first block and one in the second, of few enough paths to enumerate whole chains."""
    ours = sampler(T, ALPHA, blocks=BLOCKS, steps=STEPS)
    found, rest = law_of_blocks(ours, FEW)
    for tokens, mass in rest["mass"].items():
        state = rest["states"][str(tokens)]

        def second_block(state: Any = state) -> Generator[Request, Any, Tokens]:
            outcome = yield from replace(ours, steps=1).chain(context_of(FEW), state)
            return outcome.tokens

        for y, chance in law(second_block, FEW).items():
            found[y] = found.get(y, 0.0) + mass * chance
    expected = original(ours, FEW).law(steps=(2, 1))
    assert total_variation(found, expected) < 1e-12


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize(("extend_by_block", "length"), [(True, 3), (False, 4)])
def test_a_block_starts_where_the_response_stands(
    sampler: Callable[..., Official], extend_by_block: bool, length: int
) -> None:
    """After a first block that ended with one token: the chain ends short of T = 4, and without EOS."""
    ours = sampler(T, ALPHA, blocks=BLOCKS, steps=0, extend_by_block=extend_by_block)
    state = {"block": 1, "steps": [], **held(MANY[0], (1,), 1 / ALPHA).state()}

    def program() -> Generator[Request, Any, Tokens]:
        outcome = yield from ours.chain(ENDLESS, state)
        return outcome.tokens

    assert {len(tokens) for tokens in law(program, MANY[0])} == {length}


def test_the_two_rules_of_extension_differ_by_a_known_amount() -> None:
    to_the_horizon = PowerOfficial(T, ALPHA, blocks=BLOCKS, steps=STEPS, extend_by_block=False)
    theirs = original(to_the_horizon, MANY[1]).law()
    distance = total_variation(stepwise_law(to_the_horizon, MANY[1]), theirs)
    assert distance == pytest.approx(0.1271, abs=1e-4)


@pytest.mark.parametrize(
    ("official", "exact"),
    [
        (PowerOfficial(3, ALPHA, blocks=3, steps=1, **CLEAN), Power(3, ALPHA, blocks=3, steps=1)),
        (
            MaxSwapOfficial(3, ALPHA, blocks=3, steps=1, **CLEAN),
            MaxSwap(3, ALPHA, blocks=3, steps=1),
        ),
    ],
    ids=["power", "max_swap"],
)
def test_without_departures_it_is_the_exact_sampler(
    official: Official, exact: Power | MaxSwap
) -> None:
    """Adding whole blocks changes nothing where none ends short: departure 11 needs not be left out too."""
    model = TabularModel(seed=1)
    whole_blocks = replace(official, extend_by_block=True)
    assert total_variation(chain_law(whole_blocks, model), chain_law(exact, model)) < 1e-12


@pytest.mark.parametrize(("cut", "ends"), [(True, 0.0), (False, 0.5 * 0.35)])
def test_a_likelier_response_that_ends_early_is_refused_where_terms_are_cut(
    cut: bool, ends: float
) -> None:
    """p(EOS) = .35 is more than p(1, 2) = .4 * .7, and less than p(1): position 0 is drawn every other time."""
    ours = MaxSwapOfficial(
        T, blocks=BLOCKS, steps=1, proposal_temperature=1.0, cut_current_terms=cut
    )
    after = law(partial(stepped, ours, 2, 0, 0, held(FEW, (1, 2), 1.0)), FEW)
    assert sum(m for y, m in after.items() if y.tokens == (EOS,)) == pytest.approx(ends, abs=1e-12)


# -- positions ------------------------------------------------------------------------------------


def restarts(sampler: Official, context: Context) -> dict[SampleKey, list[Step]]:
    """The steps of four problems' chains, three replicates each."""
    specs = [
        ChainSpec(SampleKey(p, r), (), partial(sampler.chain, context), Stream(0, "t", p, r))
        for p in "abcd"
        for r in range(3)
    ]
    ran = run_chains(specs, ToyEngine(LETTERS, max_num_seqs=5), Progress())
    return {e.key: list(e.outcome.steps) for e in ran if isinstance(e, Completed)}


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_replicates_share_positions_and_problems_share_none(
    sampler: Callable[..., Official],
) -> None:
    """Where nothing ends, all lengths agree."""
    found = restarts(sampler(24, blocks=2, steps=8), ENDLESS)
    positions = {key: [step.restart for step in steps] for key, steps in found.items()}
    by_problem = {p: {tuple(positions[SampleKey(p, r)]) for r in range(3)} for p in "abcd"}
    assert all(len(shared) == 1 for shared in by_problem.values())
    assert len(set.union(*by_problem.values())) == 4
    own = restarts(sampler(24, blocks=2, steps=8, shared_positions=False), ENDLESS)
    assert len({tuple(step.restart for step in steps) for steps in own.values()}) == 12


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_replicates_share_a_position_while_their_lengths_agree(
    sampler: Callable[..., Official],
) -> None:
    ours, key = sampler(24, blocks=2, steps=8), ("restart", 0, 3)

    def asked(x: Tokens, official: Official = ours) -> Choose:
        return official.restart(held(LETTERS, x, 0.25), 12, key)

    assert asked((1, 2, 3)) == asked((4, 4, 1))
    assert asked((1, 2, 3)).key != asked((1, 2)).key
    assert asked((1, 2, 3)).shared
    own = replace(ours, shared_positions=False)
    assert (asked((1, 2, 3), own).key, asked((1, 2), own).shared) == (key, False)


def test_other_seeds_of_a_run_draw_other_positions() -> None:
    a, b = (Stream(seed, "t", "p", 0).shared().uniforms(("restart",), 3) for seed in (0, 1))
    assert not set(a) & set(b)


# -- configuration --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["power_official", "max_swap_official"])
def test_every_departure_is_on_and_each_can_be_left_out(name: str) -> None:
    sampler = compose([f"sampler={name}"]).build("sampler")
    settings = {key: getattr(sampler, key) for key in CLEAN}
    assert settings == {key: 50 if key == "top_k" else True for key in CLEAN}
    for without in ("within_response", "extend_by_block", "top_k", "shared_positions", "eos_only"):
        left = compose([f"sampler={name}", f"without={without}"]).build("sampler")
        changed = {key for key in CLEAN if getattr(left, key) != settings[key]}
        assert without in changed
        assert all(getattr(left, key) == CLEAN[key] for key in changed)
