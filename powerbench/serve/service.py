"""From the body of a request to the chains that answer it: everything is checked before one is queued."""

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial

from powerbench.chains.runner import ChainSpec
from powerbench.config import RunConfig
from powerbench.errors import UserError, require
from powerbench.models.base import Model
from powerbench.serve.choosing import Choice, Samplers
from powerbench.serve.failures import ApiError, bad
from powerbench.serve.logprobs import recorded, scored
from powerbench.serve.prompts import Identity, Prompts
from powerbench.serve.schema import Body, ChatBody, CompletionBody
from powerbench.serve.worker import Job
from powerbench.types import Context, Message, SampleKey, Tokens


@dataclass(frozen=True)
class Limits:
    """What requests may ask for."""

    samplers: Sequence[str]
    """Those that they may choose."""
    settable: bool = True
    """Whether they may set a sampler's settings."""
    choices: int = 16
    """n, at most."""
    prompt: int = 1024
    """The longest prompt, in tokens: the engine's memory is planned for it."""


@dataclass(frozen=True)
class Asked:
    """A request that was understood, and its chains."""

    kind: str
    """`text_completion` or `chat.completion`."""
    id: str
    created: int
    model: str
    prompts: tuple[Tokens, ...]
    identities: tuple[Identity, ...]
    n: int
    """Answers to each prompt: choice i is for prompt i // n."""
    choice: Choice
    seed: int
    replicate: int
    """Of the first of n answers."""
    stops: tuple[str, ...]
    logprobs: int | None
    """The likeliest tokens to report at each position; None: no log-probabilities at all."""
    echo: bool
    jobs: tuple[Job, ...]
    """One for each choice; then, with echo and logprobs, one for each prompt, which scores it."""

    @property
    def choices(self) -> int:
        """How many answers there are."""
        return len(self.prompts) * self.n

    def jobs_of(self, index: int) -> tuple[Job, ...]:
        """Those that answer i needs: its own, and what scores its prompt."""
        return (self.jobs[index], *self.jobs[self.choices :][index // self.n :][:1])


@dataclass
class Service:
    """Understands requests, for one model, one task and some samplers."""

    config: RunConfig
    model: Model
    prompts: Prompts
    samplers: Samplers
    limits: Limits
    created: int = field(default_factory=lambda: int(time.time()))

    @classmethod
    def of_config(cls, config: RunConfig, limits: Limits) -> "Service":
        """Raises UserError for what cannot work, before a model is loaded."""
        config.build("sampler")
        model: Model = config.build("model")
        require(
            model.driven_by(config.choices["engine"]),
            "model=toy and engine=toy go together: set both, or neither",
        )
        samplers = Samplers(config, limits.samplers, limits.settable)
        service = cls(config, model, Prompts(config, model), samplers, limits)
        room = model.context_length - samplers.max_tokens
        require(
            room > 0,
            f"max_tokens={samplers.max_tokens} leaves no room for a prompt in {model.name}'s context of "
            f"{model.context_length}; set a smaller max_tokens",
        )
        return service

    @property
    def longest_prompt(self) -> int:
        """That a request may have, in tokens, whatever its max_tokens."""
        longest = max(self.limits.prompt, self.prompts.longest)
        return min(longest, self.model.context_length - 1)

    def completion(self, body: CompletionBody) -> Asked:
        """The chains of a completion of text. Raises ApiError for what cannot be answered."""
        self.require_model(body.model)
        prompts = self.prompts.of_text(body.prompt)
        return self._asked("text_completion", "cmpl", body, prompts, body.logprobs, body.echo)

    def chat(self, body: ChatBody) -> Asked:
        """The chain of a conversation's next turn. Raises ApiError for what cannot be answered."""
        self.require_model(body.model)
        if body.top_logprobs is not None and not body.logprobs:
            raise bad("top_logprobs needs logprobs=true", "top_logprobs")
        top = (body.top_logprobs or 0) if body.logprobs else None
        prompt = self.prompts.of_chat([Message(m.role, m.text) for m in body.messages])
        return self._asked("chat.completion", "chatcmpl", body, [prompt], top, echo=False)

    def _asked(
        self,
        kind: str,
        prefix: str,
        body: Body,
        prompts: Sequence[Tokens],
        logprobs: int | None,
        echo: bool,
    ) -> Asked:
        body.require_neutral()
        n, seed = body.n or 1, body.seed
        if n > self.limits.choices:
            raise bad(f"n={n} is more than this server gives: {self.limits.choices}", "n")
        try:
            choice = self.samplers.choose(body.sampler, body.longest, body.temperature)
        except UserError as error:
            raise bad(str(error), _param(str(error))) from error
        for prompt in prompts:
            self._require_room(prompt, choice)
        name, stops = f"{prefix}-{secrets.token_hex(12)}", body.stops
        seed = secrets.randbits(31) if seed is None else seed
        identities = [self.prompts.identity(prompt) for prompt in prompts]
        jobs = [
            self._job(
                f"{name}.{i}", prompt, identity, seed, body.replicate + j, choice, stops, logprobs
            )
            for i, (prompt, identity) in enumerate(zip(prompts, identities, strict=True))
            for j in range(n)
        ]
        if echo and logprobs is not None:
            jobs += [
                self._scoring(f"{name}.{i}.prompt", prompt, choice.name, logprobs)
                for i, prompt in enumerate(prompts)
            ]
        return Asked(
            kind=kind,
            id=name,
            created=int(time.time()),
            model=str(self.model.name),
            prompts=tuple(prompts),
            identities=tuple(identities),
            n=n,
            choice=choice,
            seed=seed,
            replicate=body.replicate,
            stops=stops,
            logprobs=logprobs,
            echo=echo,
            jobs=tuple(jobs),
        )

    def _job(
        self,
        name: str,
        prompt: Tokens,
        identity: Identity,
        seed: int,
        replicate: int,
        choice: Choice,
        stops: Sequence[str],
        logprobs: int | None,
    ) -> Job:
        tokenizer, own = self.prompts.tokenizer, self._stop_tokens(stops)
        answer = self._reader(prompt, choice) if choice.sampler.votes else None
        context = Context(
            prompt=prompt,
            eos=tokenizer.eos,
            stop_tokens=(*tokenizer.stop_tokens, *own),
            task_stop_tokens=own,
            answer=answer,
        )
        factory = partial(choice.sampler.chain, context)
        made = factory if logprobs is None else recorded(factory, logprobs)
        stream = identity.stream(seed, replicate)
        return Job(ChainSpec(SampleKey(name, replicate), prompt, made, stream), choice.name)

    def _scoring(self, name: str, prompt: Tokens, sampler: str, logprobs: int) -> Job:
        factory = recorded(lambda state=None, /: scored(prompt[1:]), logprobs)
        stream = Identity("", name).stream(0, 0)
        return Job(ChainSpec(SampleKey(name, 0), prompt[:1], factory, stream), sampler)

    def _stop_tokens(self, stops: Sequence[str]) -> Tokens:
        """The stop strings that are one token each, and all tokens that end a line for a line feed: they end a
        chain, as a task's own stop tokens do."""
        tokenizer, ends = self.prompts.tokenizer, "\n" in stops
        texts = (tokenizer.continuation(stop) for stop in stops)
        single = [tokens[0] for tokens in texts if len(tokens) == 1]
        return tuple(dict.fromkeys([*single, *(self._line_ends if ends else ())]))

    @cached_property
    def _line_ends(self) -> Tokens:
        return self.prompts.tokenizer.line_ends()

    def _reader(self, prompt: Tokens, choice: Choice) -> Callable[[Tokens | str], str | None]:
        try:
            reader = self.prompts.reader(prompt)
        except UserError as error:
            raise bad(str(error), "sampler") from error
        if reader is None:
            raise bad(
                f"sampler={choice.name} votes on answers, and only those to the prompts of "
                f"task={self.prompts.task.name} can be read here; send one of them, or another sampler",
                "sampler",
            )
        return reader

    def require_model(self, name: str) -> None:
        """Raise ApiError for a model that is not this server's."""
        if name != self.model.name:
            raise ApiError(
                404,
                f"the model {name!r} does not exist here; this server has {self.model.name!r}",
                code="model_not_found",
                param="model",
            )

    def _require_room(self, prompt: Tokens, choice: Choice) -> None:
        """Raise ApiError for a prompt that is too long for the context, or for this server's memory."""
        longest, most = choice.sampler.max_tokens, self.model.context_length
        code = "context_length_exceeded"
        if len(prompt) + longest > most:
            raise bad(
                f"the request needs {len(prompt) + longest} tokens (prompt {len(prompt)} + max_tokens "
                f"{longest}), but {self.model.name} has a context of {most}; send a shorter prompt, or a "
                f"smaller max_tokens",
                "max_tokens",
                code,
            )
        if len(prompt) > self.longest_prompt:
            raise bad(
                f"the prompt has {len(prompt)} tokens, more than the {self.longest_prompt} that this server "
                f"was started for (--max-prompt)",
                "prompt",
                code,
            )


def _param(message: str) -> str:
    """The field that a message of a sampler or its choice is about."""
    fields = ("max_tokens", "temperature")
    return next((name for name in fields if message.startswith(name)), "sampler")
