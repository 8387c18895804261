"""Whole power-sampling jobs: what early rejection and speculation save, and whether chains stay the same."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import median

from powerbench.engines.hf import HFEngine
from powerbench.models import HubModel
from powerbench.rng import Stream
from powerbench.runner import Completed, Meter, Start, run_chains
from powerbench.samplers.power import Power
from powerbench.store import SampleKey
from powerbench.types import Context, Prompt, Tokens

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
SAMPLER = Power(max_tokens=96, alpha=4.0, blocks=4, steps=10)


@dataclass(frozen=True)
class Job:
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

    jobs: list[Job]
    early_rejection_tokens: float
    """Tokens decoded, with over without."""
    speculation_speed: float
    """One chain alone: seconds without over seconds with; the median over chains."""
    same_chains: bool


def measure(model: HubModel, speculate: int, alone: int) -> Savings:
    """All questions at once with and without early rejection; `alone` of them one by one, with and
    without speculation."""
    codec = model.codec()
    prompts = [codec.encode(Prompt(text, chat=True)) for text in QUESTIONS]
    context = partial(Context, eos=codec.eos, stops=codec.stops)
    late = replace(SAMPLER, early_rejection=False)

    def run(name: str, sampler: Power, which: Sequence[int], ahead: int) -> Job:
        width = len(prompts)
        engine = HFEngine(model, max(map(len, prompts)), sampler.max_tokens, width)
        starts = [
            Start(
                SampleKey(str(i), 0),
                prompts[i],
                partial(sampler.chain, context(prompts[i])),
                Stream(0, "bench", str(i), 0),
            )
            for i in which
        ]
        began = time.perf_counter()
        done = [each for each in run_chains(starts, engine, Meter(), ahead) if each is not None]
        return _job(name, done, time.perf_counter() - began)

    everyone = range(len(prompts))
    full = run("8 chains, no early rejection", late, everyone, 0)
    early = run("8 chains, early rejection", SAMPLER, everyone, 0)
    plain, ahead = [], []
    for i in range(alone):
        plain.append(run(f"chain {i} alone", SAMPLER, [i], 0))
        ahead.append(run(f"chain {i} alone, speculate={speculate}", SAMPLER, [i], speculate))
    pairs = list(zip(plain, ahead, strict=True))
    return Savings(
        jobs=[full, early, *(job for pair in pairs for job in pair)],
        early_rejection_tokens=early.decoded_per_token / full.decoded_per_token,
        speculation_speed=median(a.seconds_per_response / b.seconds_per_response for a, b in pairs),
        same_chains=early.responses == full.responses
        and all(
            a.responses == b.responses == [early.responses[i]] for i, (a, b) in enumerate(pairs)
        ),
    )


def _job(name: str, done: list[Completed], seconds: float) -> Job:
    done = sorted(done, key=lambda each: each.key)
    tokens = sum(len(each.outcome.tokens) for each in done)
    return Job(
        name,
        seconds / len(done),
        sum(each.cost.decoded for each in done) / tokens,
        sum(each.cost.speculated for each in done) / tokens,
        [each.outcome.tokens for each in done],
    )
