"""How often a sample depends on its batch when engine.deterministic is off (and that it never does when on)."""

from powerbench.bench.decoding import PROMPT
from powerbench.engines.hf import HFEngine
from powerbench.models import HubModel
from powerbench.rng import Stream
from powerbench.types import Extend, Tokens


def changed(model: HubModel, chains: int, tokens: int, tau: float, deterministic: bool) -> float:
    """The share of samples that a batch of 4 and one of 32 decode differently."""
    prompt = model.tokenizer().encode(PROMPT)

    def decode(width: int) -> dict[int, Tokens]:
        engine = HFEngine(model, len(prompt), tokens, width, deterministic=deterministic, draft=0)
        request = Extend(("bench",), response=(), keep=0, until=tokens, stop_tokens=(), tau=tau)
        for chain in range(chains):
            uniforms = Stream(0, "agreement", "", chain).uniforms(request.key, tokens)
            engine.submit(chain, prompt, request, uniforms)
        drawn: dict[int, Tokens] = {}
        while len(drawn) < chains:
            for chain, _, draw in engine.step():
                drawn[chain] = draw.tokens
                engine.withdraw(chain)
        return drawn

    few, many = decode(4), decode(32)
    return sum(few[chain] != many[chain] for chain in range(chains)) / chains
