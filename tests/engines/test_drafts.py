"""Drafts change no draw: not right ones, not wrong ones, of any length, wherever a response ends.

Run: pytest tests/engines/test_drafts.py
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from histories import Histories
from tiny import TinyModel, run

from powerbench.chains.runner import ChainSpec, Completed, run_chains
from powerbench.config import compose
from powerbench.engines.base import Engine
from powerbench.engines.drafter import Drafter, Guess, PassTimes, Writing, best_lengths
from powerbench.engines.hf import HFEngine, pass_times
from powerbench.engines.lookup import GENERATION, ORDERS, Kind, PromptIndex, Seen, chance_of_same
from powerbench.engines.toy import ToyEngine
from powerbench.models import TabularModel
from powerbench.rng import Stream
from powerbench.samplers.beam import Beam
from powerbench.samplers.common import Sampler
from powerbench.samplers.power import Power
from powerbench.types import (
    Context,
    Cost,
    Draw,
    Extend,
    FinishReason,
    Outcome,
    Progress,
    SampleKey,
    Tokens,
)

PROMPT = (3, 1, 4, 1, 5)
UNTIL = 24
ASK = Extend(("draw",), response=(), keep=0, until=UNTIL, stop_tokens=(), tau=0.7)
KIND = Kind(0, 0)
MOST_CONTEXTS = 2 * GENERATION * len(ORDERS)

SUBJECTS = [("toy", "cpu")]
SUBJECTS += [(name, "cpu") for name in ("llama", "qwen2", "phi3-window", "phi3-longrope")]
SUBJECTS += [(name, kind) for kind in ("as_cuda", "cuda") for name in ("llama", "phi3-window")]


class Fixed(Drafter):
    """Drafts that somebody else wrote: for each request, what it is to go on with from each position."""

    def __init__(self, texts: Callable[[Writing], Sequence[int]], widths: Sequence[int]) -> None:
        super().__init__(8, None, widths)
        self.texts = texts

    def _guess(self, writing: Writing, least: float) -> tuple[list[Guess], list[float]]:
        room = min(self.most, writing.request.until - 1 - writing.position)
        tokens = self.texts(writing)[:room]
        return [Guess(token, 1.0, KIND) for token in tokens], [1.0] * len(tokens)


@pytest.fixture(
    params=[
        pytest.param(each, id="-".join(each), marks=[pytest.mark.cuda] * (each[1] == "cuda"))
        for each in SUBJECTS
    ]
)
def make(
    request: pytest.FixtureRequest, prepare_cuda: Callable[[str], None]
) -> Callable[..., Engine]:
    """An engine of this width and draft setting."""
    name, kind = request.param
    if kind != "cpu":
        prepare_cuda(kind)
    device = "cpu" if kind == "cpu" else "cuda"

    def engine(width: int, draft: int | str, **options: bool) -> Engine:
        if name == "toy":
            return ToyEngine(TabularModel(vocabulary=12), max_num_seqs=width, draft=draft)
        model = TinyModel(name)
        return HFEngine(model, 40, 40, width, 16, device=device, draft=draft, **options)

    return engine


def uniforms(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random(UNTIL)


def engine_position(engine: Engine) -> int:
    """How long the one response at work is."""
    if isinstance(engine, ToyEngine):
        return max((6 + len(each.tokens) for each in engine._running.values()), default=UNTIL)
    assert isinstance(engine, HFEngine)
    at = [request.slot for request in engine.scheduler.by_slot.values() if request.running]
    return max((int(engine.slots.position[slot]) + 1 - len(PROMPT) for slot in at), default=0)


def questions() -> dict[int, tuple[Tokens, Extend, np.ndarray]]:
    """Requests of all sorts, some of which draw the same tokens for a while."""
    stopping = tuple(range(0, 300, 5))
    sorts = [
        ASK,
        ASK,
        replace(ASK, tau=0.0),
        replace(ASK, tau=0.3, top_k=3),
        replace(ASK, stop_tokens=stopping),
        replace(ASK, stop_tokens=stopping),
        replace(ASK, tau=0.25, alpha=4.0, floor=-1.0),
        replace(ASK, top_logprobs=3),
        replace(ASK, support=(2, 7, 9)),
        replace(ASK, exponents=(1.0, 4.0)),
        replace(ASK, response=(6, 2, 8, 5, 3), keep=3),
    ]
    return {i: (PROMPT, sort, uniforms(i % 3)) for i, sort in enumerate(sorts)}


def require_same(draw: Draw, other: Draw) -> None:
    assert draw.tokens == other.tokens
    assert draw.finish_reason is other.finish_reason
    for name in ("logp", "logq", "entropy"):
        assert getattr(draw, name) == pytest.approx(getattr(other, name), abs=1e-4)
    assert [top.tokens for top in draw.top_logprobs] == [top.tokens for top in other.top_logprobs]
    assert np.array(draw.log_normalisers) == pytest.approx(
        np.array(other.log_normalisers), abs=1e-4
    )


@pytest.mark.parametrize("draft", [1, 3, 16, "auto"])
def test_a_draw_is_the_same_with_drafts_of_any_length(
    make: Callable[..., Engine], draft: int | str
) -> None:
    expected = run(make(4, 0), questions())
    engine = make(4, draft)
    for _ in range(2):  # the second time, all is known
        draws = run(engine, questions())
        for chain, draw in draws.items():
            require_same(draw, expected[chain])
            engine.withdraw(chain)
    plain = {draw.passes for draw in expected.values()}
    assert plain == {len(draw.tokens) for draw in expected.values()}
    assert all(draw.passes <= len(draw.tokens) <= draw.rows for draw in draws.values())
    assert sum(draw.passes for draw in draws.values()) < sum(len(d.tokens) for d in draws.values())


def test_what_is_drawn_again_takes_a_pass_for_each_draft(make: Callable[..., Engine]) -> None:
    engine = make(1, 8)
    first = run(engine, {0: (PROMPT, ASK, uniforms(1))})[0]
    again = run(engine, {1: (PROMPT, ASK, uniforms(1))})[1]
    require_same(again, first)
    assert again.passes == pytest.approx(
        UNTIL / 9, abs=2
    )  # the first token has too short a context
    assert again.rows == UNTIL


def test_what_was_started_ahead_and_withdrawn_is_known_where_it_is_asked_for_again(
    make: Callable[..., Engine],
) -> None:
    """As after an accepted proposal, where the next one departs from what both futures share: with another
    floor, from another response."""
    engine, u = make(2, 8), uniforms(1)
    current = run(engine, {0: (PROMPT, ASK, uniforms(2))})[0].tokens
    ahead = replace(ASK, key=("next",), response=current, keep=6, floor=-100.0)
    engine.submit(0, PROMPT, ahead, u)
    for _ in range(40):
        assert not engine.step() or engine.withdraw(0, ahead.key) == 0
        if engine_position(engine) >= 14:
            break
    engine.withdraw(0, ahead.key)
    other = (*current[:6], *reversed(current[6:]))
    again = replace(ahead, response=other, floor=-200.0)
    draw = run(engine, {0: (PROMPT, again, u)})[0]
    require_same(draw, run(make(1, 0), {0: (PROMPT, again, u)})[0])
    assert draw.passes < len(draw.tokens) - 4


@pytest.mark.parametrize("right", [0, 1, 2, 5])
def test_nonsense_changes_no_draw(make: Callable[..., Engine], right: int) -> None:
    expected = run(make(4, 0), questions())
    engine = make(4, 8)
    choose = random.Random(right)

    def text(writing: Writing) -> Sequence[int]:
        """So many tokens that are right, or none that are; then nonsense, stop tokens among it."""
        drawn = next(
            expected[chain].tokens
            for chain, (_, request, u) in questions().items()
            if request == writing.request and (u == writing.uniforms).all()
        )
        at = writing.position - writing.request.keep
        return [*drawn[at : at + right], *(choose.randrange(12) for _ in range(8))]

    engine.drafter = Fixed(text, engine.drafter.widths)  # type: ignore[attr-defined]
    for chain, draw in run(engine, questions()).items():
        require_same(draw, expected[chain])
        if expected[chain].finish_reason is FinishReason.LENGTH:
            assert draw.passes <= -(-len(draw.tokens) // (right + 1)) + 1
        assert draw.rows >= draw.passes


@pytest.mark.parametrize("name", ["llama", "phi3-window", "phi3-longrope"])
def test_in_deterministic_mode_not_a_bit_changes(name: str) -> None:
    def draws(draft: int, width: int) -> dict[int, Draw]:
        engine = HFEngine(TinyModel(name), 40, 40, width, draft=draft, deterministic=True)
        run(engine, questions())
        for chain in questions():
            engine.withdraw(chain)
        return run(engine, questions())

    expected = draws(0, 4)
    for draft, width in ((1, 4), (5, 2), (40, 8)):
        for chain, draw in draws(draft, width).items():
            other = expected[chain]
            assert draw.passes < other.passes or len(draw.tokens) < 4
            left = replace(draw, passes=0, rows=0, prefilled=0)
            assert left == replace(other, passes=0, rows=0, prefilled=0)


def careless(engine: HFEngine, seed: int) -> None:
    """Let some of the engine's guesses be others, so that drafts are wrong at every place."""
    choose, guess = random.Random(seed), engine.drafter._guess

    def wrong(writing: Writing, least: float) -> tuple[list[Guess], list[float]]:
        guesses, _ = guess(writing, least)
        guesses = [
            each if choose.random() < 0.8 else each._replace(token=choose.randrange(300))
            for each in guesses
        ]
        return guesses, [1.0] * len(guesses)

    engine.drafter._guess = wrong  # type: ignore[method-assign]


@pytest.mark.parametrize("name", ["llama", "qwen2", "phi3", "phi3-window"])
@pytest.mark.parametrize("turns", [300, pytest.param(2000, marks=pytest.mark.faults)])
def test_random_histories_with_drafts_agree_with_plain_passes(name: str, turns: int) -> None:
    engine = HFEngine(TinyModel(name), 12, 24, 4, 16, draft=6)
    careless(engine, 1)
    histories = Histories(name, engine, seed=2)
    histories.play(turns)
    hits = engine.drafter.hits
    assert sum(hits.right.values()) > turns / 20
    assert sum(hits.tried.values()) > sum(hits.right.values()) + turns / 40


@pytest.mark.parametrize("turns", [1000, pytest.param(10_000, marks=pytest.mark.faults)])
def test_nothing_is_left_after_many_requests(turns: int) -> None:
    engine = HFEngine(TinyModel("llama"), 12, 24, 4, 16, draft=4)
    histories = Histories("llama", engine, seed=3)
    histories.checks = False
    histories.play(turns)
    for chain in list(histories.current):
        engine.withdraw(chain)
    assert len(engine.drafter.families) <= len(set(histories.prompts.values()))
    assert not any(family.chains for family in engine.drafter.families.values())
    assert not engine.scheduler.by_slot
    assert not engine.scheduler.waiting
    for family in engine.drafter.families.values():
        assert family.index.size() <= MOST_CONTEXTS


def test_the_fastest_of_the_first_starts_counts_and_then_nothing_is_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    measured = iter([(3.0, 9.0), (1.0, 8.0), (2.0, 5.0)])
    monkeypatch.setattr(pass_times, "_measure", lambda runner: PassTimes((1, 64), next(measured)))

    def times() -> tuple[float, ...]:
        return HFEngine(TinyModel("llama"), 12, 24, 4).drafter.times.times

    assert [times() for _ in range(5)] == [
        (3.0, 9.0),
        (1.0, 8.0),
        (1.0, 5.0),
        (1.0, 5.0),
        (1.0, 5.0),
    ]


# -- whole chains ---------------------------------------------------------------------------------

CONTEXT = Context(PROMPT, eos=7, stop_tokens=(7,), answer=lambda tokens: str(tokens[:1]))
CHAINS = {
    "power": Power(max_tokens=32, alpha=4.0, blocks=4, steps=5),
    "without early rejection": Power(
        max_tokens=32, alpha=4.0, blocks=4, steps=5, early_rejection=False
    ),
    "beam": Beam(max_tokens=16, width=3),
    "multiple try": compose(
        ["sampler=multiple_try", "max_tokens=16", "blocks=2", "steps=2", "sampler.tries=3"]
    ).build("sampler"),
}


def chains(
    sampler: Sampler, engine: Engine, speculate: int
) -> dict[SampleKey, tuple[Outcome, Cost]]:
    """Two replicates of each of three problems."""
    keys = [SampleKey(str(problem), replicate) for problem in range(3) for replicate in range(2)]
    starts = [
        ChainSpec(
            key,
            prompt := (*PROMPT, int(key.problem)),
            partial(sampler.chain, replace(CONTEXT, prompt=prompt)),
            Stream(0, "drafts", key.problem, key.replicate),
        )
        for key in keys
    ]
    events = run_chains(starts, engine, Progress(), speculate)
    return {e.key: (e.outcome, e.cost) for e in events if isinstance(e, Completed)}


@pytest.mark.parametrize("speculate", [0, 4])
@pytest.mark.parametrize("name", CHAINS)
def test_chains_are_the_same_with_drafts_in_fewer_passes(name: str, speculate: int) -> None:
    def made(draft: int) -> dict[SampleKey, tuple[Outcome, Cost]]:
        engine = HFEngine(TinyModel("qwen2"), 40, 40, 8, draft=draft, deterministic=True)
        return chains(CHAINS[name], engine, speculate if draft else 0)

    plain, drafted = made(0), made(8)
    assert drafted.keys() == plain.keys()
    for key, (outcome, cost) in drafted.items():
        assert outcome == plain[key][0]
        assert cost.decoded == plain[key][1].decoded == plain[key][1].passes
        assert cost.rows >= cost.decoded >= cost.passes
    before, after = (sum(cost.passes for _, cost in made.values()) for made in (plain, drafted))
    assert after == before if name == "beam" else after < before  # a beam asks for single tokens


# -- what is guessed --------------------------------------------------------------------------------


def test_the_chance_of_the_same_token_is_that_of_a_random_interval() -> None:
    rng = np.random.default_rng(0)
    for q, before, now in ((0.9, 0.5, 0.97), (0.4, 0.3, 0.5), (0.2, 0.95, 0.9), (0.6, 0.1, 0.75)):
        low = rng.uniform(max(0.0, before - q), min(before, 1 - q), 200_000)
        share = float(((low <= now) & (now < low + q)).mean())
        assert chance_of_same(q, before, now) == pytest.approx(share, abs=0.01)
    assert chance_of_same(0.3, 0.5, 0.5) == 1.0
    assert chance_of_same(1.0, 0.2, 0.9) == 1.0
    assert chance_of_same(0.1, 0.2, 0.9) == 0.0


def test_the_longest_known_context_decides_and_there_the_uniform() -> None:
    index = PromptIndex()
    index.add((1, 2, 3, 4), Seen(10, 0.5, 0.2))
    index.add((1, 2, 3, 4), Seen(11, 0.5, 0.8))
    index.add((9, 9, 3, 4), Seen(12, 1.0, 0.5))
    assert [index.guess((1, 2, 3, 4), u).token for u in (0.1, 0.9)] == [10, 11]  # type: ignore[union-attr]
    assert index.guess((7, 7, 3, 4), 0.9).token == 12  # type: ignore[union-attr]
    assert index.guess((7, 7, 7, 4), 0.9) is None


def test_an_index_forgets_what_is_old_and_stays_small() -> None:
    index = PromptIndex()
    for i in range(20_000):
        index.add((i, i + 1), Seen(i % 7, 0.5, 0.5))
    assert index.guess((3, 4), 0.5) is None
    assert index.guess((19_990, 19_991), 0.5) is not None
    assert index.size() <= MOST_CONTEXTS


def test_drafts_are_as_long_as_pays() -> None:
    flat = PassTimes((1, 100), (1.0, 1.0))
    steep = PassTimes((1, 100), (1.0, 100.0))
    sure, unsure = [0.99, 0.98, 0.97], [0.3, 0.1]
    assert best_lengths([sure, unsure], flat) == [3, 2]
    assert best_lengths([sure, unsure], steep) == [0, 0]
    middling = PassTimes((1, 101), (1.0, 11.0))  # a row more costs a tenth of a pass
    assert best_lengths([sure, unsure], middling) == [3, 0]


@pytest.mark.parametrize("seed", range(20))
def test_no_other_choice_of_lengths_gives_more_tokens_a_second(seed: int) -> None:
    rng = np.random.default_rng(seed)
    times = PassTimes((1, 3, 8), tuple(np.cumsum(rng.random(3) + 0.1)))
    chances = [np.cumprod(rng.random(3)).tolist() for _ in range(3)]

    def rate(lengths: Sequence[int]) -> float:
        drawn = 3 + sum(sum(own[:n]) for own, n in zip(chances, lengths, strict=True))
        return float(drawn / times(np.array([3 + sum(lengths)]))[0])

    best = max(((a, b, c) for a in range(4) for b in range(4) for c in range(4)), key=rate)
    assert rate(best_lengths(chances, times)) == pytest.approx(rate(best))


def test_one_long_draft_does_not_widen_the_attention_of_many_rows() -> None:
    """A row costs a hundredth of a pass; a padded place, of which 40 rows would have 39 for each drafted token,
    a tenth of that."""
    chances = [[0.9**i for i in range(1, 31)], *([] for _ in range(39))]
    plain = PassTimes((1, 101), (1.0, 2.0))
    assert best_lengths(chances, plain)[0] > 8
    assert best_lengths(chances, replace(plain, padding=0.1))[0] <= 3


def test_the_number_of_tokens_a_row_is_one_of_those_that_are_recorded() -> None:
    times = PassTimes((1, 100), (1.0, 2.0))
    lengths = best_lengths([[0.9] * 7, [0.9] * 2], times, widths=(1, 3, 5))
    assert lengths == [4, 2]
