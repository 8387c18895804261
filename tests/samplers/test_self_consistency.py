"""Self-consistency: the vote's law, ties included, and which of the responses is returned.

Run: pytest tests/samplers/test_self_consistency.py
"""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
from toy_chains import chain_law, completed

from powerbench.chains.law import context_of, loglikelihood, responses, total_variation
from powerbench.chains.runner import run_one
from powerbench.engines.toy import ToyEngine
from powerbench.errors import UserError
from powerbench.models import TabularModel
from powerbench.rng import Stream
from powerbench.samplers.self_consistency import SelfConsistency
from powerbench.samplers.voting import tally, winner
from powerbench.types import Context, Tokens

MODEL = TabularModel(vocabulary=3, seed=4)
TOY = TabularModel(vocabulary=5)


def last(x: Tokens) -> str | None:
    """The last token before EOS; no answer where there is none."""
    return str(x[-1] if x[-1] else x[-2]) if x != (0,) else None


def asked(model: TabularModel) -> Context:
    return replace(context_of(model), answer=last)


def probability(model: TabularModel, x: Tokens, tau: float) -> float:
    rows = [model.p(x[:i]) ** (1 / tau) for i in range(len(x))]
    return math.prod(row[t] / row.sum() for row, t in zip(rows, x, strict=True))


def counts(n: int, kinds: int) -> Iterator[tuple[int, ...]]:
    if kinds == 1:
        yield (n,)
        return
    for first in range(n + 1):
        yield from ((first, *rest) for rest in counts(n - first, kinds - 1))


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_the_answers_law_is_that_of_a_plurality(n: int) -> None:
    """The multinomial, enumerated; of answers with as many votes, each is as likely to win as the others."""
    sampler = SelfConsistency(2, n=n, temperature=1.0)
    chances = Counter[str | None]()
    for x in responses(MODEL, 2):
        chances[last(x)] += math.exp(loglikelihood(MODEL, x))  # type: ignore[assignment]
    kinds = list(chances)
    expected = dict.fromkeys(kinds, 0.0)
    for each in counts(n, len(kinds)):
        mass = math.factorial(n) * math.prod(
            chances[kind] ** c / math.factorial(c) for kind, c in zip(kinds, each, strict=True)
        )
        votes = {kind: c for kind, c in zip(kinds, each, strict=True) if kind is not None and c}
        most = [kind for kind in votes if votes[kind] == max(votes.values())] or [None]
        for kind in most:
            expected[kind] += mass / len(most)
    found = dict.fromkeys(kinds, 0.0)
    for x, chance in chain_law(sampler, MODEL, asked(MODEL)).items():
        found[last(x)] += chance
    assert found == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_the_likeliest_response_that_gives_the_answer_is_returned(temperature: float) -> None:
    """All n-tuples of responses, ties shared evenly."""
    expected: dict[Tokens, float] = {}
    for xs in product(responses(MODEL, 2), repeat=3):
        mass = math.prod(probability(MODEL, x, temperature) for x in xs)
        votes = Counter(a for a in map(last, xs) if a is not None)
        most = [a for a in votes if votes[a] == max(votes.values())] or [None]
        for a in most:
            best = max((x for x in xs if last(x) == a), key=lambda x: loglikelihood(MODEL, x))
            expected[best] = expected.get(best, 0.0) + mass / len(most)
    found = chain_law(SelfConsistency(2, n=3, temperature=temperature), MODEL, asked(MODEL))
    assert total_variation(found, expected) < 1e-12


def test_as_n_grows_the_likeliest_answer_wins() -> None:
    """Here most responses give the answer that the likeliest response does not."""
    model = TabularModel(
        table=lambda x: [[0, 0.4, 0.6], [1, 0, 0], [0, 0.5, 0.5]][x[0] if len(x) == 1 else 0]
    )
    context = replace(context_of(model), answer=lambda x: "ab"[x[0] - 1])
    assert max(responses(model, 2), key=lambda x: loglikelihood(model, x)) == (1, 0)
    wins = [
        math.fsum(
            chance
            for x, chance in chain_law(
                SelfConsistency(2, n=n, temperature=1.0), model, context
            ).items()
            if x[0] == 2
        )
        for n in (1, 3, 5, 7)
    ]
    assert wins == sorted(wins)
    assert wins[0] == pytest.approx(0.6)


def test_ties_go_to_the_answer_given_first_and_no_answer_is_no_vote() -> None:
    assert winner(tally([None, "b", "a", "a", "b", None], [1.0] * 6)) == "b"
    assert winner(tally([None, None], [1.0, 1.0])) is None
    assert winner(tally(["a", "b", "b"], [3.0, 1.0, 1.0])) == "a"


def test_its_round_shows_the_votes() -> None:
    sampler = SelfConsistency(6, n=5)
    done = completed(sampler, TOY, context=asked(TOY))
    for each in done.values():
        (votes,) = each.outcome.rounds
        assert len(votes.logp) == len(votes.weights) == 5
        assert votes.logp[votes.kept[0]] == pytest.approx(each.outcome.logp, abs=1e-3)
        assert sum(votes.weights) in (pytest.approx(1, abs=1e-3), 0)
    for width in (1, 3, 50):
        other = completed(sampler, TOY, width, context=asked(TOY))
        assert {k: e.outcome for k, e in other.items()} == {k: e.outcome for k, e in done.items()}


def test_a_vote_without_answers_is_refused() -> None:
    with pytest.raises(UserError, match="a vote needs answers"):
        run_one(
            lambda: SelfConsistency(2).chain(context_of(TOY)),
            (),
            Stream(0, "t", "p", 0),
            ToyEngine(TOY),
        )


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"n": 0}, "sampler.n must be an integer >= 1, got 0"),
        ({"temperature": 0.0}, "sampler.temperature must be > 0"),
        ({"top_k": 0}, "sampler.top_k must be an integer >= 1"),
        ({"max_tokens": 0}, "sampler.max_tokens must be an integer >= 1"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as error:
        SelfConsistency(**{"max_tokens": 4, **settings})
    assert said in str(error.value)
