"""Responses under another model: as its plain forward pass has them, in any batch, and resumed.

Run: pytest tests/run/test_likelihood.py
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import CONFIGS, VOCABULARY
from transformers import AutoModelForCausalLM

from powerbench.cli import main
from powerbench.config import compose
from powerbench.errors import UserError
from powerbench.models import TabularModel
from powerbench.models.token_logprobs import Text, score_texts
from powerbench.run.likelihood import rescore
from powerbench.store import Run, find_runs

TOY = ("model=toy", "engine=toy", "task=math_mini", "max_tokens=8", "blocks=2", "tracker=none")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    main(["run", *TOY, "limit=4", "replicates=2", f"runs={tmp_path}"])
    (run,) = find_runs([tmp_path])
    return run


def texts(lengths: list[tuple[int, int]]) -> list[Text]:
    rng = np.random.default_rng(3)
    return [
        Text(*(tuple(rng.integers(1, VOCABULARY, n).tolist()) for n in each)) for each in lengths
    ]


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "phi3", "phi3-window"])
def test_a_padded_batch_is_the_plain_pass(
    architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("powerbench.models.token_logprobs.CHUNK", 5)
    torch.manual_seed(0)
    lm = AutoModelForCausalLM.from_config(CONFIGS[architecture]()).eval()
    some = texts([(7, 20), (1, 1), (12, 0), (3, 31), (25, 4)])
    for text, scored in zip(some, score_texts(lm, some), strict=True):
        ids = torch.tensor([text.prompt + text.response])
        with torch.inference_mode():
            logp = lm(ids).logits[0].double().log_softmax(-1)
        place = range(len(text.prompt) - 1, len(ids[0]) - 1)
        expected = [float(logp[i, ids[0, i + 1]]) for i in place]
        entropy = [float(-(logp[i].exp() * logp[i]).sum()) for i in place]
        assert scored.logp == pytest.approx(expected, abs=1e-4)
        assert scored.entropy == pytest.approx(entropy, abs=1e-4)


def test_a_runs_own_model_says_what_the_run_says(run: Run) -> None:
    model = compose(["model=toy"]).build("model")
    assert rescore(run, model, 64, "cpu") == 8
    found = {(f.problem, f.replicate): f for f in run.likelihoods("toy")}
    for key, sample in run.samples().items():
        assert not found[key].retokenised
        assert len(found[key].logp) == len(sample.tokens)
        assert sum(found[key].logp) == pytest.approx(sample.logp)
        assert sum(found[key].entropy) == pytest.approx(sample.entropy)


def test_only_what_is_missing_is_scored(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["rescore-likelihood", str(run.path), "model=toy", "model.seed=5", "model.name=other"]
    main(command)
    file = run.likelihoods_file("other")
    whole = file.read_bytes()
    file.write_bytes(b"".join(whole.splitlines(keepends=True)[:3]) + b'{"problem": "to')  # killed
    capsys.readouterr()
    main(command)
    assert "5 responses scored" in capsys.readouterr().out
    assert sorted(file.read_bytes().splitlines()) == sorted(whole.splitlines())
    assert len(list(run.likelihoods("other"))) == 8
    main(command)
    assert "0 responses scored" in capsys.readouterr().out


def test_what_cannot_be_scored_is_named(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    for words, said in (
        (["--batch", "0", "model=toy"], "--batch must be an integer >= 1"),
        ([], "name the model to score with"),
        (["model=toyy"], "unknown model 'toyy'"),
    ):
        with pytest.raises(SystemExit) as stopped:
            main(["rescore-likelihood", str(run.path), *words])
        assert stopped.value.code == 2
        assert said in capsys.readouterr().err
    model = TabularModel(vocabulary=8, context_length=3)
    with pytest.raises(UserError, match=r"more than the context of toy holds \(3\)"):
        rescore(run, model, 64, "cpu")


@pytest.mark.model
def test_the_bundled_model_agrees_with_the_engine(tmp_path: Path) -> None:
    settings = ["task=math_mini", "sampler=low_temp", "limit=3", "max_tokens=24", "tracker=none"]
    main(["run", *settings, f"runs={tmp_path}"])
    (run,) = find_runs([tmp_path])
    model = compose(["model=smollm2-135m"]).build("model")
    assert rescore(run, model, 300, "cpu") == 3
    for found in run.likelihoods("smollm2-135m"):
        sample = run.samples()[found.problem, found.replicate]
        assert sum(found.logp) == pytest.approx(sample.logp, abs=2e-3)
        assert sum(found.entropy) == pytest.approx(sample.entropy, abs=2e-3)
