"""What an endpoint answers to a request for one token."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass

from powerbench.models.endpoint.endpoint import Asked, Reading
from powerbench.models.endpoint.failures import at, one_line, parsed


@dataclass(frozen=True)
class Answer:
    """What an endpoint answered to a request for one token."""

    logprobs: Mapping[str, float]
    """The most likely tokens and their log-probabilities, nats; empty if the endpoint gave none."""
    model: str
    """The model, as the endpoint names it."""
    prompt_tokens: int
    completion_tokens: int
    time: float
    """When it came, in seconds since 1970."""


def read_answer(body: str, asked: Asked) -> Answer:
    """The answer in a body, whatever that is; for usage that it does not say stands what was expected."""
    reply, expected = parsed(body), asked.expected()
    named, prompt, completion = (
        at(reply, *path)
        for path in (("model",), ("usage", "prompt_tokens"), ("usage", "completion_tokens"))
    )
    top = at(reply, "choices", 0, "logprobs", "content", 0, "top_logprobs")
    likely = [(at(x, "token"), at(x, "logprob")) for x in (top if isinstance(top, list) else [])]
    return Answer(
        logprobs={
            token: min(0.0, float(logprob))
            for token, logprob in likely
            if isinstance(token, str) and isinstance(logprob, int | float)
            if not math.isnan(logprob)
        },
        model=one_line(named) if isinstance(named, str) and named else str(asked.request["model"]),
        prompt_tokens=prompt if isinstance(prompt, int) else expected[0],
        completion_tokens=completion if isinstance(completion, int) else expected[1],
        time=time.time(),
    )


READING = Reading(
    Answer,
    read_answer,
    has_logprobs=lambda answer: bool(answer.logprobs),
    no_logprobs="set {section}.base_url and {model} to an endpoint that gives them for chat completions "
    "(top_logprobs)",
)
