"""Tiny random models of each architecture, and the plain forward pass that engines must agree with."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, Phi3Config, PreTrainedModel, Qwen2Config

from powerbench.engines.base import Engine
from powerbench.engines.hf import HFEngine
from powerbench.engines.hf.attention import ATTENTION
from powerbench.engines.toy import ToyEngine
from powerbench.models import TabularModel
from powerbench.types import Draw, Extend, Tokens

VOCABULARY = 300
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "eos_token_id": 0,
    "bos_token_id": 0,
    "initializer_range": 0.2,  # so that next-token distributions are far from flat
}
SWITCH = 32
"""Where the longrope model's rotary factors change."""

CONFIGS = {
    "llama": lambda: LlamaConfig(**SHAPE),
    "qwen2": lambda: Qwen2Config(**SHAPE),
    "phi3": lambda: Phi3Config(**SHAPE, sliding_window=None),
    "phi3-window": lambda: Phi3Config(**SHAPE, sliding_window=6),
    "phi3-wide-window": lambda: Phi3Config(**SHAPE, sliding_window=2**18),
    "phi3-longrope": lambda: Phi3Config(
        **SHAPE,
        sliding_window=None,
        original_max_position_embeddings=SWITCH,
        rope_parameters={
            "rope_type": "longrope",
            "rope_theta": 10000.0,
            "short_factor": [1.0] * 8,
            "long_factor": [1.0 + i for i in range(8)],
            "original_max_position_embeddings": SWITCH,
        },
    ),
}


DEVICES = {"auto": "cpu"}
"""Where a model that is asked for on a device is put, if elsewhere."""


@dataclass(frozen=True)
class TinyModel:
    """As much of a model as HFEngine needs."""

    name: str
    dtype: torch.dtype = torch.float32

    def load(self, device: str, attention: str) -> PreTrainedModel:
        return models(self.name, self.dtype, DEVICES.get(device, device))[0]


@cache
def models(
    name: str, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> tuple[PreTrainedModel, PreTrainedModel]:
    """The model as powerbench attends, and the library's own in float32, with the same weights.

    As in a checkpoint that is loaded, the rotary frequencies are float32 whatever the weights are.
    """
    torch.manual_seed(0)
    config = CONFIGS[name]()
    plain = AutoModelForCausalLM.from_config(copy.deepcopy(config), attn_implementation="eager")
    ours = AutoModelForCausalLM.from_config(
        copy.deepcopy(config), attn_implementation=ATTENTION, dtype=dtype
    )
    ours.load_state_dict(plain.state_dict())
    return ours.to(device).eval(), plain.to(device).eval()


def plain_logp(name: str, tokens: Tokens, pad_to: int = 0) -> np.ndarray:
    """Next-token log-probabilities [N, V] of one plain forward pass over a sequence of N tokens.

    pad_to: lengthens the sequence first (what follows a token cannot change it, but for longrope).
    """
    padded = [*tokens, *[0] * (pad_to - len(tokens))]
    with torch.inference_mode():
        logits = models(name)[1](torch.tensor([padded])).logits[0]
    return logits[: len(tokens)].log_softmax(-1).double().numpy()


@dataclass(frozen=True)
class Subject:
    """An engine under test, and the distributions that it must draw from."""

    name: str
    vocabulary: int
    make: Callable[[int], Engine]
    """An engine of this width, for prompts of up to 40 tokens and responses of up to 40."""
    logp: Callable[[Tokens], np.ndarray]
    """Next-token log-probabilities [N, V] along a sequence of N tokens."""


def subject(name: str, device: str = "auto") -> Subject:
    if name == "toy":
        toy = TabularModel(vocabulary=12)
        return Subject(
            name,
            12,
            lambda width: ToyEngine(toy, max_num_seqs=width),
            lambda x: np.log([toy.p(x[: i + 1]) for i in range(len(x))]),
        )
    return Subject(
        name,
        VOCABULARY,
        lambda width: HFEngine(
            TinyModel(name),
            40,
            40,
            max_num_seqs=width,
            max_prefill_tokens=16,
            device=device,
            draft=0,
        ),
        lambda x: plain_logp(name, x),
    )


def run(
    engine: Engine, requests: dict[int, tuple[Tokens, Extend, np.ndarray]], most: int = 1000
) -> dict[int, Draw]:
    """Submit the requests by chain, and step until all are answered."""
    for chain, (prompt, request, uniforms) in requests.items():
        engine.submit(chain, prompt, request, uniforms)
    draws: dict[int, Draw] = {}
    for _ in range(most):
        for finished in engine.step():
            draws[finished.chain] = finished.draw
        if draws.keys() >= requests.keys():
            return draws
    raise AssertionError(f"unanswered after {most} steps: {requests.keys() - draws.keys()}")
