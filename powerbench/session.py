"""One run from its configuration to its metrics: prepare, generate, score.

`prepare` does everything that can fail for a reason the user can mend, before any model is loaded.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from omegaconf import OmegaConf

from powerbench.compose import Job
from powerbench.engines.base import Codec, Engine, Model
from powerbench.engines.toy import TabularModel
from powerbench.errors import require, require_integer
from powerbench.provenance import provenance
from powerbench.rng import Stream
from powerbench.runner import Completed, Meter, Start, run_chains, run_one
from powerbench.samplers.common import Response, Sampler
from powerbench.store import Run, SampleKey
from powerbench.types import Chain, Context, Extend, Outcome, Problem, Prompt, Sample, Score, Tokens
from powerbench.verifiers.common import Verifier


@dataclass(frozen=True)
class Plan:
    """A run that can start: everything is checked, nothing heavy is loaded."""

    run: Run
    settings: Mapping[str, Any]
    """The composed configuration, as the run folder keeps it."""
    manifest: Mapping[str, Any]
    job: Job
    sampler: Sampler
    model: Model
    codec: Codec
    task_stops: Tokens
    """What ends a response in this task, beside the model's own stop tokens."""
    problems: Sequence[Problem]
    prompts: Mapping[str, Tokens]
    seed: int
    replicates: int
    speculate: int

    @property
    def title(self) -> str:
        """task, model and sampler: what the display shows."""
        return f"{self.job.config.task.name} {self.model.name} {self.job.choices['sampler']}"

    def keys(self) -> list[SampleKey]:
        """Every sample of the run, replicates of one problem side by side."""
        return [SampleKey(p.id, r) for p in self.problems for r in range(self.replicates)]

    def write_head(self) -> None:
        """Write the run folder's head; the caller is the folder's one writer."""
        config = yaml.safe_dump(dict(self.settings), sort_keys=False)
        self.run.create(config, self.manifest, self.problems)

    def missing(self) -> list[SampleKey]:
        """The samples still to be made."""
        done = self.run.samples()
        return [key for key in self.keys() if key not in done]

    def load(self) -> Engine:
        """Load the model into an engine: the first heavy step."""
        longest = max(len(prompt) for prompt in self.prompts.values())
        factory = self.job.build("engine")
        return factory(self.model, max_prompt=longest, max_tokens=self.sampler.max_tokens)

    def starts(self, keys: Sequence[SampleKey]) -> Iterator[Start]:
        """The chains for these keys, made as they are asked for."""
        task = self.job.config.task.name
        stops = (*self.codec.stops, *self.task_stops)
        for key in keys:
            prompt = self.prompts[key.problem]
            context = Context(prompt, self.codec.eos, stops, self.task_stops)
            stream = Stream(self.seed, task, key.problem, key.replicate)
            yield Start(key, prompt, partial(self.sampler.chain, context), stream)


def prepare(job: Job) -> Plan:
    """Check a configuration and reserve its run folder. Raises UserError for what cannot work."""
    config = job.config
    for name, least in (("limit", 1), ("replicates", 1), ("seed", 0), ("speculate", 0)):
        if name != "limit" or config.limit is not None:
            require_integer(name, config[name], least)
    sampler: Sampler = job.build("sampler")
    model: Model = job.build("model")
    task = job.build("task")
    toys = isinstance(model, TabularModel), job.choices["engine"] == "toy"
    require(toys[0] == toys[1], "model=toy and engine=toy go together: set both, or neither")
    if not asks_model(job):
        job.build("verifier").close()
    everything: list[Problem] = task.problems(model.kind)
    require(bool(everything), f"task {task.name!r} has no problems")
    codec = model.codec()
    task_stops = tuple(codec.token(text) for text in task.stop_tokens)
    stops = (*codec.stops, *task_stops)
    problems = everything[: config.limit]
    prompts = {problem.id: codec.encode(problem.prompt) for problem in problems}
    for problem in problems:
        require(bool(prompts[problem.id]), f"problem {problem.id!r} has an empty prompt")
        needed = len(prompts[problem.id]) + sampler.max_tokens
        require(
            needed <= model.context_length,
            f"problem {problem.id!r} needs {needed} tokens (prompt {len(prompts[problem.id])} + "
            f"max_tokens {sampler.max_tokens}), but {model.name} has a context of "
            f"{model.context_length}; set a smaller max_tokens",
        )
    settings = job.settings()
    settings["model"]["name"] = model.name
    digest = _digest(settings, {**model.identity(), "stops": stops}, everything)
    name = f"{settings['sampler']['name']}-{digest[:8]}"
    run = Run(Path(config.runs) / task.name / str(model.name) / name)
    manifest = provenance() | {
        "model": {**model.identity(), "stop_tokens": list(stops)},
        "data": dict(task.source()),
        "digest": digest,
    }
    run.reserve()
    return Plan(
        settings=settings,
        manifest=manifest,
        run=run,
        job=job,
        sampler=sampler,
        model=model,
        codec=codec,
        task_stops=task_stops,
        problems=problems,
        prompts=prompts,
        seed=int(config.seed),
        replicates=int(config.replicates),
        speculate=int(config.speculate),
    )


def generate(
    plan: Plan,
    engine: Engine,
    keys: Sequence[SampleKey],
    write: Callable[[Sample], None],
    meter: Meter,
) -> Iterator[Sample | None]:
    """Make the samples of these keys; yield each after it is stored, None in between."""
    chains = run_chains(plan.starts(keys), engine, meter, plan.speculate)
    with closing(chains) as completed:  # type: ignore[type-var]
        for done in completed:
            if done is None:
                yield None
                continue
            sample = _sample(plan, done)
            write(sample)
            yield sample


def score(
    run: Run, verifier: Verifier, keys: Sequence[SampleKey] | None = None
) -> Iterator[tuple[SampleKey, Score]]:
    """Score the samples of these keys (default: all), and store each verdict as it is made."""
    problems, samples = run.problems(), run.samples()
    with closing(verifier), ExitStack() as stack:
        write = None
        for key in samples if keys is None else keys:
            verdict = verifier.score(problems[key.problem], samples[key].text)
            if write is None:  # a verifier of another task has refused by now, and leaves no file
                write = stack.enter_context(run.score_writer(verifier.name))
            write(key, verdict)
            yield key, verdict


def make_verifier(job: Job, model: Model, engine: Callable[[], Engine]) -> Verifier:
    """The configured verifier; one whose yaml says `ask: ???` asks the run's own model.

    engine: gives the engine, loading it if need be; called only when a question is asked.
    """
    if not asks_model(job):
        return job.build("verifier")
    codec = model.codec()

    def ask(text: str, options: Sequence[str]) -> Sequence[float]:
        """The probabilities of the options as the model's next token, given that it is one of them."""
        prompt = codec.encode(Prompt(text, chat=model.kind == "instruct"))
        require(
            len(prompt) < model.context_length,
            f"the question has {len(prompt)} tokens, more than {model.name}'s context holds",
        )
        stream = Stream(0, "ask", "", 0)
        ids = [codec.token(option) for option in options]
        logp = np.array(
            [run_one(partial(_next_token, i), prompt, stream, engine()).logp for i in ids]
        )
        mass = np.exp(logp - logp.max())
        return (mass / mass.sum()).tolist()

    return job.build("verifier", ask=ask)


def asks_model(job: Job) -> bool:
    """Whether the configured verifier needs a language model of its own."""
    return OmegaConf.is_missing(job.config.verifier, "ask")


def _next_token(token: int) -> Chain:
    """Its log-likelihood is that of this very token."""
    support = (token,)
    draw = yield Extend(("ask",), response=(), keep=0, until=1, stops=(), support=support)
    return Response().then(draw).outcome()


def _sample(plan: Plan, done: Completed) -> Sample:
    outcome: Outcome = done.outcome
    return Sample(
        problem=done.key.problem,
        replicate=done.key.replicate,
        text=plan.codec.decode(outcome.tokens),
        tokens=outcome.tokens,
        logp=outcome.logp,
        entropy=outcome.entropy,
        ended=outcome.ended,
        prompt_tokens=len(plan.prompts[done.key.problem]),
        cost=done.cost,
        steps=outcome.steps,
    )


def _digest(
    settings: Mapping[str, Any], model: Mapping[str, Any], problems: Sequence[Problem]
) -> str:
    """sha256 of exactly what changes generations: model, prompts, sampler, engine's kind, seed."""
    engine = settings["engine"]
    what = {
        "model": dict(model),
        "prompts": [[p.id, p.prompt.text, p.prompt.chat] for p in problems],
        "task": settings["task"]["name"],
        "sampler": settings["sampler"],
        "engine": engine["name"],
        "seed": settings["seed"],
    }
    if engine.get("deterministic"):  # samples of its own: not to be mixed with others
        what["deterministic"] = True
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()
