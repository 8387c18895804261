"""Whole responses of an endpoint: what is asked for, and what the body of its answer says."""

import math
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from powerbench.models.endpoint.endpoint import CHAT, TEXT, Asked
from powerbench.models.endpoint.failures import CannotAsk, at, one_line, parsed
from powerbench.models.endpoint.model import EndpointModel
from powerbench.types import FinishReason, Prompt

FINISHES = {
    **dict.fromkeys(("stop", "eos", "eos_token", "stop_sequence", "end_turn"), FinishReason.STOP),
    **dict.fromkeys(("length", "max_tokens", "model_length"), FinishReason.LENGTH),
    **dict.fromkeys(("content_filter", "refusal", "safety"), FinishReason.REFUSED),
}
"""What endpoints say of how a response ended."""
THOUGHT = re.compile(r"\s*(?:<think>)?(.*?)</think>\s*|\s*<think>(.*)", re.DOTALL)
"""The reasoning in a chat's answer whose server leaves it there, in DeepSeek-R1's format: the template may have
written the first mark, and a response that was cut short has no second one."""


class Wanted(NamedTuple):
    """How a response is to be drawn."""

    temperature: float
    max_tokens: int
    stop: Sequence[str] = ()
    """Texts that end it."""
    top_logprobs: int | None = None
    """Report log-probabilities: of each token, and of this many likeliest ones (>= 1); None: none."""


@dataclass(frozen=True)
class Answered:
    """What an endpoint answered to a request for a whole response: what its cache keeps."""

    text: str
    finish: str | None
    """As the endpoint says it."""
    model: str
    """As the endpoint names it."""
    prompt_tokens: int
    completion_tokens: int
    time: float
    """When it came, in seconds since 1970."""
    reasoning: str | None = None
    reasoning_tokens: int | None = None
    refusal: str | None = None
    logp: list[float] = field(default_factory=list)
    """Of each token of the text, nats, as the endpoint reports them; empty if it reports none."""
    top: list[list[float]] = field(default_factory=list)
    """Of the likeliest tokens at each position, likeliest first."""

    @property
    def finish_reason(self) -> FinishReason:
        """Why it ended. An answer without a text that says why it refuses is a refusal, however it ended."""
        if self.refusal is not None:
            return FinishReason.REFUSED
        return FINISHES.get((self.finish or "").lower(), FinishReason.UNKNOWN)


def asked(
    model: EndpointModel, prompt: Prompt, wanted: Wanted, name: tuple[str | int, ...]
) -> Asked:
    """The request for a response: a chat of one turn, or raw text to be continued.

    name: tells apart responses that are asked for in the same words.
    """
    text = prompt.text.encode(errors="replace").decode()  # half of a surrogate pair cannot be sent
    turn = {"messages": [{"role": "user", "content": text}]}
    request: dict[str, Any] = {
        "model": model.id,
        **(turn if prompt.chat else {"prompt": text}),
        model.length_field: wanted.max_tokens,
        "temperature": wanted.temperature,
    }
    if wanted.stop:
        request["stop"] = list(wanted.stop)
    if wanted.top_logprobs is not None:
        few = {"logprobs": True, "top_logprobs": wanted.top_logprobs}
        request |= few if prompt.chat else {"logprobs": wanted.top_logprobs}
    request |= model.options
    body = {k: value for k, value in request.items() if value is not None}
    return Asked(body, wanted.max_tokens, CHAT if prompt.chat else TEXT, name)


def read(body: str, asked: Asked) -> Answered:
    """The answer in a body. Raises CannotAsk if it has no usage: then nobody knows what it cost."""
    reply = parsed(body)
    choice, usage = at(reply, "choices", 0), at(reply, "usage")
    tokens = [at(usage, f"{part}_tokens") for part in ("prompt", "completion")]
    if not all(isinstance(count, int) and count >= 0 for count in tokens):
        raise CannotAsk(
            "the endpoint does not say how many tokens its answer took (usage), so that there is no bill: "
            "choose one that does"
        )
    text = at(choice, "text") if asked.route == TEXT else at(choice, "message", "content")
    reasoning = at(choice, "message", "reasoning_content") or at(choice, "message", "reasoning")
    text, thought = _plain(text), _plain(reasoning) or None
    if asked.route == CHAT and thought is None:
        text, thought = _apart(text)
    named, finish = at(reply, "model"), at(choice, "finish_reason")
    refusal = at(choice, "message", "refusal")
    thinking = at(usage, "completion_tokens_details", "reasoning_tokens")
    logp, top = _logprobs(at(choice, "logprobs"), _top(asked))
    return Answered(
        text=text,
        finish=finish if isinstance(finish, str) else None,
        model=one_line(named) if isinstance(named, str) and named else str(asked.request["model"]),
        prompt_tokens=tokens[0],
        completion_tokens=tokens[1],
        time=time.time(),
        reasoning=thought,
        reasoning_tokens=thinking if isinstance(thinking, int) else None,
        refusal=refusal if isinstance(refusal, str) and refusal else None,
        logp=logp,
        top=top,
    )


def _plain(content: Any) -> str:
    """The text of a message: as it is, or of its parts. Halves of surrogate pairs become question marks."""
    if isinstance(content, list):
        content = "".join(str(at(part, "text") or "") for part in content)
    return content.encode(errors="replace").decode() if isinstance(content, str) else ""


def _apart(text: str) -> tuple[str, str | None]:
    """The answer, and the reasoning that stands before it."""
    found = THOUGHT.match(text)
    if found is None:
        return text, None
    return text[found.end() :], (found[1] if found[1] is not None else found[2]).strip()


def _top(asked: Asked) -> int | None:
    """How many likeliest tokens were asked for; None where no log-probabilities were."""
    chat, text = asked.request.get("top_logprobs"), asked.request.get("logprobs")
    return text if chat is None else chat


def _logprobs(found: Any, top: int | None) -> tuple[list[float], list[list[float]]]:
    """Of each token, and of the likeliest at its position: both forms of the API. Two empty lists if they are
    not all there."""
    if top is None:
        return [], []
    content = at(found, "content")
    if isinstance(content, list):
        logp = [at(token, "logprob") for token in content]
        likeliest = [[at(x, "logprob") for x in at(t, "top_logprobs") or []] for t in content]
    else:
        logp = list(at(found, "token_logprobs") or [])
        given = at(found, "top_logprobs") or []
        likeliest = [list(x.values()) if isinstance(x, dict) else [] for x in given]
    whole = len(likeliest) == len(logp) and all(likeliest)
    if not whole or not all(map(_is_logprob, (*logp, *(x for each in likeliest for x in each)))):
        return [], []
    rows = [sorted((min(0.0, float(x)) for x in each), reverse=True)[:top] for each in likeliest]
    return [min(0.0, float(x)) for x in logp], rows


def _is_logprob(x: Any) -> bool:
    return isinstance(x, int | float) and not isinstance(x, bool) and math.isfinite(x)
