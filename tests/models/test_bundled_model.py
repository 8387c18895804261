"""The bundled language model for real: against the library's own generate, and through a whole run.

Run: pytest tests/models/test_bundled_model.py
"""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from powerbench.chains.runner import run_one
from powerbench.cli import main
from powerbench.config import compose
from powerbench.engines.hf import HFEngine
from powerbench.errors import UserError
from powerbench.models import HubModel
from powerbench.rng import Stream
from powerbench.samplers.greedy import Greedy
from powerbench.store import find_runs
from powerbench.types import Context, Prompt

MODEL: HubModel = compose(["model=smollm2-135m"]).build("model")
try:
    CODEC = MODEL.tokenizer()
except UserError as error:
    pytest.skip(f"no bundled model: {error}", allow_module_level=True)


def test_greedy_is_the_librarys_greedy() -> None:
    prompt = CODEC.encode(Prompt("Name the days of the week.", chat=True))
    plain = AutoModelForCausalLM.from_pretrained(MODEL.location, dtype=torch.float32)
    ids = torch.tensor([prompt])
    with torch.inference_mode():
        out = plain.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=16, do_sample=False
        )[0, len(prompt) :]
        logp = plain(torch.tensor([[*prompt, *out.tolist()]])).logits[0].log_softmax(-1)
    engine = HFEngine(MODEL, len(prompt), 16, max_num_seqs=2)
    chain = partial(Greedy(16).chain, Context(prompt, CODEC.eos, CODEC.stop_tokens))
    ours = run_one(chain, prompt, Stream(0, "t", "p", 0), engine)
    assert list(ours.tokens) == out.tolist()
    expected = sum(logp[len(prompt) - 1 + i, token].item() for i, token in enumerate(ours.tokens))
    assert ours.logp == pytest.approx(expected, abs=1e-3)


def test_the_chat_template_and_the_stop_token_are_the_models() -> None:
    turn = CODEC.tokenizer.decode(list(CODEC.encode(Prompt("Hi", chat=True))))
    assert turn.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")
    assert CODEC.stop_tokens == (CODEC.eos,) == (CODEC.token("<|im_end|>"),)
    with pytest.raises(UserError, match="tokens of 'smollm2-135m', not one"):
        CODEC.token("three whole words")


def test_a_model_of_the_hub_keeps_its_name_with_a_local_file() -> None:
    """Its kind and stop tokens too; the commit on the hub says nothing about a file."""
    file = str(MODEL.gguf)
    local = compose(["model=qwen2.5-coder-0.5b", f"model.id={file}"]).build("model")
    assert (local.name, local.kind) == ("qwen2.5-coder-0.5b", "instruct")
    assert local.identity() == {"dtype": "auto", "sha256": MODEL.identity()["sha256"]}
    tokenizer = local.tokenizer()
    ends = tokenizer.token("<|endoftext|>"), tokenizer.token("<|im_end|>")
    assert set(tokenizer.stop_tokens) == set(ends)


def test_a_line_ends_with_every_token_that_has_its_end() -> None:
    ends = CODEC.line_ends()
    assert {CODEC.token("\n"), CODEC.token("\n\n")} <= set(ends)
    vocabulary = range(len(CODEC.tokenizer))
    assert list(ends) == [i for i in vocabulary if "\n" in CODEC.decode([i])]


def test_a_small_run_raises_the_likelihood_from_base_to_low_temperature(tmp_path: Path) -> None:
    small = ["task=math_mini", "limit=3", "max_tokens=16", "blocks=2", "steps=2", "tracker=none"]
    main(["run", "-m", *small, "sampler=base,low_temp,power", f"runs={tmp_path}"])
    logp = {}
    for run in find_runs([tmp_path]):
        samples = run.samples().values()
        assert len(samples) == 3
        logp[run.config["sampler"]["name"]] = np.mean([s.logp / len(s.tokens) for s in samples])
        assert run.manifest["model"]["sha256"].startswith("b179c952")
    assert logp["base"] < logp["low_temp"]
