"""Tiny random models of every causal LM of the library, and how the hf engine fares with each.

Run as a program, it writes the list in powerbench/engines/README.md anew.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from tiny import run
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel, __version__
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from powerbench.engines.hf import HFEngine
from powerbench.engines.hf.attention import ATTENTION
from powerbench.engines.hf.plain_pass import plain_logp
from powerbench.errors import UserError
from powerbench.types import Extend

README = Path(__file__).parents[2] / "powerbench" / "engines" / "README.md"

BLOCK = "<!-- architectures -->"
"""Stands before and after the list in the README."""

EVERY = sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)

VOCABULARY = 300

LARGEST = 20_000_000
"""Parameters; a configuration that stays larger is not tried."""

SMALL: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "vocab_size_per_layer_input": VOCABULARY,
    "hidden_size": 64,
    "hidden_size_per_layer_input": 16,
    "embedding_size": 64,
    "word_embed_proj_dim": 64,
    "intermediate_size": 64,
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 32,
    "ffn_dim": 64,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "dim_ff": 64,
    "num_attention_heads": 4,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 16,
    "v_head_dim": 16,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "max_position_embeddings": 512,
    "sliding_window": 6,
    "attention_chunk_size": 8,
    "floor_scale": 4,
    "pad_token_id": 0,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "is_decoder": True,
}
"""What fields are set to, where a configuration has them."""

OWN: dict[str, dict[str, Any]] = {
    "dots1": {"n_shared_experts": 1},
    "falcon": {"new_decoder_architecture": True},
    "gemma3n": {"num_kv_shared_layers": 2},
    "gemma3n_text": {"num_kv_shared_layers": 2},
    "gpt_neo": {"num_layers": 2, "attention_types": [[["global", "local"], 1]]},
    "zaya": {"num_experts_per_tok": 1},
}
"""What single architectures need besides."""


class CannotTryError(Exception):
    """A tiny model of this architecture could not be made; the reason."""


class Outcome(NamedTuple):
    """How the engine fared with an architecture."""

    driven: bool
    refusal: str
    """The one line of the refusal; empty if it was driven."""
    off: float
    """The largest difference of log p from the library's own pass."""


@dataclass(frozen=True)
class OneModel:
    """As much of a model as HFEngine needs."""

    name: str
    lm: PreTrainedModel

    def load(self, device: str, attention: str) -> PreTrainedModel:
        return self.lm


def outcome(architecture: str) -> Outcome:
    """Drive a tiny model: a prompt in pieces, a decode, a fork, two chains at once.

    Raises CannotTryError; AssertionError where the engine is silently wrong, and whatever it raises but
    for UserError.
    """
    config = tiny_config(architecture)
    _make(config, "eager", "meta")  # what fails here is the library's own
    try:
        lm = _make(config, ATTENTION, "cpu")
    except KeyError as error:
        if error.args == (ATTENTION,):
            return Outcome(False, "it takes no attention function", 0.0)
        raise
    try:
        engine = HFEngine(
            OneModel(architecture, lm), 40, 40, 4, max_prefill_tokens=16, device="cpu"
        )
    except UserError as error:
        return Outcome(False, str(error), 0.0)
    return Outcome(True, "", max(_differences(engine, lm)))


class Listed(NamedTuple):
    """What the README says of the architectures."""

    version: str
    """Of the library."""
    names: dict[str, list[str]]
    """driven, refused, untried"""


def listed() -> Listed:
    _, block, _ = README.read_text().split(BLOCK)
    lines = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line)
    names = {
        kind.split()[-1]: [n.strip("`, ") for n in all_.split(", ")] for kind, all_ in lines.items()
    }
    return Listed(block.split("transformers ")[1].split()[0], names)


def write_list() -> None:
    """Try every architecture, and write what became of it into the README."""
    names: dict[str, list[str]] = {"driven": [], "refused": [], "untried": []}
    for architecture in EVERY:
        try:
            kind = "driven" if outcome(architecture).driven else "refused"
        except CannotTryError as error:
            kind = "untried"
            print(f"{architecture}: {error}")
        names[kind].append(architecture)
    lines = [f"{len(n)} {kind}: " + ", ".join(f"`{a}`" for a in n) for kind, n in names.items()]
    head = f"As tiny random models, with transformers {__version__} (names are its `model_type`):"
    before, _, after = README.read_text().split(BLOCK)
    block = "\n\n".join(["", head, *lines, ""])
    README.write_text(f"{before}{BLOCK}{block}{BLOCK}{after}")


def tiny_config(architecture: str) -> PretrainedConfig:
    """The architecture's default configuration, made small field by field. Raises CannotTryError."""
    try:
        default = CONFIG_MAPPING[architecture]().get_text_config()
        settings = SMALL | _layers(default) | OWN.get(architecture, {})
        kind = type(default)
        known = {k: v for k, v in settings.items() if _settable(kind, k, default)}
        config = kind(**known)
        model = _make(config, "eager", "meta")
    except Exception as error:
        raise CannotTryError(f"{type(error).__name__}: {_first_line(error)}") from error
    size = sum(p.numel() for p in model.parameters())
    if size > LARGEST:
        raise CannotTryError(f"{size / 1e6:.0f} M parameters at its smallest")
    return config


def _make(config: PretrainedConfig, attention: str, device: str) -> PreTrainedModel:
    torch.manual_seed(0)
    with torch.device(device):
        lm = AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval()
        if device != "meta":  # so that attention matters, and positions differ
            for parameter in lm.parameters():
                if parameter.dim() > 1:
                    parameter.data.normal_(std=parameter.shape[-1] ** -0.5 * 1.6)
    return lm


def _layers(default: PretrainedConfig) -> dict[str, Any]:
    """Two layers, or one of each kind that the default has, if those are more."""
    kinds = getattr(default, "layer_types", None)
    if not isinstance(kinds, list) or not kinds:
        return {"num_hidden_layers": 2}
    distinct = [*dict.fromkeys(kinds)]
    layers = distinct * 2
    return {"num_hidden_layers": len(layers), "layer_types": layers}


def _settable(kind: type, name: str, default: PretrainedConfig) -> bool:
    attribute = getattr(kind, name, None)
    if isinstance(attribute, property):
        return attribute.fset is not None
    return attribute is not None or name in default.to_dict() or name in kind.attribute_map


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), "")[:100]


def _differences(engine: HFEngine, lm: PreTrainedModel) -> Iterator[float]:
    r = np.random.default_rng(1)
    prompts = {
        chain: tuple(r.integers(1, VOCABULARY, n).tolist()) for chain, n in enumerate((5, 23))
    }
    uniforms = {chain: r.random(12) for chain in prompts}
    ask = Extend(("first",), (), 0, 12, stop_tokens=())
    draws = run(engine, {chain: (x, ask, uniforms[chain]) for chain, x in prompts.items()})
    for chain, draw in draws.items():
        yield _off(lm, prompts[chain], draw.tokens, draw.logp)
    kept = draws[1].tokens[:6]
    fork = Extend(("fork",), draws[1].tokens, 6, 12, stop_tokens=())
    draw = run(engine, {1: (prompts[1], fork, uniforms[1][::-1].copy())})[1]
    yield _off(lm, prompts[1] + kept, draw.tokens, draw.logp)


def _off(
    lm: PreTrainedModel, before: tuple[int, ...], tokens: tuple[int, ...], logp: tuple[float, ...]
) -> float:
    plain = plain_logp(lm, torch.tensor([before + tokens]))[0].double()
    predicted = plain[len(before) - 1 : -1][range(len(tokens)), list(tokens)]
    return float((predicted - torch.tensor(logp, dtype=torch.float64)).abs().max())


if __name__ == "__main__":
    write_list()
