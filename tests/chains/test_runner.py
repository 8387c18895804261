"""The loop between chains and engine: keyed randomness, cost, and chains that are dropped.

Run: pytest tests/chains/test_runner.py
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import islice

import numpy as np
import pytest

from powerbench.chains.law import context_of, law
from powerbench.chains.runner import (
    AtBlockEnd,
    ChainSpec,
    Completed,
    Event,
    Failed,
    Runner,
    run_chains,
    run_one,
)
from powerbench.engines.base import Finished
from powerbench.engines.toy import ToyEngine
from powerbench.errors import UserError
from powerbench.models import TabularModel
from powerbench.rng import Stream
from powerbench.samplers.common import Response
from powerbench.samplers.power import Power
from powerbench.samplers.power_official import PowerOfficial
from powerbench.types import (
    Chain,
    Checkpoint,
    Choose,
    Context,
    Extend,
    FinishReason,
    LogUniform,
    Outcome,
    Progress,
    Request,
    SampleKey,
    Save,
    Together,
)

MODEL = TabularModel(vocabulary=5)
POWER = Power(max_tokens=12, blocks=3, steps=4)


ENDLESS = Context((), eos=99, stop_tokens=(99,))
"""Nothing stops: every response has the full length."""


def starts(
    count: int, sampler: Power = POWER, context: Context | None = None
) -> Iterator[ChainSpec]:
    context = context or context_of(MODEL)
    for i in range(count):
        stream = Stream(0, "task", f"p{i}", 0)
        yield ChainSpec(SampleKey(f"p{i}", 0), (), partial(sampler.chain, context), stream)


def outcomes(count: int, width: int, sampler: Power = POWER) -> dict[SampleKey, Outcome]:
    done = run_chains(starts(count, sampler), ToyEngine(MODEL, max_num_seqs=width), Progress())
    return {each.key: each.outcome for each in done if isinstance(each, Completed)}


@pytest.mark.parametrize("width", [1, 4, 50])
def test_outcomes_do_not_depend_on_the_width(width: int) -> None:
    assert outcomes(20, width) == outcomes(20, 7)


def test_early_rejection_makes_the_same_chains_with_fewer_tokens() -> None:
    late = Power(max_tokens=12, blocks=3, steps=4, early_rejection=False)

    def decoded(sampler: Power) -> int:
        progress = Progress()
        for _ in run_chains(starts(40, sampler), ToyEngine(MODEL), progress):
            pass
        return progress.decoded

    ours, theirs = outcomes(40, 8), outcomes(40, 8, late)
    assert {k: (o.tokens, o.logp) for k, o in ours.items()} == {
        k: (o.tokens, o.logp) for k, o in theirs.items()
    }
    assert decoded(POWER) < decoded(late)


class Counting(ToyEngine):
    """Counts its steps."""

    steps = 0

    def step(self) -> list[Finished]:
        self.steps += 1
        return super().step()


def speculated(
    count: int, speculate: int, sampler: Power, width: int = 8
) -> tuple[dict[SampleKey, Completed], int]:
    """What chains return and cost (but for time), and how many steps the engine took."""
    engine = Counting(MODEL, max_num_seqs=width)
    done = run_chains(starts(count, sampler, ENDLESS), engine, Progress(), speculate)
    completed = {each.key: each for each in done if isinstance(each, Completed)}
    assert engine.step() == []
    return completed, engine.steps


@pytest.mark.parametrize("early_rejection", [True, False])
@pytest.mark.parametrize("speculate", [1, 3, 8])
@pytest.mark.parametrize("count", [1, 3, 20])
def test_chains_do_not_depend_on_speculation(
    count: int, speculate: int, early_rejection: bool
) -> None:
    sampler = Power(max_tokens=24, blocks=3, steps=6, early_rejection=early_rejection)
    plain, steps = speculated(count, 0, sampler)
    ahead, fewer = speculated(count, speculate, sampler)
    assert {k: c.outcome for k, c in ahead.items()} == {k: c.outcome for k, c in plain.items()}
    assert {k: c.cost.decoded for k, c in ahead.items()} == {
        k: c.cost.decoded for k, c in plain.items()
    }
    assert fewer < steps
    assert sum(c.cost.speculated for c in ahead.values()) > 0
    assert not any(c.cost.speculated for c in plain.values())


def test_a_full_batch_leaves_no_room_for_speculation() -> None:
    done, _ = speculated(1, 8, POWER, width=1)
    assert [c.cost.speculated for c in done.values()] == [0]


@pytest.mark.parametrize("kind", [Power, PowerOfficial])
def test_a_chain_goes_on_from_a_saved_state_as_if_never_stopped(
    kind: type[Power | PowerOfficial],
) -> None:
    sampler = kind(max_tokens=12, blocks=4, steps=3)
    stream, states = Stream(0, "task", "p", 0), []

    def saving() -> Chain:
        chain, answer = sampler.chain(ENDLESS), None
        while True:
            try:
                request = chain.send(answer)
            except StopIteration as end:
                return end.value
            if isinstance(request, Save):
                states.append(json.loads(json.dumps(request.state)))
            answer = yield request

    whole = run_one(saving, (), stream, ToyEngine(MODEL))
    assert len(states) == 4
    for state in states:
        rest = run_one(partial(sampler.chain, ENDLESS, state), (), stream, ToyEngine(MODEL))
        assert rest == whole


def test_cost_counts_rejected_proposals() -> None:
    progress = Progress()
    for done in run_chains(starts(10), ToyEngine(MODEL), progress):
        if isinstance(done, Completed):
            extended = done.cost.decoded - sum(step.decoded for step in done.outcome.steps)
            assert 1 <= extended <= POWER.max_tokens
            assert done.cost.seconds >= 0
    assert progress.proposals >= progress.accepted > 0


def test_seeds_problems_and_replicates_have_streams_of_their_own() -> None:
    base = Stream(0, "task", "p", 0)
    others = [Stream(1, "task", "p", 0), Stream(0, "t", "p", 0), Stream(0, "task", "q", 0)]
    others.append(Stream(0, "task", "p", 1))
    for other in others:
        assert not np.array_equal(base.uniforms(("a",), 4), other.uniforms(("a",), 4))
    shared = base.shared().uniforms(("a",), 4)
    assert np.array_equal(shared, others[-1].shared().uniforms(("a",), 4))
    for other in (base, *others, *(each.shared() for each in others[:-1])):
        assert not np.array_equal(shared, other.uniforms(("a",), 4))
    assert np.array_equal(base.uniforms(("a", 1), 9)[:4], base.uniforms(("a", 1), 4))
    assert not np.array_equal(base.uniforms(("a", 1), 4), base.uniforms(("a", 2), 4))


def test_shared_positions_are_the_same_for_all_replicates_of_a_problem() -> None:
    """Departure 3 of the official code: only there do two replicates restart at the same places, and never do
    two problems."""

    def restarts(problem: str, replicate: int, shared: bool) -> list[int]:
        sampler = PowerOfficial(
            8, blocks=1, steps=6, within_response=False, shared_positions=shared
        )
        chain = partial(sampler.chain, ENDLESS)
        stream = Stream(0, "task", problem, replicate)
        outcome = run_one(chain, (), stream, ToyEngine(MODEL))
        return [step.restart for step in outcome.steps]

    assert restarts("p", 0, shared=True) == restarts("p", 1, shared=True)
    assert restarts("p", 0, shared=True) != restarts("q", 0, shared=True)
    assert restarts("p", 0, shared=False) != restarts("p", 1, shared=False)


def test_draws_follow_the_enumerated_law() -> None:
    """The runner's own randomness gives the law that enumeration states (chi-square, fixed seed)."""
    from scipy.stats import chisquare

    small = Power(max_tokens=2, blocks=1, steps=1)
    model = TabularModel(vocabulary=3)

    def program() -> Chain:
        return small.chain(context_of(model))

    expected: dict[tuple[int, ...], float] = {}
    for outcome, probability in law(program, model).items():
        expected[outcome.tokens] = expected.get(outcome.tokens, 0.0) + probability
    counts = dict.fromkeys(expected, 0)
    begin = (
        ChainSpec(SampleKey(str(i), 0), (), program, Stream(0, "law", str(i), 0))
        for i in range(4000)
    )
    for done in run_chains(begin, ToyEngine(model, max_num_seqs=64), Progress()):
        if isinstance(done, Completed):
            counts[done.outcome.tokens] += 1
    likely = [x for x in expected if 4000 * expected[x] > 5]
    seen = np.array([counts[x] for x in likely], dtype=float)
    wanted = np.array([expected[x] for x in likely])
    assert chisquare(seen, wanted / wanted.sum() * seen.sum()).pvalue > 0.001


def test_closing_the_loop_withdraws_what_is_unfinished() -> None:
    engine = ToyEngine(MODEL, max_num_seqs=4)
    loop = run_chains(starts(20), engine, Progress())
    next(loop)
    loop.close()
    assert engine.step() == []


def test_a_chain_that_needs_no_engine_completes() -> None:
    def chain() -> Chain:
        index = yield Choose(("pick",), (0.0, 1.0))
        return (
            Response(finish_reason=FinishReason.STOP).outcome()
            if index == 1
            else Response().outcome()
        )

    outcome = run_one(chain, (), Stream(0, "t", "p", 0), ToyEngine(MODEL))
    assert outcome.finish_reason is FinishReason.STOP


def test_an_engine_answers_a_chain_in_order() -> None:
    def chain() -> Chain:
        first = yield Extend(("a",), (), 0, 3, stop_tokens=())
        second = yield Extend(("b",), first.tokens, 1, 5, stop_tokens=())
        return Response().then(first).then(second, keep=1).outcome()

    outcome = run_one(chain, (1,), Stream(0, "t", "p", 0), ToyEngine(MODEL))
    assert len(outcome.tokens) == 5


DRAW = Extend(("draw",), (), 0, 3, stop_tokens=(), proposal=True)


@pytest.mark.parametrize("speculate", [0, 8])
@pytest.mark.parametrize(
    "requests",
    [
        (DRAW, DRAW),
        (DRAW, Save({}), DRAW),
        (Together((DRAW, DRAW)),),
        (DRAW, Together((replace(DRAW, key=("other",)), DRAW))),
        (LogUniform(("u",)), LogUniform(("u",))),
        (LogUniform(("draw",)), DRAW),
    ],
    ids=["in a row", "a save between", "together", "before", "uniforms", "different requests"],
)
def test_a_key_that_names_two_draws_ends_the_run_at_once(
    requests: tuple[Request, ...], speculate: int
) -> None:
    def chain(state: object = None) -> Chain:
        answers = []
        for request in requests:
            answers.append((yield request))
        return Response().outcome()

    spec = ChainSpec(SampleKey("p", 0), (), chain, Stream(0, "t", "p", 0))
    with pytest.raises(
        UserError, match=r"the key \('(draw|u)',\) for two draws of one chain, of problem 'p'"
    ):
        list(run_chains([spec], ToyEngine(MODEL), Progress(), speculate))


@pytest.mark.parametrize("kind", [Power, PowerOfficial])
@pytest.mark.parametrize("seen", [1, 7, 30])
def test_a_run_goes_on_from_its_checkpoints_to_the_same_outcomes_and_costs(
    kind: type[Power | PowerOfficial], seen: int
) -> None:
    """The first run is dropped after `seen` checkpoints; the second has what it saved, and nothing else."""
    sampler = kind(max_tokens=12, blocks=4, steps=3)

    def events(saved: dict[SampleKey, Checkpoint]) -> Iterator[Completed | AtBlockEnd | None]:
        resumed = (s._replace(checkpoint=saved.get(s.key)) for s in starts(9, sampler, ENDLESS))
        return run_chains(resumed, ToyEngine(MODEL, max_num_seqs=4), Progress(), speculate=3)

    whole = {e.key: e for e in events({}) if isinstance(e, Completed)}
    first = events({})
    some = list(islice((e for e in first if isinstance(e, AtBlockEnd)), seen))
    first.close()  # type: ignore[attr-defined]
    saved = {each.key: each.checkpoint for each in some}
    again = {e.key: e for e in events(saved) if isinstance(e, Completed)}
    assert {k: (e.outcome, e.cost.decoded) for k, e in again.items()} == {
        k: (e.outcome, e.cost.decoded) for k, e in whole.items()
    }
    for key, checkpoint in saved.items():
        assert again[key].cost.earlier == checkpoint.spans
        assert len(checkpoint.spans) == 1


class Drafting(ToyEngine):
    """Says of its draws what an engine would that drafts three tokens a pass, of which one is right."""

    def step(self) -> list[Finished]:
        return [
            each._replace(
                draw=replace(each.draw, passes=passes, rows=4 * passes),
            )
            for each in super().step()
            for passes in [-(-len(each.draw.tokens) // 2)]
        ]


def test_the_bill_has_the_passes_of_every_draw_that_was_used() -> None:
    """Also of what was decoded before a checkpoint, and of several extended together."""
    sampler = Power(max_tokens=12, blocks=4, steps=3)

    def events(engine: ToyEngine, saved: Checkpoint | None = None) -> list[object]:
        (start,) = starts(1, sampler, ENDLESS)
        return list(run_chains([start._replace(checkpoint=saved)], engine, Progress()))

    plain, drafted = events(ToyEngine(MODEL)), events(Drafting(MODEL))
    (one,) = (each for each in plain if isinstance(each, Completed))
    (other,) = (each for each in drafted if isinstance(each, Completed))
    assert one.cost.passes == one.cost.rows == one.cost.decoded == other.cost.decoded
    draws = [3] * 4 + [step.decoded for step in other.outcome.steps]  # first drafts, proposals
    assert sum(draws) == other.cost.decoded
    assert other.cost.passes == sum(-(-n // 2) for n in draws) < other.cost.decoded
    assert other.cost.rows == 4 * other.cost.passes
    assert other.cost.attended > one.cost.attended
    for event in drafted:
        if isinstance(event, AtBlockEnd):
            assert 0 < event.checkpoint.passes < other.cost.passes
            *_, again, _ = events(Drafting(MODEL), event.checkpoint)
            assert isinstance(again, Completed)
            assert (again.cost.passes, again.cost.rows) == (other.cost.passes, other.cost.rows)


def test_checkpoints_spare_what_was_done() -> None:
    sampler = Power(max_tokens=12, blocks=4, steps=3)

    def decoded(checkpoint: Checkpoint | None) -> int:
        progress = Progress()
        (start,) = starts(1, sampler, ENDLESS)
        for _ in run_chains([start._replace(checkpoint=checkpoint)], ToyEngine(MODEL), progress):
            pass
        return progress.decoded

    saved = [
        event.checkpoint
        for event in run_chains(starts(1, sampler, ENDLESS), ToyEngine(MODEL), Progress())
        if isinstance(event, AtBlockEnd)
    ]
    assert len(saved) == 3  # the fourth block's end is the chain's
    spared = [decoded(None) - decoded(checkpoint) for checkpoint in saved]
    assert spared == [checkpoint.decoded for checkpoint in saved]


def several(context: Context, together: bool, further: int = 4) -> Chain:
    """Three particles extended by turns, the first of which then goes through further steps of its own."""
    xs, steps = [Response()] * 3, []
    for k in (1, 2):
        asked = [
            x.extend(len(x), 4 * k, ("particle", k, i), context, tau=0.5) for i, x in enumerate(xs)
        ]
        if together:
            draws = yield Together(tuple(asked))
        else:
            draws = []
            for each in asked:
                draws.append((yield each))
        xs = [x.then(draw) for x, draw in zip(xs, draws, strict=True)]
        for n in range(further):
            xs[0], step = yield from POWER.step(xs[0], 4 * k, k, n, context)
            steps.append(step)
    return max(xs, key=lambda x: x.total).outcome(steps)


@pytest.mark.parametrize("speculate", [0, 8])
@pytest.mark.parametrize("width", [1, 2, 8, 50])
def test_together_gives_the_same_draws_as_one_by_one(width: int, speculate: int) -> None:
    def run(together: bool) -> tuple[dict[SampleKey, tuple[Outcome, int]], int]:
        engine = Counting(MODEL, max_num_seqs=width)
        begin = partial(several, ENDLESS, together)
        them = [
            ChainSpec(
                SampleKey(f"p{i}", 0), (), lambda state=None: begin(), Stream(0, "task", f"p{i}", 0)
            )
            for i in range(5)
        ]
        done = run_chains(them, engine, Progress(), speculate)
        found = {e.key: (e.outcome, e.cost.decoded) for e in done if isinstance(e, Completed)}
        assert engine.step() == []
        return found, engine.steps

    at_once, fewer = run(True)
    by_turns, steps = run(False)
    assert at_once == by_turns and len(at_once) == 5
    assert fewer < steps or width == 1


def test_chains_with_many_requests_share_the_rows() -> None:
    """No more chains at once than have work for the rows: three requests each, eight rows."""
    most = 0

    class Watched(ToyEngine):
        def step(self) -> list[Finished]:
            nonlocal most
            most = max(most, len({chain for chain, _ in self._running}))
            return super().step()

    begin = partial(several, ENDLESS, True, 0)
    them = [
        ChainSpec(
            SampleKey(f"p{i}", 0), (), lambda state=None: begin(), Stream(0, "task", f"p{i}", 0)
        )
        for i in range(9)
    ]
    list(run_chains(them, Watched(MODEL, max_num_seqs=8), Progress()))
    assert most == 3


def test_every_token_is_counted_with_what_it_attends_to() -> None:
    """A prompt of 3, two drafts of 4 tokens from it, then 2 more after the first 3 of one of them."""

    def chain(state: object = None) -> Chain:
        x = Response()
        first = x.extend(0, 4, ("a",), ENDLESS, tau=1.0)
        draws = yield Together((first, x.extend(0, 4, ("b",), ENDLESS, tau=1.0)))
        x = x.then(draws[0])
        return x.then((yield x.extend(3, 5, ("c",), ENDLESS, tau=1.0)), keep=3).outcome()

    start = ChainSpec(SampleKey("p", 0), (1, 2, 3), chain, Stream(0, "t", "p", 0))
    events = run_chains([start], ToyEngine(MODEL), Progress())
    (cost,) = (event.cost for event in events if isinstance(event, Completed))
    drafts, rest = 2 * (4 + 5 + 6 + 7), 7 + 8
    prefilled = 2 * (1 + 2 + 3) + sum(range(1, 7))  # the toy engine keeps nothing
    assert (cost.decoded, cost.prefilled) == (10, 12)
    assert cost.attended == drafts + rest + prefilled


def finish(runner: Runner) -> dict[SampleKey, Event]:
    """What becomes of the chains at work; the last event of each."""
    ends: dict[SampleKey, Event] = {}
    while runner.live:
        ends |= {event.key: event for event in runner.step()}
    return ends


@pytest.mark.parametrize("speculate", [0, 2])
def test_a_chain_that_joins_late_and_one_that_is_withdrawn_change_no_other(speculate: int) -> None:
    expected, engine = outcomes(6, 8), ToyEngine(MODEL, max_num_seqs=8)
    runner, specs = Runner(engine, Progress(), speculate), list(starts(6))
    numbers = [runner.start(spec) for spec in specs[:4]]
    assert all(not isinstance(event, Completed) for event in runner.step())
    runner.withdraw(numbers[1])
    for spec in specs[4:]:
        runner.start(spec)
    ends = finish(runner)
    runner.withdraw(numbers[1])  # again, and after the end
    del expected[specs[1].key]
    assert {k: e.outcome for k, e in ends.items() if isinstance(e, Completed)} == expected
    assert engine._running == {}


@pytest.mark.parametrize("speculate", [0, 2])
def test_a_chain_that_raises_leaves_the_engine_and_the_others_go_on(speculate: int) -> None:
    def failing() -> Chain:
        yield Together(tuple(Extend(("draw", i), (), 0, 3, ()) for i in range(3)))
        raise ValueError("no luck")

    expected, engine = outcomes(3, 8), ToyEngine(MODEL, max_num_seqs=8)
    runner = Runner(engine, Progress(), speculate)
    key = SampleKey("failing", 0)
    wrong = ChainSpec(key, (), lambda state=None, /: failing(), Stream(0, "task", "failing", 0))
    for spec in (wrong, *starts(3)):
        runner.start(spec)
    ends = finish(runner)
    failed = ends.pop(key)
    assert isinstance(failed, Failed)
    assert str(failed.error) == "no luck"
    assert {k: e.outcome for k, e in ends.items() if isinstance(e, Completed)} == expected
    assert engine._running == {}
    with pytest.raises(ValueError, match="no luck"):
        list(run_chains([wrong], engine, Progress()))


class NoNumbers(ToyEngine):
    """Gives draws of one token no log-probability."""

    def step(self) -> list[Finished]:
        nan = (float("nan"),)
        return [
            each._replace(draw=replace(each.draw, logp=nan)) if len(each.draw.tokens) == 1 else each
            for each in super().step()
        ]


@pytest.mark.parametrize("lengths", [(1, 1, 1), (1, 5, 5)])
def test_of_a_chain_that_fails_amid_its_draws_nothing_stays(lengths: tuple[int, ...]) -> None:
    """Others of its draws may be finished in the same step, or still be at work."""

    def several() -> Chain:
        yield Together(tuple(Extend(("d", i), (), 0, n, ()) for i, n in enumerate(lengths)))
        raise AssertionError("it is not to go on")

    engine = NoNumbers(MODEL)
    runner = Runner(engine, Progress())
    key = SampleKey("several", 0)
    runner.start(ChainSpec(key, (), lambda state=None, /: several(), Stream(0, "t", "s", 0)))
    (failed,) = runner.step()
    assert isinstance(failed, Failed)
    assert "not numbers" in str(failed.error)
    assert runner.live == 0
    assert engine._running == {}
    assert runner.step() == []
