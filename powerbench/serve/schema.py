"""The bodies of requests: OpenAI's fields, and the two that are ours, `sampler` and `replicate`.

A field that no sampler can honour is refused unless it has the value that changes nothing; one that concerns
the client's own book-keeping (`user`, `metadata`, `store`, `service_tier`) is read and has no effect.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from powerbench.serve.failures import ApiError, bad

STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


def _unicode(text: str) -> str:
    """JSON can spell half a surrogate pair, which no tokenizer takes."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError("the text is not valid Unicode") from error
    return text


Text = Annotated[str, AfterValidator(_unicode)]
MAX_STOPS = 16
MAX_TOP_LOGPROBS = 20


class StreamOptions(BaseModel):
    """What a stream reports beside the answer."""

    model_config = ConfigDict(extra="ignore", strict=True)
    include_usage: bool = False


class Body(BaseModel):
    """The fields that both kinds of completion have."""

    model_config = STRICT
    neutral: ClassVar[Mapping[str, Sequence[Any]]] = {
        "top_p": (1,),
        "presence_penalty": (0,),
        "frequency_penalty": (0,),
        "logit_bias": ({},),
    }
    """Fields that no sampler honours, and the values that ask for nothing."""

    model: str
    max_tokens: int | None = Field(None, ge=1)
    n: int | None = Field(None, ge=1)
    seed: int | None = None
    stop: Text | list[Text] | None = None
    temperature: float | None = Field(None, ge=0)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    sampler: str | dict[str, Any] | None = None
    """Ours: the name of a sampler, or an object of its name and settings."""
    replicate: int = Field(0, ge=0)
    """Ours: the replicate of the first of n answers."""
    top_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    user: str | None = None
    metadata: dict[str, Any] | None = None
    store: bool | None = None
    service_tier: str | None = None

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings, as a tuple. Raises ApiError for an empty one, or too many."""
        given = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        if len(given) > MAX_STOPS or not all(given):
            raise bad(f"stop must be at most {MAX_STOPS} strings, none of them empty", "stop")
        return given

    @property
    def longest(self) -> int | None:
        """The longest answer asked for, in tokens."""
        return self.max_tokens

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage

    def require_neutral(self) -> None:
        """Raise ApiError for a field that would have to change the answer, and cannot."""
        for name, values in self.neutral.items():
            value = getattr(self, name)
            if value is not None and value not in values:
                raise unsupported(name, value, values)


def unsupported(name: str, value: object, values: Sequence[object]) -> ApiError:
    known = " or ".join("{}" if each == {} else str(each) for each in values)
    return bad(
        f"{name}={value!r} is not supported: an answer's law is its sampler's; leave it out, or send {known}",
        name,
        "unsupported_value",
    )


class CompletionBody(Body):
    """`/v1/completions`: raw text, or token ids."""

    neutral: ClassVar[Mapping[str, Sequence[Any]]] = {**Body.neutral, "suffix": ("",)}

    prompt: Text | list[Text] | list[int] | list[list[int]]
    logprobs: int | None = Field(None, ge=0, le=MAX_TOP_LOGPROBS)
    echo: bool = False
    best_of: int | None = None
    suffix: str | None = None

    def require_neutral(self) -> None:
        super().require_neutral()
        if self.best_of not in (None, self.n or 1):
            raise bad("best_of other than n is not supported: send sampler=best_of_n", "best_of")


class TextPart(BaseModel):
    """A part of a message that is text: no other kind is read."""

    model_config = STRICT
    type: Literal["text"]
    text: Text


class Message(BaseModel):
    """A turn of a conversation."""

    model_config = STRICT
    role: Literal["system", "user", "assistant"]
    content: Text | list[TextPart]
    name: str | None = None

    @property
    def text(self) -> str:
        """The whole content."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content)


class ChatBody(Body):
    """`/v1/chat/completions`: a conversation, through the model's chat template."""

    neutral: ClassVar[Mapping[str, Sequence[Any]]] = {
        **Body.neutral,
        "tools": ([],),
        "tool_choice": ("none", "auto"),
        "response_format": ({"type": "text"},),
    }

    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=MAX_TOP_LOGPROBS)
    tools: list[Any] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    response_format: dict[str, Any] | None = None

    @property
    def longest(self) -> int | None:
        if None not in (self.max_tokens, self.max_completion_tokens):
            raise bad("send max_tokens or max_completion_tokens, not both", "max_tokens")
        return self.max_tokens or self.max_completion_tokens
