"""One run, planned: its parts built, its settings checked, its folder named, before any model is loaded."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import yaml

from powerbench.chains.replies import TextChainSpec
from powerbench.chains.runner import ChainSpec
from powerbench.config import RunConfig
from powerbench.engines.base import Engine, TextEngine
from powerbench.models.base import Model, Tokenizer
from powerbench.rng import Stream
from powerbench.run import in_text
from powerbench.run.verifier import make_verifier
from powerbench.samplers.common import Sampler
from powerbench.store import Run
from powerbench.store.provenance import digest_of, provenance, sampler_identity
from powerbench.store.shard import WHOLE, Shard
from powerbench.store.writing import create
from powerbench.tasks.column_set import ColumnSet
from powerbench.tasks.common import Task
from powerbench.types import Checkpoint, Context, Members, Outcome, Problem, SampleKey, Tokens
from powerbench.verifiers.common import Answering, Verifier


@dataclass(frozen=True)
class Plan:
    """A run that can start: made by `prepare`. The engine and the verifier are built when first used."""

    config: RunConfig
    sampler: Sampler
    model: Model
    tokenizer: Tokenizer | None
    """None for a model that gives text alone."""
    task: Task
    task_stop_tokens: Tokens
    """What ends a response in this task, beside the model's own stop tokens."""
    task_problems: Sequence[Problem]
    """All of the task's, whatever the limit."""
    prompts: Mapping[str, Tokens]
    """Of each problem of the run, by its id; empty for a model that gives text alone."""
    shard: Shard
    replicates: int
    """Responses per problem: one, whatever the configuration asks for, of a sampler that draws nothing."""
    seed: int
    speculate: int
    checkpoints: bool
    """Whether unfinished chains are saved at the end of every block."""
    lease_timeout: float
    """Seconds without a heartbeat after which a writer on another machine counts as dead."""

    @cached_property
    def engine(self) -> Engine:
        """The model loaded into an engine: the first heavy step."""
        longest = max(len(prompt) for prompt in self.prompts.values())
        factory = self.config.build("engine")
        return factory(self.model, max_prompt=longest, max_tokens=self.sampler.max_tokens)

    @cached_property
    def text_engine(self) -> TextEngine | None:
        """What asks a model that gives text alone; None for any other."""
        if self.tokenizer is not None:
            return None
        return self.config.build("engine")(
            self.model,
            stop=in_text.stops(self.task),
            ranks=self.sampler.ranks,
            samplers=in_text.samplers(ranking=False),
        )

    @cached_property
    def verifier(self) -> Verifier:
        """The configured verifier; one that asks the run's own model loads the engine when it first asks."""
        return make_verifier(self.config, self.model, lambda: self.engine)

    @cached_property
    def settings(self) -> Mapping[str, Any]:
        """The composed configuration, as the run folder keeps it: that of all shards."""
        settings = self.config.settings()
        del settings["shard"]
        settings["model"]["name"], settings["task"]["name"] = self.model.name, self.task.name
        settings["verifier"]["name"] = self.verifier.name
        return settings

    @cached_property
    def identity(self) -> Mapping[str, Any]:
        """Exactly what changes generations."""
        model = {**self.model.identity(), "stop_tokens": list(self.stop_tokens)}
        identity = _identity(self.settings, model, self.task_problems)
        # The answers, and so what is returned, are as the verifier reads them.
        if self.sampler.votes:
            identity["verifier"] = self.verifier.name
        if isinstance(self.task, ColumnSet):  # no name that others know says which data it is
            identity["data"] = self.task.source()["sha256"]
        return identity

    @cached_property
    def run(self) -> Run:
        """The run's folder, <runs>/<task>/<model>/<sampler>-<hash of the identity>."""
        name = f"{self.config.choices['sampler']}-{digest_of(self.identity)[:8]}"
        return Run(
            Path(self.config.values.runs).expanduser() / self.task.name / self.model.name / name
        )

    @cached_property
    def manifest(self) -> Mapping[str, Any]:
        """What makes the run's samples: code, packages, hardware, model, data."""
        size = self.model.size()
        return provenance(self.config.command) | {
            "model": {
                "id": self.settings["model"].get("id"),
                **self.model.identity(),
                "stop_tokens": list(self.stop_tokens),
                "size": None if size is None else size._asdict(),
            },
            "data": dict(self.task.source()),
            "sampler": {"deterministic": self.sampler.deterministic},
            "digest": digest_of(self.identity),
            "identity": self.identity,
        }

    @property
    def problems(self) -> Sequence[Problem]:
        """Those of the run: the task's first ones, up to the limit."""
        return self.task_problems[: self.config.values.limit]

    @property
    def stop_tokens(self) -> Tokens:
        """All tokens that end a response: the model's and the task's."""
        return (*self._tokenizer.stop_tokens, *self.task_stop_tokens) if self.tokenizer else ()

    @property
    def _tokenizer(self) -> Tokenizer:
        return self.tokenizer or self.model.tokenizer()  # which says that there is none

    @property
    def title(self) -> str:
        """task, model and sampler, and which shard: what the display shows."""
        shard = f" {self.shard}" if self.shard != WHOLE else ""
        return f"{self.task.name} {self.model.name} {self.config.choices['sampler']}{shard}"

    @property
    def label(self) -> str:
        """The run folder, and which shard of it: what messages name."""
        return f"{self.run.path}" + (f" (shard {self.shard})" if self.shard != WHOLE else "")

    def part(self, shard: Shard) -> "Plan":
        """Another shard of the same run; nothing that is computed already is computed again."""
        other = copy(self)
        object.__setattr__(other, "shard", shard)
        return other

    def keys(self) -> list[SampleKey]:
        """Every sample of the shard, replicates of one problem side by side."""
        return [
            SampleKey(problem.id, replicate)
            for i, problem in enumerate(self.problems)
            for replicate in range(self.replicates)
            if self.shard.holds(i, replicate)
        ]

    def missing(self) -> list[SampleKey]:
        """The samples of the shard still to be made."""
        done = self.run.keys(self.shard)
        return [key for key in self.keys() if key not in done]

    def write_head(self) -> None:
        """Write the run folder's head."""
        config = yaml.safe_dump(dict(self.settings), sort_keys=False)
        create(self.run, config, self.manifest, self.problems)

    def starts(
        self, keys: Sequence[SampleKey], resume: Callable[[SampleKey], Checkpoint | None]
    ) -> Iterator[ChainSpec]:
        """The chains for these keys, made as they are asked for.

        resume: gives the checkpoint that a chain goes on from.
        """
        problems = {problem.id: problem for problem in self.problems}
        for key in keys:
            context = Context(
                prompt=self.prompts[key.problem],
                eos=self._tokenizer.eos,
                stop_tokens=self.stop_tokens,
                task_stop_tokens=self.task_stop_tokens,
                answer=self._reader(problems[key.problem]),
            )
            factory = partial(self.sampler.chain, context)
            yield ChainSpec(key, context.prompt, factory, self._stream(key), resume(key))

    def text_starts(self, keys: Sequence[SampleKey]) -> Iterator[TextChainSpec]:
        """The same for a model that gives text alone: what has been answered it finds by itself."""
        problems = {problem.id: problem for problem in self.problems}
        for key in keys:
            reader = self._reader(problems[key.problem])
            yield in_text.start(problems[key.problem], self.sampler, reader, self._stream(key), key)

    def text_of(self, outcome: Outcome) -> str:
        """A response's text."""
        return self._text(outcome.tokens if outcome.reply is None else outcome.reply.text)

    def members_of(self, outcome: Outcome) -> Members | None:
        """What the population that a response was chosen from answers; None where that cannot be known."""
        verifier = self.verifier
        if not (outcome.members and isinstance(verifier, Answering)):
            return None
        read = {said: verifier.read(self._text(said)) for said in {*outcome.members}}
        return Members(verifier.name, tuple(read[said] for said in outcome.members))

    def _text(self, said: Tokens | str) -> str:
        return said if isinstance(said, str) else self._tokenizer.decode(said)

    def _stream(self, key: SampleKey) -> Stream:
        return Stream(self.seed, self.task.name, key.problem, key.replicate)

    def _reader(self, problem: Problem) -> Callable[[Tokens | str], str | None] | None:
        """What reads the answers of a problem's responses, for a sampler that votes."""
        verifier = self.verifier
        if not (self.sampler.votes and isinstance(verifier, Answering)):
            return None

        def read(said: Tokens | str) -> str | None:
            return verifier.answer(problem, self._text(said))

        return read


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
        "sampler": sampler_identity(settings["sampler"]),
        "engine": engine["name"],
        "seed": settings["seed"],
    }
    if engine.get("deterministic"):  # samples of its own: not to be mixed with others
        what["deterministic"] = True
    return what
