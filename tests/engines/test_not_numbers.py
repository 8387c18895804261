"""Logits that are no numbers (overflow in float16, spoilt weights): one line, whatever engine and sampler.

Run: pytest tests/engines/test_not_numbers.py
"""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from local_model import save
from test_all_samplers import SAMPLERS, small
from test_contract import PROMPT, SETTINGS
from tiny import TinyModel, models, run
from transformers import LlamaForCausalLM, PreTrainedModel

from powerbench.chains.law import context_of
from powerbench.chains.runner import ChainSpec, run_chains
from powerbench.cli import main
from powerbench.engines.base import Engine
from powerbench.engines.hf import HFEngine
from powerbench.engines.sampling import draw
from powerbench.engines.toy import ToyEngine
from powerbench.errors import UserError
from powerbench.models import TabularModel
from powerbench.models.token_logprobs import Text
from powerbench.rng import Stream
from powerbench.store import find_runs
from powerbench.types import Chain, Progress, SampleKey, Tokens

BAD = (math.nan, math.inf)
Spoil = Callable[[LlamaForCausalLM], None]


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("vocabulary", [5, 256, 300])
@pytest.mark.parametrize("tau", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("top_k", [0, 3])
@pytest.mark.parametrize("everywhere", [False, True])
def test_a_bad_row_says_nan_and_leaves_the_others_alone(
    bad: float, vocabulary: int, tau: float, top_k: int, everywhere: bool
) -> None:
    logits = torch.randn(3, vocabulary, generator=torch.Generator().manual_seed(0))
    settings = (
        torch.tensor([0.1, 0.6, 0.9]).double(),
        torch.full((3,), tau),
        torch.full((3,), top_k),
    )
    plain = draw(logits, *settings, top=2)
    logits[1, slice(None) if everywhere else 2] = bad
    drawn = draw(logits, *settings, top=2)
    assert drawn.logp[1].isnan()
    assert drawn.entropy[1].isnan()
    assert 0 <= int(drawn.token[1]) < vocabulary
    assert int(drawn.top.max()) < vocabulary
    for before, after in zip(plain, drawn, strict=True):
        assert torch.equal(before[[0, 2]], after[[0, 2]])


class Spoilt(TinyModel):
    """A tiny model whose every logit is NaN."""

    def load(self, device: str, attention: str) -> PreTrainedModel:
        lm: PreTrainedModel = models.__wrapped__(self.name, self.dtype, device)[0]
        torch.nn.init.constant_(lm.get_output_embeddings().weight, math.nan)
        return lm


def toy(after: int = 0) -> ToyEngine:
    """Its probabilities are NaN from a response of this length on."""

    def table(context: Tokens) -> list[float]:
        return [math.nan] * 5 if len(context) >= after else [0.0, 0.25, 0.25, 0.25, 0.25]

    return ToyEngine(TabularModel(vocabulary=5, table=table), max_num_seqs=4)


def hf(deterministic: bool = False) -> HFEngine:
    return HFEngine(Spoilt("llama"), 40, 40, 4, device="cpu", deterministic=deterministic)


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("make", [toy, hf, lambda: hf(True)])
def test_an_engine_ends_at_once_and_says_nan(make: Callable[[], Engine], setting: str) -> None:
    request = replace(SETTINGS[setting], top_logprobs=2)
    (found,) = run(make(), {0: (PROMPT, request, np.full(64, 0.5))}).values()
    assert len(found.tokens) == 1
    assert math.isnan(found.logp[0])
    assert math.isnan(found.entropy[0])


@pytest.mark.parametrize("after", [0, 4])
@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_is_stopped_by_one_line(name: str, after: int) -> None:
    engine, sampler = toy(after), small(name)
    context = context_of(engine.model)

    def begin(*state: Any) -> Chain:
        return sampler.chain(replace(context, answer=lambda tokens: "1"), *state)

    start = ChainSpec(SampleKey("p/7", 0), context.prompt, begin, Stream(0, "t", "p/7", 0))
    with pytest.raises(UserError, match=r"not numbers.* problem 'p/7': set model.dtype=float32"):
        list(run_chains([start], engine, Progress(), speculate=2))


def settings(folder: Path, *more: str) -> list[str]:
    return ["model=hf", f"model.id={folder}", *more]


def nan_head(lm: LlamaForCausalLM) -> None:
    torch.nn.init.constant_(lm.lm_head.weight, math.nan)


def overflow(lm: LlamaForCausalLM) -> None:
    """In float16, products of these are infinite."""
    torch.nn.init.constant_(lm.lm_head.weight, 6e4)


@pytest.mark.parametrize(
    ("spoil", "dtype"), [(nan_head, "float32"), (overflow, "float16")], ids=["nan", "overflow"]
)
@pytest.mark.parametrize("sampler", ["power", "power_smc", "beam"])
def test_a_run_ends_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], spoil: Spoil, dtype: str, sampler: str
) -> None:
    save(tmp_path / "m", spoil=spoil)
    small = [
        "task=math_mini",
        "task.stop_tokens=[]",
        "limit=2",
        "max_tokens=4",
        "blocks=2",
        "steps=1",
        "tracker=none",
    ]
    command = [*settings(tmp_path / "m", f"model.dtype={dtype}"), *small, f"sampler={sampler}"]
    with pytest.raises(SystemExit) as ended:
        main(["run", *command, f"runs={tmp_path / 'runs'}"])
    assert ended.value.code == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("powerbench: the model's logits are not numbers")
    assert "model.dtype=float32" in said


@pytest.mark.parametrize(
    ("spoil", "dtype"), [(nan_head, "float32"), (overflow, "float16")], ids=["nan", "overflow"]
)
def test_likelihoods_that_are_no_numbers_are_not_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], spoil: Spoil, dtype: str
) -> None:
    toy_run = ["model=toy", "engine=toy", "task=math_mini", "max_tokens=8", "tracker=none"]
    main(["run", *toy_run, "blocks=2", "limit=3", f"runs={tmp_path / 'runs'}"])
    save(tmp_path / "m", spoil=spoil)
    runs = str(tmp_path / "runs")
    with pytest.raises(SystemExit) as ended:
        main(["rescore-likelihood", runs, *settings(tmp_path / "m", f"model.dtype={dtype}")])
    assert ended.value.code == 2
    assert "not finite: set model.dtype=float32" in capsys.readouterr().err
    (made,) = find_runs([tmp_path / "runs"])
    assert list(made.likelihoods("m")) == []
    main(["report", runs])


def test_a_token_without_probability_has_a_finite_likelihood() -> None:
    model = TabularModel(vocabulary=3, table=lambda context: [0.5, 0.5, 0.0])
    (scored,) = model.scorer("cpu")([Text((1,), (1, 2))])
    assert scored.logp == pytest.approx((math.log(0.5), -1e4))
    assert scored.entropy == pytest.approx((math.log(2), math.log(2)))
