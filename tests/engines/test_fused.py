"""Modules in fewer operators: found by what they compute, equal to the library's, and no weight twice.

Run: pytest tests/engines/test_fused.py
"""

import copy
from collections import Counter

import pytest
import torch
from every_model import OneModel, tiny_config
from tiny import TinyModel
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.models.llama.modeling_llama import LlamaRMSNorm, apply_rotary_pos_emb

from powerbench.engines.hf import HFEngine, fusing
from powerbench.engines.hf.attention import ATTENTION
from powerbench.engines.hf.fused import FusedNorm, Replacement, rotate
from powerbench.engines.hf.fusing import Trial, fuse
from powerbench.engines.hf.plain_pass import plain_logp
from powerbench.engines.hf.projections import PackedLinear, can_pack, pack
from powerbench.engines.hf.self_check import self_check
from powerbench.errors import UserError

pytestmark = pytest.mark.skipif(not can_pack(), reason="this torch has no oneDNN")

TOKENS = torch.tensor([[5, 250, 17, 99, 3, 42, 180, 77, 120]])

ALL = ("FusedAttention", "FusedMLP", "FusedNorm")
REPLACED = {
    "llama": ALL,
    "mistral": ALL,
    "qwen2": ALL,
    "qwen3": ALL,
    "phi3": ("FusedAttention", "FusedNorm"),  # gate and up are one layer
    "gemma3_text": ("FusedAttention", "FusedNorm"),  # gelu
    "mixtral": ("FusedAttention", "FusedNorm"),
    "olmo2": ("FusedMLP", "FusedNorm"),  # a norm over all heads at once
    "glm": ("FusedNorm",),  # rotates half of each head, by pairs
    "starcoder2": ("FusedAttention",),  # LayerNorm, and no gate
    "gpt2": (),
}
"""By architecture, and what the others have of their own."""


def tiny(architecture: str, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    torch.manual_seed(0)
    config = tiny_config(architecture)
    lm = AutoModelForCausalLM.from_config(config, attn_implementation=ATTENTION).eval()
    for parameter in lm.parameters():
        parameter.data.normal_(std=parameter.shape[-1] ** -0.5 * 1.6)
    return lm.to(dtype)


@torch.inference_mode()
def logp(lm: PreTrainedModel) -> torch.Tensor:
    positions = torch.arange(TOKENS.shape[1])[None]
    options = {"position_ids": positions, "use_cache": False, "batch": Trial()}
    return lm(input_ids=TOKENS, **options).logits[0].float().log_softmax(-1)


def kinds(lm: PreTrainedModel) -> Counter[str]:
    return Counter(type(m).__name__ for m in lm.modules() if isinstance(m, Replacement))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("architecture", REPLACED)
def test_the_same_log_probabilities_as_the_plain_model(
    architecture: str, dtype: torch.dtype
) -> None:
    lm = tiny(architecture, dtype)
    plain = copy.deepcopy(lm)
    fuse(lm)
    pack(lm)
    assert sorted(kinds(lm)) == [*REPLACED[architecture]]
    off = (logp(lm) - logp(plain)).abs()
    assert off.max() < {torch.float32: 1e-4, torch.bfloat16: 0.5}[dtype]
    assert off.mean() < {torch.float32: 1e-5, torch.bfloat16: 0.05}[dtype]


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "phi3"])
def test_no_weight_exists_twice(architecture: str) -> None:
    lm = tiny(architecture)
    before = {p.numel() for p in lm.parameters() if p.dim() > 1}
    assert before
    count = sum(p.numel() for p in lm.parameters() if p.dim() > 1)
    fuse(lm)
    pack(lm)
    packed = {m for m in lm.modules() if isinstance(m, PackedLinear)}
    rest = sum(p.numel() for p in lm.parameters() if p.dim() > 1)
    assert sum(m.weight.numel() for m in packed) + rest == count


def test_what_was_replaced_is_not_replaced_again() -> None:
    lm = tiny("llama")
    fuse(lm)
    before = [*map(id, lm.modules())]
    fuse(lm)
    assert [*map(id, lm.modules())] == before


def test_a_plain_pass_is_the_librarys_own_so_that_a_fault_here_shows() -> None:
    lm = tiny("llama")
    engine = HFEngine(OneModel("llama", lm), 200, 40, 4, device="cpu", draft=0)
    self_check(engine)
    before = plain_logp(lm, TOKENS)
    norm = next(m for m in lm.modules() if isinstance(m, FusedNorm))
    norm.weight = 1.3 * norm.weight
    torch.testing.assert_close(plain_logp(lm, TOKENS), before, rtol=0, atol=0)
    with pytest.raises(UserError, match="differ from a plain pass"):
        self_check(engine)


@pytest.mark.parametrize("wrong", ["silu", "times"])
def test_a_replacement_that_gives_something_else_is_not_taken(
    wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PackedLinear, wrong, lambda self, x, *other: self.forward(x))
    lm = tiny("llama")
    fuse(lm)
    assert sorted(kinds(lm)) == ["FusedAttention", "FusedNorm"]


@pytest.mark.parametrize("architecture", ["gemma3_text", "llama"])
def test_weights_of_norms_are_read_rightly_however_large(architecture: str) -> None:
    """In bfloat16 1 + w is within rounding of w for w = 100, and wrong by 1% in each layer."""
    lm = tiny(architecture, torch.bfloat16)
    for name, parameter in lm.named_parameters():
        if "norm" in name:
            parameter.data.fill_(100.0)
    fuse(lm)
    norms = [m for m in lm.modules() if isinstance(m, FusedNorm)]
    assert norms
    expected = 101.0 if architecture == "gemma3_text" else 100.0
    assert all(torch.equal(m.weight, torch.full_like(m.weight, expected)) for m in norms)


def test_an_activation_that_is_like_silu_near_nothing_is_not_taken_for_it() -> None:
    lm = tiny("llama", torch.bfloat16)
    for layer in lm.model.layers:
        layer.mlp.act_fn = torch.nn.GELU()
        layer.mlp.gate_proj.weight.data.mul_(1e-3)
    fuse(lm)
    assert sorted(kinds(lm)) == ["FusedAttention", "FusedNorm"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tokens", [1, 32, 64, 500])
def test_a_norm_is_the_librarys_for_few_tokens_and_for_many(
    tokens: int, dtype: torch.dtype
) -> None:
    torch.manual_seed(tokens)
    plain = LlamaRMSNorm(576).to(dtype)
    plain.weight.data.normal_()
    x = torch.randn(1, tokens, 576).to(dtype)
    with torch.inference_mode():
        ours, theirs = FusedNorm(plain, plain.weight, 1e-6)(x), plain(x)
    limit = {torch.float32: 1e-6, torch.bfloat16: 2.0**-6}[dtype]
    torch.testing.assert_close(ours, theirs, rtol=limit, atol=limit)


@pytest.mark.parametrize("tokens", [1, 32, 64, 500])
def test_positions_rotate_as_the_librarys_do(tokens: int) -> None:
    torch.manual_seed(tokens)
    states, (cos, sin) = torch.randn(tokens, 12, 64), torch.randn(2, 1, tokens, 64)
    heads = states.transpose(0, 1)[None]
    theirs, _ = apply_rotary_pos_emb(heads, heads, cos, sin)
    rotate(states, cos, sin)
    torch.testing.assert_close(states, theirs[0].transpose(0, 1))


def test_an_engine_whose_modules_compute_something_else_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fusing, "_agrees", lambda way, call: True)
    with pytest.raises(UserError, match=r"off by .* from the library's own"):
        HFEngine(OneModel("gemma3_text", tiny("gemma3_text")), 20, 20, 2, device="cpu", draft=0)


def test_deterministic_mode_uses_them_too() -> None:
    engine = HFEngine(TinyModel("llama"), 20, 20, 2, deterministic=True, draft=0)
    assert sorted(kinds(engine.lm)) == [*ALL]
