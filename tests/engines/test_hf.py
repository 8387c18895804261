"""The hf engine's cache: exact after any history of forks, rollbacks and reuse, and never a bystander.

Run: pytest tests/engines/test_hf.py
"""

import copy
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import SWITCH, TinyModel, models, plain_logp, run
from transformers import PreTrainedModel

from powerbench.engines.hf import HFEngine
from powerbench.engines.hf.sampling import draw
from powerbench.errors import UserError
from powerbench.types import Ended, Extend, Tokens

ARCHITECTURES = ["llama", "qwen2", "phi3", "phi3-window"]


def close(name: str, prompt: Tokens, kept: Tokens, tokens: Tokens, logp: tuple[float, ...]) -> bool:
    first = len(prompt) + len(kept)
    rows = plain_logp(name, prompt + kept + tokens)[first - 1 : -1]
    expected = rows[range(len(tokens)), tokens]
    return bool(np.abs(expected - logp).max() < 1e-4)


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("width", [1, 3, 8])
def test_exact_after_random_histories_of_proposals(name: str, width: int) -> None:
    """Chains that extend, propose from random cuts, accept, reject, jump, end and make room."""
    choose = random.Random(width)
    engine = HFEngine(TinyModel(name), 12, 24, width=width, prefill_tokens=7)
    prompts = {
        c: tuple(choose.randrange(300) for _ in range(choose.randint(1, 12))) for c in range(12)
    }
    prompts[3] = prompts[2]  # replicates share a prompt
    current: dict[int, Tokens] = {}
    waiting = list(prompts)
    pending: dict[int, Extend] = {}
    for turn in range(120):
        while waiting and len(current) < width:
            current[waiting.pop()] = ()
        for chain, x in current.items():
            if chain not in pending:
                keep = choose.randint(0, min(len(x), 23))
                until = choose.randint(keep + 1, 24)
                floor = choose.choice([-np.inf, -1.0])
                request = Extend(
                    (turn,), x, keep, until, stops=(7,), tau=0.5, alpha=2.0, floor=floor
                )
                pending[chain] = request
                engine.submit(
                    chain, prompts[chain], request, np.random.default_rng(turn).random(24)
                )
        for chain, drawn in engine.step():
            request = pending.pop(chain)
            assert close(name, prompts[chain], request.prefix, drawn.tokens, drawn.logp)
            if drawn.ended is not Ended.FLOOR and choose.random() < 0.5:
                current[chain] = request.prefix + drawn.tokens
            if choose.random() < 0.1:  # a response that the engine has never seen
                current[chain] = tuple(choose.randrange(300) for _ in range(choose.randint(0, 23)))
            if choose.random() < 0.05:
                engine.withdraw(chain)
                del current[chain]
                waiting.insert(0, chain)


def test_a_rejected_proposal_costs_no_recomputation() -> None:
    engine = HFEngine(TinyModel("llama"), 12, 24, width=1)
    prompt, u = (5, 6, 7, 8), np.random.default_rng(0).random(24)
    first = Extend((0,), (), 0, 20, stops=())
    x = run(engine, {0: (prompt, first, u)})[0]
    assert x.prefilled == len(prompt) - 1  # the last token of a prompt is decoded
    for cut in (5, 15, 10, 18):  # every proposal is rejected: the next one starts from x again
        proposal = Extend((cut,), x.tokens, cut, 20, stops=())
        assert run(engine, {0: (prompt, proposal, u[::-1].copy())})[0].prefilled == 0


def test_what_prompts_share_is_computed_once() -> None:
    """Replicates of a problem share all of the prompt, problems their few-shot examples."""
    engine = HFEngine(TinyModel("llama"), 24, 24, width=5)
    shared, u = tuple(range(1, 21)), np.random.default_rng(0).random(24)
    prompts = [(*shared, 30), (*shared, 30), (*shared, 40, 41, 42), (*shared, 40, 41, 42)]
    request = Extend((0,), (), 0, 5, stops=())
    draws = run(engine, {c: (prompt, request, u) for c, prompt in enumerate(prompts)})
    assert [draws[c].prefilled for c in range(4)] == [20, 0, 2, 2]
    for chain, prompt in enumerate(prompts):
        assert close("llama", prompt, (), draws[chain].tokens, draws[chain].logp)


@pytest.mark.parametrize("together", [True, False])
def test_longrope_factors_are_a_chains_own(together: bool) -> None:
    """A chain that may pass the switch uses the long factors from its start; its neighbours do not."""
    engine = HFEngine(TinyModel("phi3-longrope"), 40, 16, width=4)
    u = np.random.default_rng(1).random(16)
    prompts = {0: (1, 2, 3), 1: tuple(range(30)), 2: tuple(range(16)), 3: tuple(range(17))}
    jobs = {c: (p, Extend((0,), (), 0, 16, stops=()), u) for c, p in prompts.items()}
    batches = [jobs] if together else [{c: job} for c, job in jobs.items()]
    draws = {c: drawn for batch in batches for c, drawn in run(engine, batch).items()}
    for chain, prompt in prompts.items():
        long = len(prompt) + 16 > SWITCH
        x = prompt + draws[chain].tokens
        rows = plain_logp("phi3-longrope", x, pad_to=SWITCH + 1 if long else 0)
        expected = rows[range(len(prompt) - 1, len(x) - 1), draws[chain].tokens]
        assert draws[chain].logp == pytest.approx(expected, abs=1e-4)


def test_a_prompt_longer_than_planned_makes_the_cache_grow() -> None:
    engine = HFEngine(TinyModel("llama"), 4, 8, width=2)
    u = np.random.default_rng(1).random(8)
    request = Extend((0,), (), 0, 8, stops=())
    short = run(engine, {0: ((1, 2), replace(request, until=3), u)})[0]
    prompt = tuple(range(50))
    long = run(engine, {1: (prompt, request, u)})[1]
    assert close("llama", prompt, (), long.tokens, long.logp)
    again = Extend((1,), short.tokens, 3, 8, stops=())
    more = run(engine, {0: ((1, 2), again, u)})[0]
    assert close("llama", (1, 2), short.tokens, more.tokens, more.logp)


def test_a_token_without_probability_is_never_drawn() -> None:
    logits = torch.full((4, 600), -torch.inf)
    logits[:, 300] = 0.0
    logits[:, 301] = 1.0
    u = torch.tensor([0.0, 0.2, 0.5, 1 - 2**-53], dtype=torch.float64)
    drawn = draw(logits, u, torch.ones(4), torch.zeros(4, dtype=torch.int64))
    assert drawn.token.tolist() == [300, 300, 301, 301]


@pytest.mark.parametrize("setting", [{"width": 0}, {"prefill_tokens": 0}])
def test_impossible_settings_are_refused(setting: dict[str, int]) -> None:
    with pytest.raises(UserError, match=next(iter(setting))):
        HFEngine(TinyModel("llama"), 4, 8, **setting)


def test_bfloat16_weights_are_drawn_from_in_float32() -> None:
    half = copy.deepcopy(models("llama")[0]).to(torch.bfloat16)

    class Half(TinyModel):
        def load(self, device: str, attention: str) -> PreTrainedModel:
            return half

    engine = HFEngine(Half("llama"), 12, 24, width=3)
    u, prompt = np.random.default_rng(2).random(24), (5, 6, 7)
    request = Extend((0,), (), 0, 20, stops=(), tau=0.5)
    drawn = run(engine, dict.fromkeys(range(3), (prompt, request, u)))[0]
    x = prompt + drawn.tokens
    expected = plain_logp("llama", x)[range(2, len(x) - 1), drawn.tokens]
    assert drawn.logp == pytest.approx(expected, abs=0.3)  # bfloat16 keeps 8 bits of the logits
    assert drawn.logq != pytest.approx(drawn.logp, abs=0.01)


def test_a_model_with_other_layers_is_refused() -> None:
    class Foreign(TinyModel):
        def load(self, device: str, attention: str) -> PreTrainedModel:
            odd = copy.deepcopy(models("llama")[0])
            odd.config.layer_types = ["full_attention", "linear_attention"]
            return odd

    with pytest.raises(UserError, match="layers that are not causal attention"):
        HFEngine(Foreign("llama"), 4, 8)
