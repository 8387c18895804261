"""The arithmetic of a pass is what torch counts.

Run: pytest tests/models/test_flops.py
"""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config

from powerbench.config import compose
from powerbench.models import HubModel
from powerbench.models.flops import Size, contexts, flops

SMALL = {
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "vocab_size": 100,
}
CONFIGS = {
    "tied": LlamaConfig(**SMALL, tie_word_embeddings=True),
    "untied": Qwen2Config(**SMALL, tie_word_embeddings=False),
    "wide heads": LlamaConfig(**SMALL, head_dim=12, tie_word_embeddings=False),
}


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("tokens", [1, 17])
def test_a_pass_costs_what_torch_counts(
    name: str, tokens: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Torch counts every pair of positions; norms, biases and activations neither of us."""
    config = CONFIGS[name]
    lm = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    folder = tmp_path_factory.mktemp("model")
    config.save_pretrained(folder)
    size = HubModel("some", str(folder)).size()
    assert size.parameters == sum(p.numel() for p in lm.parameters())
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        lm(torch.zeros(1, tokens, dtype=torch.long))
    expected = counter.get_total_flops()
    ours = flops(size, tokens, tokens * tokens)
    assert ours == pytest.approx(expected, rel=0.02)  # biases and norms are parameters, too


def test_the_bundled_model_is_counted() -> None:
    size = compose(["model=smollm2-135m"]).build("model").size()
    assert size == Size(134_515_008, 134_515_008, 30, 576)


@pytest.mark.parametrize(("first", "tokens"), [(0, 0), (0, 1), (5, 1), (7, 4)])
def test_contexts_are_summed_token_by_token(first: int, tokens: int) -> None:
    assert contexts(first, tokens) == sum(first + i + 1 for i in range(tokens))
