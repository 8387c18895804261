"""The output matrix in float32: which models get it, and what it changes.

Run: pytest tests/models/test_float32_head.py
"""

import copy
from collections.abc import Callable

import mm_reference  # noqa: F401  (registers itself)
import pytest
import torch
from tiny import CONFIGS, SHAPE
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    Gemma3TextConfig,
    GPT2Config,
    GraniteConfig,
    PhiConfig,
    PretrainedConfig,
    PreTrainedModel,
    Qwen2Config,
)

from powerbench.models.float32_head import Float32Head, keep_float32

CUDA = torch.device("cuda", 0)

PLAIN: dict[str, Callable[[], PretrainedConfig]] = {
    **{name: CONFIGS[name] for name in ("llama", "qwen2", "phi3")},
    "tied": lambda: Qwen2Config(**SHAPE, tie_word_embeddings=True),
    "gpt2": lambda: GPT2Config(vocab_size=300, n_embd=64, n_layer=2, n_head=4),
    "granite": lambda: GraniteConfig(**SHAPE, logits_scaling=0.125),
    "cohere": lambda: CohereConfig(**SHAPE, logit_scale=4.0),
    "gemma3": lambda: Gemma3TextConfig(**SHAPE, head_dim=16, final_logit_softcapping=5.0),
}


def made(config: PretrainedConfig, dtype: torch.dtype = torch.bfloat16) -> PreTrainedModel:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, dtype=dtype).eval()


def logits(lm: PreTrainedModel) -> torch.Tensor:
    with torch.inference_mode():
        return lm(input_ids=torch.arange(40)[None] + 5, use_cache=False).logits[0]


@pytest.mark.parametrize("name", PLAIN)
def test_logits_are_the_models_own_without_their_last_rounding(name: str) -> None:
    lm = made(PLAIN[name]())
    exact = copy.deepcopy(lm)
    head = exact.get_output_embeddings()
    head.register_forward_hook(
        lambda module, given, out: given[0].double() @ head.weight.double().T
    )
    rounded, expected = logits(lm), logits(exact)
    assert keep_float32(lm, CUDA)
    assert keep_float32(lm, CUDA)  # once is enough
    ours = logits(lm)
    assert isinstance(lm.get_output_embeddings(), Float32Head)
    assert ours.dtype == torch.float32
    error, before = ((x.double() - expected).abs().max() for x in (ours, rounded))
    assert error < 1e-2 * before
    weights = lm.get_input_embeddings().weight is lm.get_output_embeddings().weight
    assert weights == (exact.get_input_embeddings().weight is head.weight)


@pytest.mark.parametrize(
    ("config", "dtype", "device"),
    [
        (PhiConfig(**SHAPE), torch.bfloat16, CUDA),  # a bias
        (CONFIGS["llama"](), torch.float32, CUDA),
        (CONFIGS["llama"](), torch.bfloat16, torch.device("cpu")),
        (CONFIGS["llama"](), torch.bfloat16, torch.device("mps")),
    ],
)
def test_other_models_stay_as_they_are(
    config: PretrainedConfig, dtype: torch.dtype, device: torch.device
) -> None:
    lm = made(config, dtype)
    before = logits(lm)
    assert not keep_float32(lm, device)
    assert type(lm.get_output_embeddings()) is nn.Linear
    assert torch.equal(logits(lm), before)


@pytest.mark.parametrize("fault", ["absent", "wrong"])
def test_a_torch_without_the_product_or_with_a_wrong_one_goes_without(
    fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forward(self: Float32Head, x: torch.Tensor) -> torch.Tensor:
        if fault == "absent":
            raise TypeError("mm() got an unexpected keyword argument 'out_dtype'")
        return x.float() @ self.weight.float().T + 1.0

    monkeypatch.setattr(Float32Head, "forward", forward)
    lm = made(CONFIGS["llama"]())
    assert not keep_float32(lm, CUDA)
    assert type(lm.get_output_embeddings()) is nn.Linear
