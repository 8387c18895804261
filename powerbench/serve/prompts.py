"""Prompts as tokens, and whose randomness an answer has: a problem's of the task, or the prompt's own.

A prompt that is one of the served task's has the identity that `powerbench run` gives that problem, so that the
same seed and replicate draw the same answer. Any other is named by a digest of its tokens.
"""

import hashlib
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np

from powerbench.config import RunConfig
from powerbench.errors import UserError
from powerbench.models.base import Model
from powerbench.rng import Stream
from powerbench.run.verifier import asks_model
from powerbench.serve.failures import bad
from powerbench.tasks.common import Task
from powerbench.types import Message, Prompt, Tokens
from powerbench.verifiers.common import Answering

OWN = "serve"
"""Stands for the task's name in the identity of a prompt that is no task's."""


class Identity(NamedTuple):
    """Names what is answered: with seed and replicate it fixes all randomness."""

    task: str
    problem: str

    def stream(self, seed: int, replicate: int) -> Stream:
        return Stream(seed, self.task, self.problem, replicate)


class Prompts:
    """Reads prompts for one model, and knows those of one task."""

    def __init__(self, config: RunConfig, model: Model) -> None:
        """Raises UserError for a task that cannot be read, or not be put to this model."""
        self.config, self.model = config, model
        self.tokenizer = model.tokenizer()
        self.task: Task = config.build("task")
        problems = self.task.problems(model.kind)
        self._known = {self.tokenizer.encode(p.prompt): p for p in reversed(problems)}
        self.longest = max((len(prompt) for prompt in self._known), default=0)
        """Of the task's prompts, in tokens."""

    def of_text(
        self, prompt: str | Sequence[str] | Sequence[int] | Sequence[Sequence[int]]
    ) -> list[Tokens]:
        """The prompts of a completion, which may be several, as text or as token ids.

        Raises ApiError for none, an empty one, or an id that is no token of the model.
        """
        several: list[str | Tokens]
        if isinstance(prompt, str):
            several = [prompt]
        elif prompt and all(isinstance(each, int) for each in prompt):
            several = [tuple(prompt)]  # type: ignore[arg-type]
        else:
            several = [p if isinstance(p, str) else tuple(p) for p in prompt]  # type: ignore[arg-type]
        if not several or not all(several):
            raise bad("prompt must be text or token ids, and not be empty", "prompt")
        return [self._encoded(Prompt(p)) if isinstance(p, str) else self._ids(p) for p in several]

    def of_chat(self, messages: Sequence[Message]) -> Tokens:
        """A conversation's. Raises ApiError where the model has no template for it."""
        try:
            return self.tokenizer.chat(messages)
        except UserError as error:
            raise bad(str(error), "messages") from error

    def identity(self, prompt: Tokens) -> Identity:
        """The task's and problem's, or the prompt's own."""
        if (problem := self._known.get(prompt)) is not None:
            return Identity(self.task.name, problem.id)
        return Identity(OWN, hashlib.sha256(np.array(prompt, dtype="<i8").tobytes()).hexdigest())

    def reader(self, prompt: Tokens) -> Callable[[Tokens | str], str | None] | None:
        """What reads the answers of a task's problem, for a sampler that votes; None for another prompt, or
        where the task's verifier reads none. It is for one thread alone."""
        problem, verifier = self._known.get(prompt), self._verifier
        if problem is None or verifier is None:
            return None
        decode = self._decode
        return lambda said: verifier.answer(
            problem, said if isinstance(said, str) else decode(said)
        )

    @cached_property
    def _verifier(self) -> Answering | None:
        if asks_model(self.config):
            return None
        verifier = self.config.build("verifier")
        return verifier if isinstance(verifier, Answering) else None

    @cached_property
    def _decode(self) -> Callable[[Tokens], str]:
        """By a tokenizer of its own, for another thread may be using the other one."""
        return self.model.tokenizer().decode

    def _encoded(self, prompt: Prompt) -> Tokens:
        tokens = self.tokenizer.encode(prompt)
        if not tokens:
            raise bad("prompt has no tokens", "prompt")
        return tokens

    def _ids(self, ids: Tokens) -> Tokens:
        size = self.model.vocabulary_size
        wrong = next((each for each in ids if not 0 <= each < size), None)
        if wrong is not None:
            raise bad(
                f"prompt: {wrong} is no token of {self.model.name}, which has {size}", "prompt"
            )
        return ids
