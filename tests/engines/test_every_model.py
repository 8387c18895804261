"""Every causal LM of the library, as a tiny random model: driven right, or refused in one line.

Run: pytest tests/engines/test_every_model.py
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from every_model import EVERY, CannotTryError, OneModel, Outcome, listed, outcome
from tiny import TinyModel, models
from transformers import (
    AutoModelForCausalLM,
    FalconConfig,
    Llama4TextConfig,
    LlamaConfig,
    PhimoeConfig,
    PretrainedConfig,
    __version__,
)

from powerbench.engines.hf import HFEngine, decode_cpu
from powerbench.engines.hf.architecture import require_drivable
from powerbench.engines.hf.attention import ATTENTION
from powerbench.errors import UserError
from powerbench.models import HubModel

NOT_DRIVEN = {
    *("codegen", "xglm", "gpt_neox_japanese", "diffllama", "stablelm", "nemotron", "jetmoe", "mpt"),
    *("deepseek_v2", "deepseek_v3", "falcon", "gptj", "gpt_neo", "bloom", "gemma2", "gpt_oss"),
    *("llama4", "mamba", "qwen3_next"),
}
DRIVEN = {
    *("llama", "mistral", "qwen2", "qwen3", "phi3", "gemma", "gemma3_text", "gpt2", "gpt_neox"),
    *("mixtral", "qwen2_moe", "qwen3_moe", "olmoe", "granitemoe", "ernie4_5_moe", "minimax_m2"),
}
SHAPE: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "initializer_range": 0.2,
}


def tiny(config: PretrainedConfig, dtype: torch.dtype = torch.float32) -> OneModel:
    torch.manual_seed(0)
    lm = AutoModelForCausalLM.from_config(config, attn_implementation=ATTENTION)
    return OneModel(config.model_type, lm.to(dtype).eval())


def drive(model: OneModel) -> HFEngine:
    return HFEngine(model, 20, 20, 2, device="cpu")


@pytest.mark.parametrize("architecture", EVERY)
def test_driven_right_or_refused_in_one_line(architecture: str) -> None:
    try:
        result = outcome(architecture)
    except CannotTryError as error:
        pytest.skip(str(error))
    assert result.off < 1e-3
    assert "\n" not in result.refusal
    if __version__ == listed().version:
        kind = "driven" if result.driven else "refused"
        assert architecture in listed().names[kind], "write the list anew: see every_model.py"
    if architecture in DRIVEN | NOT_DRIVEN:
        assert result.driven == (architecture in DRIVEN), result.refusal


def test_the_list_names_every_architecture() -> None:
    if __version__ != listed().version:
        pytest.skip(f"the list is of transformers {listed().version}")
    assert sorted(name for names in listed().names.values() for name in names) == EVERY


def test_a_refusal_names_the_architecture_and_what_differs() -> None:
    assert outcome("xglm") == Outcome(
        False,
        "engine=hf cannot drive 'xglm', of the architecture xglm: attention was asked for by layers [] "
        "of 2, where each should ask once",
        0.0,
    )


def test_a_model_that_takes_no_attention_function_is_refused_in_one_line(tmp_path: Path) -> None:
    config = FalconConfig(
        vocab_size=300, hidden_size=64, num_hidden_layers=1, num_attention_heads=4
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    with pytest.raises(
        UserError, match="of the architecture falcon: it takes no attention function"
    ):
        HubModel(None, str(tmp_path)).load("cpu", ATTENTION)


@pytest.mark.parametrize(("window", "driven"), [(40, False), (64, True), (None, True)])
def test_a_window_that_is_not_handed_to_attention_is_found(
    window: int | None, driven: bool
) -> None:
    """PhiMoE masks, and says nothing to the attention function. As long as the context, it hides nothing."""
    experts = {"num_local_experts": 2, "num_experts_per_tok": 2}
    model = tiny(PhimoeConfig(**SHAPE, **experts, sliding_window=window))
    if driven:
        drive(model)
    else:
        with pytest.raises(UserError, match=r"log p is off by"):
            drive(model)
    assert model.lm.config.sliding_window == window


@pytest.mark.parametrize("tuned", [True, False])
def test_a_temperature_that_grows_far_beyond_the_check_is_found(tuned: bool) -> None:
    model = tiny(
        Llama4TextConfig(
            **SHAPE,
            head_dim=16,
            intermediate_size_mlp=64,
            num_local_experts=2,
            layer_types=["full_attention"] * 2,
            no_rope_layers=[0, 0],
            attn_temperature_tuning=tuned,
            floor_scale=40,
            attn_scale=1.0,
        )
    )
    if tuned:
        with pytest.raises(UserError, match=r"log p is off by"):
            drive(model)
    else:
        drive(model)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["llama", "qwen2", "phi3-window", "phi3-longrope"])
def test_rounding_is_not_taken_for_a_fault(name: str, dtype: torch.dtype) -> None:
    require_drivable(models(name, dtype)[0], name)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("what", ["scaling", "window", "key", "value"])
def test_attention_that_leaves_something_out_is_found(
    what: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = {"scaling": lambda x: 1.0, "window": lambda x: None}.get(what, lambda x: x.flip(0))
    good = decode_cpu.DecodeCPU.attend

    def attend(self: Any, inputs: Any) -> torch.Tensor:
        return good(self, inputs._replace(**{what: wrong(getattr(inputs, what))}))

    monkeypatch.setattr(decode_cpu.DecodeCPU, "attend", attend)
    with pytest.raises(UserError, match=r"'phi3-window', .* log p is off by"):
        HFEngine(TinyModel("phi3-window", dtype), 20, 20, 2)


def test_a_model_whose_weights_are_not_finite_is_left_to_the_one_line_about_them() -> None:
    model = tiny(LlamaConfig(**SHAPE))
    model.lm.get_output_embeddings().weight.data[7] = float("nan")
    drive(model)
