"""What a run cost: arithmetic, the time of its devices, and what was thrown away.

Run: pytest tests/report/test_cost.py
"""

from pathlib import Path

import pytest
from fabricate import sample, summarise, write_run

from powerbench.models.flops import Size, flops
from powerbench.report.tables.lengths import table as lengths_table
from powerbench.report.tables.results import cost
from powerbench.report.tables.table import text
from powerbench.report.tables.training import table as training
from powerbench.store.shard import Shard
from powerbench.store.writing import sample_writer
from powerbench.types import Cost, Step

SIZE = Size(1000, 900, 2, 8)
MADE_BY = {"model": {"size": SIZE._asdict()}, "hardware": {"accelerators": ["A"]}}


def test_every_decoded_and_prefilled_token_is_counted_at_its_place(tmp_path: Path) -> None:
    """A prompt of 7 that is computed, 5 tokens drafted, and 2 proposed after 3 of the response."""
    steps = (Step(0, 3, -3.0, -4.0, 2, False), Step(0, 5, -3.0, None, 0, False))
    contexts = sum(range(1, 8)) + sum(7 + i for i in range(1, 6)) + sum(10 + i for i in (1, 2))
    paid = Cost(decoded=7, prefilled=7, seconds=1, finished=9, attended=contexts)
    one = sample(length=5, steps=steps, cost=paid)
    found = summarise(write_run(tmp_path / "power-1", [one], manifest=MADE_BY))
    assert found.flops == flops(SIZE, 14, contexts)
    assert summarise(write_run(tmp_path / "power-2", [one])).flops is None


def test_rejected_drafts_are_computed_too(tmp_path: Path) -> None:
    """3 passes that drafted 6 tokens: 5 of the 9 rows are the response."""
    paid = Cost(decoded=5, prefilled=0, seconds=1, finished=9, attended=99.0, passes=3, rows=9)
    one = sample(length=5, cost=paid)
    found = summarise(write_run(tmp_path / "power-1", [one], manifest=MADE_BY))
    assert found.flops == flops(SIZE, 9, 99.0)
    assert (found.passes, found.passes_per_token, found.rows) == (3, 3 / 5, 9)
    (row,) = cost([found]).rows
    assert row[6:9] == (5, 3, 9)


def test_gpu_hours_are_those_of_every_shard(tmp_path: Path) -> None:
    """Two shards at the same time are two GPUs; a model over four of them is four."""
    name, engine = tmp_path / "power-1", {"tensor_parallel_size": 4}
    run = write_run(name, [], manifest=MADE_BY, engine=engine, problems=["p1", "p2"])
    for i in (1, 2):
        with sample_writer(run, Shard.parse(f"{i}/2")) as writing:
            writing.write(sample(f"p{i}", cost=Cost(4, 7, 1800.0, 5000.0, 0.0)))
    found = summarise(run)
    assert found.seconds == pytest.approx(1800)
    assert found.gpu_hours == pytest.approx(4.0)


def test_a_cpu_has_no_gpu_hours(tmp_path: Path) -> None:
    assert summarise(write_run(tmp_path / "a-1", [sample()])).gpu_hours is None
    run = write_run(tmp_path / "b-1", [sample()], manifest=MADE_BY, engine={"device": "cpu"})
    assert summarise(run).gpu_hours is None


def test_what_was_decoded_ahead_is_shown(tmp_path: Path) -> None:
    one = sample(cost=Cost(40, 7, 1.0, 9.0, 0.0, speculated=11))
    (row,) = cost([summarise(write_run(tmp_path / "power-1", [one]))]).rows
    assert row[6:11] == (40, 40, 40, 11, 7)


def test_lengths_are_set_beside_the_papers(tmp_path: Path) -> None:
    settings = {"max_tokens": 3072, "blocks": 16, "steps": 10}
    samples = [sample(f"p{i}", length=669 + i % 21, cost=Cost(6000, 7, 1, 9, 0)) for i in range(42)]
    run = write_run(tmp_path / "power-1", samples, model="qwen2.5-math-7b", settings=settings)
    (row,) = lengths_table([summarise(run)]).rows
    assert text(row[3], ",.1f").startswith("679.0 [")
    assert (row[4], row[5]) == (679, "inside")
    assert row[7] == pytest.approx(8.84, abs=0.005)  # the paper's own figure
    assert row[8] == pytest.approx(6000 / 679 / 8.84, abs=0.001)


def test_a_run_is_set_beside_an_epoch_of_grpo(tmp_path: Path) -> None:
    """The paper's own numbers: 8.84 tokens decoded a token are about an epoch of 8 rollouts."""
    samples = [sample(f"p{i}", length=100, cost=Cost(884, 7, 1, 9, 0)) for i in range(500)]
    run = summarise(write_run(tmp_path / "power-1", samples))
    plain = summarise(write_run(tmp_path / "base-1", [sample()]))
    (row,) = training([run, plain]).rows
    assert row[2] == "power" and row[3] == pytest.approx(8.84)
    assert row[4] == pytest.approx(1.105) and row[5] == pytest.approx(0.5525)
    assert row[6] == pytest.approx(500 * 8.84 / (7500 * 16))
