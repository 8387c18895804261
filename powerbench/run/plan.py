"""One run from its configuration to its samples: prepare, generate.

`prepare` does everything that can fail for a reason the user can mend, before any model is loaded.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from powerbench.chains.runner import ChainSpec
from powerbench.config import Job
from powerbench.engines.base import Engine
from powerbench.errors import require, require_integer, require_number
from powerbench.models.base import Model, Tokenizer
from powerbench.rng import Stream
from powerbench.run.verifier import make_verifier
from powerbench.samplers.common import Sampler
from powerbench.store import Run
from powerbench.store.provenance import digest_of, provenance
from powerbench.store.shard import WHOLE, Shard
from powerbench.store.writing import create, reserve
from powerbench.types import Checkpoint, Context, Problem, SampleKey, Tokens
from powerbench.verifiers.common import Answering


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
    tokenizer: Tokenizer
    task_stop_tokens: Tokens
    """What ends a response in this task, beside the model's own stop tokens."""
    problems: Sequence[Problem]
    prompts: Mapping[str, Tokens]
    seed: int
    replicates: int
    speculate: int
    shard: Shard
    checkpoints: bool
    """Whether unfinished chains are saved at the end of every block."""
    lease_timeout: float
    """Seconds without a heartbeat after which a writer on another machine counts as dead."""
    answer: Callable[[Problem, str], str | None] | None = None
    """The answer that a response gives, for samplers that vote."""

    @property
    def title(self) -> str:
        """task, model and sampler, and which shard: what the display shows."""
        shard = f" {self.shard}" if self.shard != WHOLE else ""
        return f"{self.job.config.task.name} {self.model.name} {self.job.choices['sampler']}{shard}"

    def keys(self) -> list[SampleKey]:
        """Every sample of the shard, replicates of one problem side by side."""
        return [
            SampleKey(problem.id, replicate)
            for i, problem in enumerate(self.problems)
            for replicate in range(self.replicates)
            if self.shard.holds(i, replicate)
        ]

    def write_head(self) -> None:
        """Write the run folder's head."""
        config = yaml.safe_dump(dict(self.settings), sort_keys=False)
        create(self.run, config, self.manifest, self.problems)

    def missing(self) -> list[SampleKey]:
        """The samples of the shard still to be made."""
        done = self.run.keys(self.shard)
        return [key for key in self.keys() if key not in done]

    def load(self) -> Engine:
        """Load the model into an engine: the first heavy step."""
        longest = max(len(prompt) for prompt in self.prompts.values())
        factory = self.job.build("engine")
        return factory(self.model, max_prompt=longest, max_tokens=self.sampler.max_tokens)

    def starts(
        self, keys: Sequence[SampleKey], resume: Callable[[SampleKey], Checkpoint | None]
    ) -> Iterator[ChainSpec]:
        """The chains for these keys, made as they are asked for.

        resume: gives the checkpoint that a chain goes on from.
        """
        task = self.job.config.task.name
        stop_tokens = (*self.tokenizer.stop_tokens, *self.task_stop_tokens)
        problems = {problem.id: problem for problem in self.problems}
        for key in keys:
            prompt = self.prompts[key.problem]
            answer = partial(self._answer, problems[key.problem]) if self.answer else None
            context = Context(
                prompt, self.tokenizer.eos, stop_tokens, self.task_stop_tokens, answer
            )
            stream = Stream(self.seed, task, key.problem, key.replicate)
            begin = partial(self.sampler.chain, context)
            yield ChainSpec(key, prompt, begin, stream, resume(key))

    def _answer(self, problem: Problem, tokens: Tokens) -> str | None:
        assert self.answer is not None
        return self.answer(problem, self.tokenizer.decode(tokens))


def prepare(job: Job) -> Plan:
    """Check a configuration and reserve its run folder. Raises UserError for what cannot work."""
    config = job.config
    for name, least in (("limit", 1), ("replicates", 1), ("seed", 0), ("speculate", 0)):
        if name != "limit" or config.limit is not None:
            require_integer(name, config[name], least)
    require_number("patience", config.lease_timeout, 0, 86400, "seconds")
    shard = _part_of_job(Shard.parse(config.shard))
    sampler: Sampler = job.build("sampler")
    model: Model = job.build("model")
    task = job.build("task")
    require(
        model.driven_by(job.choices["engine"]),
        "model=toy and engine=toy go together: set both, or neither",
    )
    verifier = make_verifier(job, model, _no_engine)
    votes = getattr(sampler, "votes", False)
    answers = verifier if votes and isinstance(verifier, Answering) else None
    require(
        answers is not None or not votes,
        f"sampler={job.choices['sampler']} votes on answers, which verifier={job.choices['verifier']} "
        f"cannot tell of task {task.name!r}; use it with a task of mathematics or multiple choice",
    )
    everything: list[Problem] = task.problems(model.kind)
    require(bool(everything), f"task {task.name!r} has no problems")
    tokenizer = model.tokenizer()
    task_stop_tokens = tuple(tokenizer.token(text) for text in task.stop_tokens)
    stop_tokens = (*tokenizer.stop_tokens, *task_stop_tokens)
    problems = everything[: config.limit]
    prompts = {problem.id: tokenizer.encode(problem.prompt) for problem in problems}
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
    del settings["shard"]  # the folder is that of all shards
    settings["model"]["name"] = model.name
    settings["verifier"]["name"] = verifier.name
    identity = _identity(settings, {**model.identity(), "stops": list(stop_tokens)}, everything)
    if votes:  # the answers, and so what is returned, are as the verifier reads them
        identity["verifier"] = verifier.name
    digest = digest_of(identity)
    name = f"{settings['sampler']['name']}-{digest[:8]}"
    run = Run(Path(config.runs) / task.name / str(model.name) / name)
    manifest = provenance(job.command) | {
        "model": {**model.identity(), "stop_tokens": list(stop_tokens), "size": _sized(model)},
        "data": dict(task.source()),
        "digest": digest,
        "identity": identity,
    }
    reserve(run)
    return Plan(
        settings=settings,
        manifest=manifest,
        run=run,
        job=job,
        sampler=sampler,
        model=model,
        tokenizer=tokenizer,
        task_stop_tokens=task_stop_tokens,
        problems=problems,
        prompts=prompts,
        seed=int(config.seed),
        replicates=int(config.replicates),
        speculate=int(config.speculate),
        shard=shard,
        checkpoints=bool(config.checkpoints),
        lease_timeout=float(config.lease_timeout),
        answer=answers.answer if answers else None,
    )


def _sized(model: Model) -> dict[str, int] | None:
    size = model.size()
    return None if size is None else size._asdict()


def _no_engine() -> Engine:
    raise AssertionError("nothing is asked before the run has an engine")


def _part_of_job(shard: Shard) -> Shard:
    """Of several tasks in one Slurm job, such as one for each GPU, each takes its part of the shard."""
    tasks = int(os.environ.get("SLURM_STEP_NUM_TASKS", "1"))  # set for what srun has started alone
    return shard.part(int(os.environ.get("SLURM_PROCID", "0")) + 1, tasks) if tasks > 1 else shard


def _identity(
    settings: Mapping[str, Any], model: Mapping[str, Any], problems: Sequence[Problem]
) -> dict[str, Any]:
    """Exactly what changes generations: model, prompts, sampler, engine's kind, seed."""
    engine = settings["engine"]
    prompts = json.dumps([[p.id, p.prompt.text, p.prompt.chat] for p in problems])
    what = {
        "model": dict(model),
        "prompts": hashlib.sha256(prompts.encode()).hexdigest(),
        "task": settings["task"]["name"],
        "sampler": settings["sampler"],
        "engine": engine["name"],
        "seed": settings["seed"],
    }
    if engine.get("deterministic"):  # samples of its own: not to be mixed with others
        what["deterministic"] = True
    return what
