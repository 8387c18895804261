"""Builds a run's verifier, which may ask the run's own model."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from omegaconf import OmegaConf

from powerbench.chains.runner import run_one
from powerbench.config import RunConfig
from powerbench.engines.base import Engine
from powerbench.errors import require
from powerbench.models.base import Model
from powerbench.rng import Stream
from powerbench.samplers.common import Response
from powerbench.types import Chain, Extend, Prompt
from powerbench.verifiers.common import Verifier


def asks_model(config: RunConfig) -> bool:
    """Whether the configured verifier needs a language model of its own: its yaml says `ask: ???`."""
    return OmegaConf.is_missing(config.values.verifier, "ask")


def make_verifier(config: RunConfig, model: Model, engine: Callable[[], Engine]) -> Verifier:
    """The configured verifier; one that asks a model asks the run's own.

    engine: returns the engine, loading it if necessary; called only when a question is asked.
    """
    if not asks_model(config):
        return config.build("verifier")
    tokenizer = model.tokenizer()

    def ask(text: str, options: Sequence[str]) -> Sequence[float]:
        """The probabilities of the options as the model's next token, given that it is one of them."""
        prompt = tokenizer.encode(Prompt(text, chat=model.kind == "instruct"))
        require(
            len(prompt) < model.context_length,
            f"the question has {len(prompt)} tokens, more than {model.name}'s context holds",
        )
        stream = Stream(0, "ask", "", 0)
        ids = [tokenizer.token(option) for option in options]
        logp = np.array(
            [run_one(partial(_next_token, i), prompt, stream, engine()).logp for i in ids]
        )
        mass = np.exp(logp - logp.max())
        return (mass / mass.sum()).tolist()

    return config.build("verifier", ask=ask)


def _next_token(token: int) -> Chain:
    """Its log-likelihood is that of this very token."""
    support = (token,)
    draw = yield Extend(("ask",), response=(), keep=0, until=1, stop_tokens=(), support=support)
    return Response().then(draw).outcome()
