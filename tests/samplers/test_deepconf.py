"""DeepConf, offline and online: confidences, the filter and the vote, against the definitions worked out anew.

Run: pytest tests/samplers/test_deepconf.py
"""

import math
from collections.abc import Callable, Generator
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from toy_chains import chain_law, completed, resumed

from powerbench.chains.law import context_of, law, responses, total_variation
from powerbench.errors import UserError
from powerbench.models import TabularModel
from powerbench.samplers.confidence import Trace, threshold
from powerbench.samplers.deepconf import DeepConf
from powerbench.samplers.deepconf_online import DeepConfOnline
from powerbench.types import Context, Request, Together, Tokens

MODEL = TabularModel(vocabulary=3, seed=2)
TOY = TabularModel(vocabulary=5)


def last(x: Tokens) -> str | None:
    """The last token before EOS; no answer where there is none."""
    return str(x[-1] if x[-1] else x[-2]) if x != (0,) else None


def asked(model: TabularModel) -> Context:
    return replace(context_of(model), answer=last)


def offline(**settings: Any) -> DeepConf:
    given = {
        "max_tokens": 2,
        "n": 3,
        "together": 2,
        "top_k_confidence": 2,
        "window": 2,
        "tail": 1,
        "eta": 0.5,
    }
    return DeepConf(**{**given, "temperature": 1.0, **settings})


def online(**settings: Any) -> DeepConfOnline:
    given = {
        "max_tokens": 3,
        "n": 3,
        "warm_up": 2,
        "together": 1,
        "interval": 1,
        "top_k_confidence": 2,
    }
    return DeepConfOnline(**{**given, "window": 1, "eta": 0.5, "temperature": 1.0, **settings})


# -- the definitions, worked out anew -------------------------------------------------------------


def tokens_confidence(model: TabularModel, x: Tokens, k: int) -> list[float]:
    """C_i = - (1/k) sum of the k largest log p at position i."""
    return [-float(np.log(np.sort(model.p(x[:i]))[::-1][:k]).mean()) for i in range(len(x))]


def groups(confidences: list[float], window: int) -> list[float]:
    if len(confidences) <= window:
        return [sum(confidences) / len(confidences)]
    ends = range(window, len(confidences) + 1)
    return [sum(confidences[end - window : end]) / window for end in ends]


def confidence(measure: str, confidences: list[float], window: int, tail: int) -> float:
    ordered = sorted(groups(confidences, window))
    lowest = ordered[: max(1, len(ordered) // 10)]
    return {
        "mean": sum(confidences) / len(confidences),
        "tail": sum(confidences[-tail:]) / len(confidences[-tail:]),
        "bottom": sum(lowest) / len(lowest),
        "lowest": ordered[0],
    }[measure]


def probability(model: TabularModel, x: Tokens, tau: float) -> float:
    rows = [model.p(x[:i]) ** (1 / tau) for i in range(len(x))]
    return math.prod(row[t] / row.sum() for row, t in zip(rows, x, strict=True))


def elected(xs: tuple[Tokens, ...], scores: list[float], voters: list[int]) -> Tokens:
    """The most confident voter for the answer with the most confidence; of all, if nobody votes."""
    votes: dict[str | None, float] = {}
    for i in voters:
        votes[last(xs[i])] = votes.get(last(xs[i]), 0.0) + scores[i]
    won = max(votes, key=lambda a: votes[a], default=None)
    eligible = [i for i in voters if last(xs[i]) == won] or list(range(len(xs)))
    return xs[max(eligible, key=lambda i: scores[i])]


def law_by(
    choose: Callable[[tuple[Tokens, ...]], Tokens], n: int, horizon: int, tau: float = 1.0
) -> dict[Tokens, float]:
    """The law of what is chosen of n independent responses: all n-tuples of them."""
    found: dict[Tokens, float] = {}
    every = {x: probability(MODEL, x, tau) for x in responses(MODEL, horizon)}
    for xs in product(every, repeat=n):
        x = choose(xs)
        found[x] = found.get(x, 0.0) + math.prod(every[y] for y in xs)
    return found


# -- confidences ----------------------------------------------------------------------------------


@pytest.mark.parametrize("measure", ["mean", "tail", "bottom", "lowest"])
@pytest.mark.parametrize(("window", "tail"), [(1, 1), (3, 5), (7, 40), (40, 40), (50, 60)])
def test_measures_are_those_of_the_definition(measure: str, window: int, tail: int) -> None:
    confidences = np.random.default_rng(window).exponential(size=40).tolist()
    trace = Trace(confidence=tuple(confidences))
    expected = confidence(measure, confidences, window, tail)
    assert trace.measured(measure, window, tail) == pytest.approx(expected, abs=1e-12)


def test_groups_since_a_position_are_those_that_end_after_it() -> None:
    confidences = np.random.default_rng(1).exponential(size=30).tolist()
    trace = Trace(confidence=tuple(confidences))
    every = groups(confidences, 8)
    assert trace.groups(8) == pytest.approx(every)
    for since in range(8, 30):
        assert trace.groups(8, since) == pytest.approx(every[since - 7 :])


def test_the_threshold_is_an_interpolated_percentile() -> None:
    assert threshold([1.0, 2.0, 3.0, 5.0], 0.5) == pytest.approx(2.5)
    assert threshold([5.0, 1.0, 2.0, 3.0], 0.1) == pytest.approx(4.4)
    assert threshold([4.0, 1.0], 1.0) == 1.0


# -- offline --------------------------------------------------------------------------------------


@pytest.mark.parametrize("measure", ["mean", "tail", "bottom", "lowest"])
@pytest.mark.parametrize(("n", "horizon"), [(3, 2), (2, 3)])
@pytest.mark.parametrize(("eta", "tau"), [(0.1, 1.0), (0.5, 0.6), (0.9, 1.0), (1.0, 1.0)])
def test_the_vote_of_the_confident_has_its_law(
    measure: str, eta: float, tau: float, n: int, horizon: int
) -> None:
    sampler = offline(measure=measure, eta=eta, temperature=tau, n=n, max_tokens=horizon)

    def choose(xs: tuple[Tokens, ...]) -> Tokens:
        scores = [confidence(measure, tokens_confidence(MODEL, x, 2), 2, 1) for x in xs]
        valid = [i for i, x in enumerate(xs) if last(x) is not None]
        if not valid:
            return elected(xs, scores, [])
        least = np.percentile([scores[i] for i in valid], 100 * (1 - eta))
        return elected(xs, scores, [i for i in valid if scores[i] >= least])

    found = chain_law(sampler, MODEL, asked(MODEL))
    assert total_variation(found, law_by(choose, n, horizon, tau)) < 1e-12


def test_the_laws_of_the_measures_differ() -> None:
    laws = [
        chain_law(
            offline(measure=measure, eta=0.1, window=1, n=2, max_tokens=3), MODEL, asked(MODEL)
        )
        for measure in ("mean", "tail", "lowest")
    ]
    assert all(total_variation(a, b) > 0.01 for i, a in enumerate(laws) for b in laws[:i])


def test_how_many_are_drawn_together_changes_nothing() -> None:
    def outcomes(together: int, width: int) -> list[Any]:
        sampler = offline(max_tokens=9, n=7, together=together)
        done = completed(sampler, TOY, width, context=asked(TOY))
        return [(each.outcome, each.cost.decoded) for _, each in sorted(done.items())]

    assert outcomes(1, 8) == outcomes(3, 1) == outcomes(3, 50) == outcomes(7, 3) == outcomes(20, 8)


# -- online ---------------------------------------------------------------------------------------


def stays(sampler: DeepConfOnline, xs: tuple[Tokens, ...]) -> tuple[int, float]:
    """Algorithm 2 for responses in full: how many are drawn before consensus, and the threshold."""
    lowest = [min(groups(tokens_confidence(MODEL, x, 2), sampler.window)) for x in xs]
    least = float(np.percentile(lowest[: sampler.warm_up], 100 * (1 - sampler.eta)))
    count = sampler.warm_up
    while count < sampler.n:
        votes: dict[str, float] = {}
        for x, score in zip(xs[:count], lowest[:count], strict=True):
            if score >= least and (answer := last(x)) is not None:
                votes[answer] = votes.get(answer, 0.0) + score
        if votes and max(votes.values()) >= sampler.consensus * sum(votes.values()):
            break
        count = min(count + sampler.together, sampler.n)
    return count, least


ONLINE = [
    online(),
    online(eta=0.9, consensus=0.6),
    online(window=2, interval=2, eta=0.1),
    online(max_tokens=4, n=2, warm_up=1, interval=2),
    online(max_tokens=4, n=2, warm_up=1, window=3),
    online(max_tokens=2, n=4, together=2, consensus=0.7),
    online(max_tokens=2, n=4, together=1, window=2, consensus=1.0),
    online(max_tokens=2, n=4, together=3, warm_up=1, consensus=1.0, temperature=0.6),
]


@pytest.mark.parametrize("sampler", ONLINE, ids=range(len(ONLINE)))
def test_stopping_changes_no_vote(sampler: DeepConfOnline) -> None:
    """The law is that of the same rule for responses that are all drawn in full."""

    def choose(xs: tuple[Tokens, ...]) -> Tokens:
        count, least = stays(sampler, xs)
        lowest = [min(groups(tokens_confidence(MODEL, x, 2), sampler.window)) for x in xs[:count]]
        voters = [i for i in range(count) if lowest[i] >= least and last(xs[i]) is not None]
        return elected(xs[:count], lowest, voters)

    found = chain_law(sampler, MODEL, asked(MODEL))
    expected = law_by(choose, sampler.n, sampler.max_tokens, sampler.temperature)
    assert total_variation(found, expected) < 1e-12


def drawn(sampler: Any) -> Generator[Request, Any, tuple[Tokens, ...]]:
    """What a chain has decoded of each of its responses."""
    chain, answer, decoded = sampler.chain(asked(MODEL)), None, dict[int, Tokens]()
    while True:
        try:
            request = chain.send(answer)
        except StopIteration:
            return tuple(decoded[i] for i in range(len(decoded)))
        answer = yield request
        if isinstance(request, Together):
            for each, draw in zip(request.requests, answer, strict=True):
                i = int(each.key[1])
                assert decoded.get(i, ()) == each.response
                decoded[i] = each.response + draw.tokens


@pytest.mark.parametrize("sampler", ONLINE, ids=range(len(ONLINE)))
def test_a_response_is_stopped_exactly_where_a_group_is_below_the_threshold(
    sampler: DeepConfOnline,
) -> None:
    """At the end of the request in which that is; above the threshold none is stopped."""
    stopped = 0.0
    for xs, chance in law(lambda: drawn(sampler), MODEL).items():
        count, least = stays(sampler, xs)  # of a stopped response, its tokens up to there decide
        assert len(xs) == count
        for i, x in enumerate(xs):
            whole = x[-1] == 0 or len(x) == sampler.max_tokens
            confidences = tokens_confidence(MODEL, x, 2)
            looked = range(max(sampler.interval, sampler.window), len(x), sampler.interval)
            assert all(
                min(groups(confidences[:end], sampler.window)) >= least for end in looked
            ) or (i < sampler.warm_up)
            if not whole:
                assert i >= sampler.warm_up and len(x) >= sampler.window
                assert min(groups(confidences, sampler.window)) < least
                stopped += chance
    assert (stopped > 0.05) == (sampler.max_tokens > 2)  # in two tokens there is nothing to save


def test_it_decodes_less_than_offline() -> None:
    """In all, with the same seed; by how much, in expectation, on the toy model: exactly."""
    context = asked(TOY)
    settings = {"max_tokens": 30, "n": 8, "top_k_confidence": 5, "window": 3, "eta": 0.1}
    full = completed(offline(**settings, measure="lowest"), TOY, count=40, context=context)
    some = completed(
        online(**settings, warm_up=4, together=2, interval=2, consensus=1.0), TOY, 8, 40, context
    )
    cost = [sum(each.cost.decoded for each in done.values()) for done in (full, some)]
    assert cost[1] < 0.9 * cost[0]
    length = sum(probability(MODEL, x, 1.0) * len(x) for x in responses(MODEL, 3))
    expected = sum(
        chance * sum(map(len, xs)) for xs, chance in law(lambda: drawn(online()), MODEL).items()
    )
    assert 2 * length < expected < 3 * length


def test_the_trace_keeps_those_who_stayed_and_ends_with_the_vote() -> None:
    sampler = online(
        max_tokens=30, n=8, warm_up=4, together=3, interval=2, top_k_confidence=5, window=3
    )
    for each in completed(sampler, TOY, context=asked(TOY)).values():
        *waves, votes = each.outcome.rounds
        sizes = [len(wave.logp) for wave in waves]
        assert sizes in ([4], [4, 3], [4, 3, 1])
        stayed = [i + sum(sizes[:k]) for k, wave in enumerate(waves) for i in wave.kept]
        assert {i for i, w in enumerate(votes.weights) if w > 0} <= set(stayed)
        assert 0 < len(waves[0].kept) < 4
        assert [wave.block for wave in (*waves, votes)] == list(range(len(waves) + 1))
        assert votes.logp[votes.kept[0]] == pytest.approx(each.outcome.logp, abs=1e-3)


# -- both -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sampler", "saves"),
    [
        (offline(max_tokens=9, n=7), 4),
        (online(max_tokens=20, n=9, window=4, interval=3, eta=1.0), 8),
    ],
    ids=["offline", "online"],
)
def test_it_goes_on_from_every_saved_state(sampler: Any, saves: int) -> None:
    distinct = replace(context_of(TOY), answer=str)
    whole, again = resumed(sampler, TOY, distinct)
    assert len(again) == saves
    assert all(each == whole for each in again)


def test_outcomes_do_not_depend_on_the_width() -> None:
    sampler = online(max_tokens=20, n=8, warm_up=3, together=3, interval=2, window=3)
    found = [
        {
            k: (e.outcome, e.cost.decoded)
            for k, e in completed(sampler, TOY, w, context=asked(TOY)).items()
        }
        for w in (1, 3, 50)
    ]
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize(
    ("make", "settings", "said"),
    [
        (offline, {"n": 0}, "sampler.n must be an integer >= 1, got 0"),
        (
            offline,
            {"measure": "last"},
            "unknown sampler.measure 'last' (did you mean 'lowest'?); known: bottom, lowest",
        ),
        (offline, {"eta": 0.0}, "sampler.eta must be a number > 0 and <= 1, got 0.0"),
        (offline, {"window": 0}, "sampler.window must be an integer >= 1, got 0"),
        (offline, {"temperature": -1.0}, "sampler.temperature must be > 0"),
        (online, {"warm_up": 4}, "sampler.warm_up must be an integer >= 1 and <= 3, got 4"),
        (online, {"interval": 0}, "sampler.interval must be an integer >= 1, got 0"),
        (online, {"consensus": 1.1}, "sampler.consensus must be a number > 0 and <= 1, got 1.1"),
        (online, {"eta": 2}, "sampler.eta must be a number > 0 and <= 1, got 2"),
    ],
)
def test_impossible_settings_are_refused(make: Any, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as error:
        make(**settings)
    assert said in str(error.value)
