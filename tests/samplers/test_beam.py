"""Beam search: exact where it is wide enough, greedy where it is narrow.

Run: pytest tests/samplers/test_beam.py
"""

from typing import Any

import pytest
from toy_chains import ENDLESS, chain_law, completed, resumed

from powerbench.chains.law import loglikelihood, responses
from powerbench.errors import UserError
from powerbench.models import TabularModel
from powerbench.samplers import beam
from powerbench.samplers.beam import Beam
from powerbench.samplers.greedy import Greedy
from powerbench.types import Tokens

MODELS = [TabularModel(vocabulary=3, seed=seed) for seed in range(12)]


def found(sampler: Any, model: TabularModel) -> Tokens:
    ((x, chance),) = chain_law(sampler, model).items()
    assert chance == 1
    return x


@pytest.mark.parametrize("penalty", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("model", MODELS, ids=lambda m: f"model{m.seed}")
def test_a_wide_beam_finds_the_exact_argmax(model: TabularModel, penalty: float) -> None:
    """Among all responses of up to 5 tokens, those that the horizon cuts included."""
    best = max(responses(model, 5), key=lambda x: loglikelihood(model, x) / len(x) ** penalty)
    assert found(Beam(5, width=63, length_penalty=penalty), model) == best


@pytest.mark.parametrize("model", MODELS, ids=lambda m: f"model{m.seed}")
def test_a_beam_of_one_is_greedy(model: TabularModel) -> None:
    assert found(Beam(6, width=1), model) == found(Greedy(6), model)


def searched(model: TabularModel, horizon: int, width: int, penalty: float) -> Tokens:
    """The definition, with all prefixes scored anew from the table at each length, and nothing ended early."""
    beams: list[Tokens] = [()]
    for length in range(1, horizon + 1):
        longer = [y for x in beams for y in responses(model, length, x)]
        beams = sorted(longer, key=lambda y: -loglikelihood(model, y) / len(y) ** penalty)[:width]
    return beams[0]


@pytest.mark.parametrize("penalty", [0.0, 0.7])
@pytest.mark.parametrize("width", [2, 3])
def test_a_narrow_beam_finds_what_the_definition_does(width: int, penalty: float) -> None:
    for model in MODELS:
        assert found(Beam(6, width, penalty), model) == searched(model, 6, width, penalty)


def test_some_narrow_beam_is_worse_than_a_wider_one() -> None:
    def best(width: int) -> list[float]:
        return [loglikelihood(model, found(Beam(5, width), model)) for model in MODELS]

    assert any(one < two for one, two in zip(best(1), best(2), strict=True))
    assert all(one <= two for one, two in zip(best(1), best(63), strict=True))


def test_it_goes_on_from_every_saved_state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beam, "SAVED_EVERY", 3)
    whole, again = resumed(Beam(10, width=3), TabularModel(vocabulary=5))
    assert len(again) == 3
    assert all(each == whole for each in again)


def test_it_costs_its_width_for_each_token() -> None:
    toy = TabularModel(vocabulary=5)
    done = completed(Beam(8, width=3), toy, count=2, context=ENDLESS)
    assert {each.cost.decoded for each in done.values()} == {1 + 7 * 3}
    (one, other) = (each.outcome for each in done.values())
    assert one == other  # nothing is random
    assert {k: e.outcome for k, e in completed(Beam(8, 3), toy, 1, 2, ENDLESS).items()} == {
        k: e.outcome for k, e in done.items()
    }


def test_the_outcome_has_the_entropy_and_the_end_of_its_positions() -> None:
    for model in MODELS:
        ((_, done),) = completed(Beam(5, width=1), model, count=1).items()
        ((_, greedy),) = completed(Greedy(5), model, count=1).items()
        assert done.outcome.entropy == pytest.approx(greedy.outcome.entropy)
        assert done.outcome.logp == pytest.approx(greedy.outcome.logp)
        assert done.outcome.finish_reason == greedy.outcome.finish_reason


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"width": 0}, "sampler.width must be an integer >= 1, got 0"),
        ({"length_penalty": -1.0}, "sampler.length_penalty must be >= 0 and <= 10, got -1.0"),
        ({"max_tokens": 0}, "sampler.max_tokens must be an integer >= 1"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as error:
        Beam(**{"max_tokens": 4, **settings})
    assert said in str(error.value)
