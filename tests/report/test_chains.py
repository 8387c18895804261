"""What the steps of a run say: where they accept, how they climb, how replicates agree.

Run: pytest tests/report/test_chains.py
"""

from pathlib import Path

import pytest
from fabricate import sample, write_run

from powerbench.report.summary import Results
from powerbench.report.tables.chains import table
from powerbench.report.tables.table import text
from powerbench.stats.intervals import wilson
from powerbench.types import Step

SETTINGS = {"max_tokens": 20, "blocks": 2, "steps": 2}


def two_blocks(last: float, accepted: bool = True) -> tuple[Step, ...]:
    return (
        Step(0, 1, -9.0, -7.0, 3, accepted=True),  # tenth 1 of a horizon of 10
        Step(0, 9, -7.0, None, 0, accepted=False),  # past the end
        Step(1, 19, -12.0, last, 1, accepted),  # tenth 9 of a horizon of 20
        Step(1, 4, last if accepted else -12.0, None, 5, accepted=False),
    )


def test_acceptance_and_climb_by_hand(tmp_path: Path) -> None:
    samples = [
        sample("p0", steps=two_blocks(-10.0), logp=-10.0),
        sample("p1", steps=two_blocks(-20.0, accepted=False), logp=-12.0),
        sample("p1", 1),
    ]
    found = Results.read(write_run(tmp_path / "power-1", samples, settings=SETTINGS)).chains
    assert found is not None
    assert found.stayed == 2 / 8
    assert [(r.place, r.accepted, r.proposals) for r in found.by_block] == [(0, 1, 2), (1, 0.25, 4)]
    assert found.by_block[0].interval == pytest.approx(wilson(2, 2))
    assert [(r.place, r.accepted, r.proposals) for r in found.by_position] == [
        (1, 1, 2),
        (2, 0, 2),
        (9, 0.5, 2),
    ]
    # p0 gains 2 and 2 in its first block, 2 and 2 in its second; p1 2 and 2, then nothing.
    assert [e.mean for e in found.rise] == pytest.approx([0, 1.5, 1.5])
    assert found.rise[1].n == 2


def test_replicates_are_compared_where_they_have_one_target(tmp_path: Path) -> None:
    """R-hat is between the replicates that ended in the same block; the third ended elsewhere."""

    def in_block(block: int, *after: float) -> tuple[Step, ...]:
        states = (-9.0, *after)
        return tuple(Step(block, 0, states[i], states[i + 1], 2, True) for i in range(len(after)))

    samples = [
        sample("p0", 0, steps=in_block(1, -4, -5, -4, -5), logp=-5.0),
        sample("p0", 1, steps=in_block(1, -5, -4, -5, -4), logp=-4.0),
        sample("p0", 2, steps=in_block(0, -90, -80, -91, -81), logp=-81.0),
        sample("p1", 0, steps=in_block(1, -4, -5, -4, -5), logp=-5.0),
        sample("p1", 1, steps=in_block(1, -14, -15, -14, -15), logp=-15.0),
    ]
    results = Results.read(write_run(tmp_path / "power-1", samples, settings=SETTINGS))
    found = results.chains
    assert found is not None
    assert (found.compared, found.disagree) == (2, 0.5)
    (row,) = table([results]).rows
    assert text(row[9]).endswith("(50% of 2)")


def test_a_run_without_steps_has_no_chains(tmp_path: Path) -> None:
    assert Results.read(write_run(tmp_path / "base-1", [sample()])).chains is None
