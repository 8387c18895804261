"""What the benchmarks compute; how fast anything is, they say themselves.

Run: pytest tests/test_bench.py
"""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from powerbench.bench import gpu, storing
from powerbench.bench.rounds import Rate, interleave
from powerbench.store.verify import verify


def test_ratios_are_taken_within_a_round() -> None:
    rates = iter([10.0, 30.0, 1.0, 4.0, 100.0, 200.0])
    measured = interleave({"base": lambda: next(rates), "ours": lambda: next(rates)}, repeats=3)
    assert measured["base"] == Rate("base", [10.0, 1.0, 100.0])
    assert measured["ours"].over(measured["base"]) == 3.0
    assert measured["ours"].median == 30.0


def test_a_step_reads_weights_once_and_every_chains_cache() -> None:
    lm = gpu.RandomModel("tiny", torch.bfloat16).load("cpu", "sdpa")
    once = gpu.step_bytes(lm, chains=0, length=100)
    table = 1024 * 128
    assert once == 2 * (sum(p.numel() for p in lm.parameters()) - table)
    keys_and_values = 2 * 2 * 2 * 32 * 2  # layers, heads, dim, two of them, two bytes
    assert gpu.step_bytes(lm, chains=3, length=100) == once + 300 * keys_and_values


def test_the_run_folder_that_is_made_up_is_sound(tmp_path: Path) -> None:
    run = storing.fabricate(tmp_path / "run", samples=700, tokens=20)
    health = verify(run)
    assert (health.samples, health.scores, health.found) == (700, 700, ())
    assert len(run.keys()) == 700
    assert storing.opening(run) > 0 and storing.plain_read(run) > 0


def test_decoding_is_measured_on_a_tiny_shape_with_prompts_computed_before() -> None:
    one, three = gpu.rows("tiny", "cpu", chains=(1, 3), length=80, tokens=8)
    assert (one["chains"], three["chains"]) == (1, 3)
    for row in (one, three):
        assert row["tokens_per_second"] > 0
        assert row["of_roofline"] == row["tokens_per_second"] / row["roofline_tokens_per_second"]
        assert 60 < row["length"] < 100  # no chain is ahead, or over


def test_phis_shape_has_its_number_of_parameters() -> None:
    with torch.device("meta"):
        phi = AutoModelForCausalLM.from_config(gpu.config_of("phi-3.5-mini"))
    assert sum(p.numel() for p in phi.parameters()) == pytest.approx(3.82e9, rel=1e-2)
