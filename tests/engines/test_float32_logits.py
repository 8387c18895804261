"""On CUDA a bfloat16 model decodes with float32 logits, in graphs and step by step.

Run: pytest tests/engines/test_float32_logits.py
"""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from tiny import CONFIGS, DEVICES, run
from transformers import AutoModelForCausalLM, PreTrainedModel

from powerbench.engines.hf import HFEngine
from powerbench.engines.hf.plain_pass import plain_attention
from powerbench.models.float32_head import Float32Head
from powerbench.types import Extend

EXTEND = Extend(("draw",), response=(), keep=0, until=30, stop_tokens=(), tau=0.5)


@dataclass(frozen=True)
class Fresh:
    """A tiny model that no other engine has packed."""

    name: str

    def load(self, device: str, attention: str) -> PreTrainedModel:
        torch.manual_seed(0)
        lm = AutoModelForCausalLM.from_config(
            CONFIGS[self.name](), attn_implementation=attention, dtype=torch.bfloat16
        )
        return lm.to(DEVICES.get(device, device)).eval()


@pytest.mark.parametrize("graphs", [True, False])
def test_log_probabilities_are_of_unrounded_logits(graphs: bool, cuda: str) -> None:
    engine = HFEngine(Fresh("qwen2"), 40, 40, 4, device="cuda", graphs=graphs)  # type: ignore[arg-type]
    assert isinstance(engine.lm.get_output_embeddings(), Float32Head)
    prompt, u = (5, 6, 7, 8), np.random.default_rng(0).random(40)
    drawn = run(engine, {0: (prompt, EXTEND, u)})[0]
    x = torch.tensor([prompt + drawn.tokens], device=next(engine.lm.parameters()).device)
    with torch.inference_mode(), plain_attention(engine.lm):
        logits = engine.lm(input_ids=x, use_cache=False).logits[0]
    assert logits.dtype == torch.float32
    plain = logits.log_softmax(-1)[len(prompt) - 1 : -1]
    expected = plain.gather(1, torch.tensor(drawn.tokens, device=x.device)[:, None])[:, 0]
    assert np.abs(expected.cpu().numpy() - drawn.logp).mean() < 0.03
    rounded = logits.bfloat16().float()
    assert not torch.equal(logits, rounded)
