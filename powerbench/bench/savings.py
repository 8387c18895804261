"""Whole power-sampling chains: what early rejection and speculation save, and whether samples stay the same."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import median

from powerbench.chains.runner import ChainSpec, Completed, run_chains
from powerbench.engines.base import Engine
from powerbench.engines.hf import HFEngine
from powerbench.models import HubModel
from powerbench.models.hf_tokenizer import HFTokenizer
from powerbench.rng import Stream
from powerbench.samplers.power import Power
from powerbench.types import Context, Progress, Prompt, SampleKey, Tokens

QUESTIONS = (
    "Why is the sky blue?",
    "Name three uses for a brick.",
    "Write two sentences about the sea.",
    "How do I boil an egg?",
    "What is a prime number?",
    "Explain what a thermometer does.",
    "Give me a tip for better sleep.",
    "Describe a cat to someone who has never seen one.",
)
SAMPLER = Power(max_tokens=64, alpha=4.0, blocks=4, steps=10)


@dataclass(frozen=True)
class Timing:
    """A set of chains, run one way."""

    name: str
    seconds_per_response: float
    decoded_per_token: float
    """Tokens decoded, rejected proposals included, per token of the responses."""
    wasted_per_token: float
    """Tokens decoded ahead and thrown away, likewise."""
    responses: list[Tokens]


@dataclass(frozen=True)
class Savings:
    """Each saving against the same chains without it."""

    timings: list[Timing]
    early_rejection_tokens: float
    """Tokens decoded, with over without: all chains, deterministic mode."""
    speculation_speed: float
    """One chain alone: seconds without over seconds with; the median over chains."""
    same_chains: bool
    """Whether, in deterministic mode, all responses are the same with and without each saving."""


def time_savings(model: HubModel, speculate: int, alone: int) -> Savings:
    """Tokens and sameness in deterministic mode, all questions at once; then the first `alone` of them
    one by one, with and without speculation in alternation, for time."""
    tokenizer = model.tokenizer()
    prompts = encoded(tokenizer)
    longest = max(map(len, prompts))
    everyone = range(len(prompts))

    def run(
        name: str,
        which: Sequence[int],
        early_rejection: bool = True,
        speculate: int = 0,
        deterministic: bool = False,
    ) -> Timing:
        sampler = replace(SAMPLER, early_rejection=early_rejection)
        engine = HFEngine(
            model,
            longest,
            sampler.max_tokens,
            max_num_seqs=2 * len(prompts),
            deterministic=deterministic,
            draft=0,
        )
        keys = [SampleKey(str(i), 0) for i in which]
        done, seconds = run_power(engine, sampler, tokenizer, keys, speculate)
        return _timing(name, done, seconds)

    full = run("8 chains, deterministic", everyone, early_rejection=False, deterministic=True)
    early = run("8 chains, deterministic, early rejection", everyone, deterministic=True)
    single = run("chain 0, deterministic, early rejection, speculation", [0], True, speculate, True)
    free = run("8 chains, early rejection", everyone)
    plain: list[Timing] = []
    speculated: list[Timing] = []
    for i in range(alone):
        for proposals_ahead in (0, speculate) if i % 2 else (speculate, 0):
            name = f"chain {i} alone{', speculation' if proposals_ahead else ''}"
            timing = run(name, [i], speculate=proposals_ahead)
            (speculated if proposals_ahead else plain).append(timing)
    pairs = list(zip(plain, speculated, strict=True))
    return Savings(
        timings=[full, early, single, free, *(timing for pair in pairs for timing in pair)],
        early_rejection_tokens=early.decoded_per_token / full.decoded_per_token,
        speculation_speed=median(a.seconds_per_response / b.seconds_per_response for a, b in pairs),
        same_chains=early.responses == full.responses and single.responses == full.responses[:1],
    )


def encoded(tokenizer: HFTokenizer) -> list[Tokens]:
    """The questions as prompts."""
    return [tokenizer.encode(Prompt(text, chat=True)) for text in QUESTIONS]


def run_power(
    engine: Engine,
    sampler: Power,
    tokenizer: HFTokenizer,
    keys: Sequence[SampleKey],
    speculate: int,
) -> tuple[list[Completed], float]:
    """Chains of these keys, whose problems are indices in `QUESTIONS`, and the seconds of all together."""
    prompts = encoded(tokenizer)
    starts = [
        ChainSpec(
            key,
            prompt := prompts[int(key.problem)],
            partial(sampler.chain, Context(prompt, tokenizer.eos, tokenizer.stop_tokens)),
            Stream(0, "bench", key.problem, key.replicate),
        )
        for key in keys
    ]
    began = time.perf_counter()
    events = run_chains(starts, engine, Progress(), speculate)
    done = [each for each in events if isinstance(each, Completed)]
    return sorted(done, key=lambda each: each.key), time.perf_counter() - began


def _timing(name: str, done: list[Completed], seconds: float) -> Timing:
    tokens = sum(len(each.outcome.tokens) for each in done)
    return Timing(
        name,
        seconds / len(done),
        sum(each.cost.decoded for each in done) / tokens,
        sum(each.cost.speculated for each in done) / tokens,
        [each.outcome.tokens for each in done],
    )
