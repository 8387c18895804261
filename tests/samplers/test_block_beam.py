"""Block beam search: its exact law, written down a second time, and the samplers that it becomes.

Run: pytest tests/samplers/test_block_beam.py
"""

import math
from itertools import product
from typing import Any

import pytest
from toy_chains import ENDLESS, chain_law, completed, resumed

from powerbench.chains.law import loglikelihood, responses, total_variation
from powerbench.errors import UserError
from powerbench.models import TabularModel
from powerbench.samplers.base import Base
from powerbench.samplers.best_of_n import BestOfN
from powerbench.samplers.block_beam import BlockBeam
from powerbench.types import Tokens

MODEL = TabularModel(vocabulary=3, seed=2)
TOY = TabularModel(vocabulary=5)
SMALL = BlockBeam(12, candidates=6, beams=2, block=3)


def written(sampler: BlockBeam, model: TabularModel, steps: int) -> dict[Tokens, float]:
    """The law: all outcomes of all draws of a block, block after block. Ties have no chance on this model."""

    def score(x: Tokens) -> float:
        return loglikelihood(model, x) / len(x)

    now: dict[tuple[Tokens, ...], float] = {((),): 1.0}
    for step in range(steps):
        until, after = (step + 1) * sampler.block, dict[tuple[Tokens, ...], float]()
        for beams, reached in now.items():
            over = {x for x in beams if x and x[-1] == 0}
            copies = sampler.candidates // (sampler.beams if step else 1)
            slots = [x for x in beams if x not in over for _ in range(copies)]
            for drawn in product(*(list(responses(model, until, x)) for x in slots)):
                chance = reached * math.exp(
                    sum(
                        loglikelihood(model, y) - loglikelihood(model, x)
                        for x, y in zip(slots, drawn, strict=True)
                    )
                )
                best = tuple(sorted({*drawn, *over}, key=score, reverse=True)[: sampler.beams])
                after[best] = after.get(best, 0.0) + chance
        now = after
    found: dict[Tokens, float] = {}
    for beams, chance in now.items():
        found[beams[0]] = found.get(beams[0], 0.0) + chance
    return found


@pytest.mark.parametrize(
    ("candidates", "beams", "block", "steps"),
    [(2, 1, 1, 3), (2, 2, 1, 3), (4, 2, 1, 2), (2, 1, 2, 2)],
)
def test_the_sampler_has_the_law_that_is_written_down(
    candidates: int, beams: int, block: int, steps: int
) -> None:
    sampler = BlockBeam(block * steps, candidates, beams, block)
    assert total_variation(chain_law(sampler, MODEL), written(sampler, MODEL, steps)) < 1e-12


def test_one_block_is_the_best_of_n() -> None:
    sampler = BlockBeam(2, candidates=3, beams=1, block=7)
    best = BestOfN(2, n=3, score="per_token")
    assert total_variation(chain_law(sampler, MODEL), chain_law(best, MODEL)) < 1e-12


def test_one_candidate_is_a_draw_from_the_model() -> None:
    sampler = BlockBeam(3, candidates=1, beams=1, block=2)
    assert total_variation(chain_law(sampler, MODEL), chain_law(Base(3), MODEL)) < 1e-12


def test_it_goes_on_from_every_saved_state() -> None:
    whole, again = resumed(SMALL, TOY)
    assert len(again) == 3  # none where nothing is left to do
    assert all(each == whole for each in again)
    assert [(r.block, r.start) for r in whole.rounds] == [(0, 0), (1, 3), (2, 6), (3, 9)]


def test_what_is_returned_has_the_best_score_of_the_last_round() -> None:
    for done in completed(SMALL, TOY).values():
        last = done.outcome.rounds[-1]
        assert last.weights[last.kept[0]] == max(last.weights)
        assert last.weights[last.kept[0]] == pytest.approx(
            done.outcome.logp / len(done.outcome.tokens), abs=1e-3
        )


def test_what_it_costs() -> None:
    """N blocks at a time, as long as nothing is finished and no two beams are equal."""
    (done,) = completed(SMALL, TOY, count=1, context=ENDLESS).values()
    assert done.cost.decoded == 6 * 12


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"beams": 3}, "sampler.beams=3 must divide sampler.candidates=16"),
        ({"block": 0}, "sampler.block must be an integer >= 1, got 0"),
        ({"candidates": 0}, "sampler.candidates must be an integer >= 1, got 0"),
        ({"temperature": 0.0}, "sampler.temperature must be > 0, got 0.0"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        BlockBeam(16, **settings)
