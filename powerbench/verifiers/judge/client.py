"""One request to an OpenAI-compatible endpoint: what its failure means, and what its answer says."""

import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import mktime_tz, parsedate_tz
from enum import Enum, auto
from typing import Any

from powerbench.verifiers.judge.answer_cache import Answer

REFUSED = (400, 413, 422)
"""Statuses that concern the request's content."""
TRANSIENT = (408, 409, 425, 429)
"""Statuses, besides all from 500 on, after which the same request may well succeed."""
NO_CREDIT = "insufficient_quota"
"""OpenAI's code for an empty account: it comes with status 429, and no waiting helps."""


class FailureKind(Enum):
    """Which requests a failure concerns, and for how long."""

    REQUEST = auto()
    """This request, for its own content."""
    TRANSIENT = auto()
    """All requests, for some time."""
    PERMANENT = auto()
    """All requests, until the user fixes the cause."""


@dataclass
class RequestFailed(Exception):  # noqa: N818
    """Why there is no answer."""

    reason: str
    kind: FailureKind
    remedy: str = ""
    wait: float = 0.0
    """Seconds for which the endpoint asks to be left alone."""


class Client:
    """The connections to one endpoint; to be used by several threads at once.

    key: None if the endpoint needs none. It never appears in what is raised.
    timeout: seconds for connecting, and for each wait for more of an answer.
    """

    def __init__(self, base_url: str, key: str | None, timeout: float) -> None:
        from openai import OpenAI  # slow to import

        self._key = key
        self._timeout = timeout
        self._client = OpenAI(
            api_key=key or "none", base_url=base_url, timeout=timeout, max_retries=0
        )

    def send(self, request: Mapping[str, Any]) -> str:
        """The body of the answer to a chat completion request, sent once. Raises RequestFailed."""
        from openai import APIConnectionError, APIStatusError, APITimeoutError

        try:
            return self._client.chat.completions.with_raw_response.create(**request).text
        except APIStatusError as error:
            reason = self._clean(_message(error.body) or error.response.reason_phrase)
            raise of_status(
                error.status_code, reason, error.code, retry_after(error.response.headers)
            ) from error
        except APITimeoutError as error:
            raise RequestFailed(
                f"no answer in {self._timeout:g} s", FailureKind.TRANSIENT
            ) from error
        except APIConnectionError as error:
            reason = self._clean(str(error.__cause__ or error))
            remedy = "see that it runs, and that verifier.base_url is right"
            raise RequestFailed(reason, FailureKind.TRANSIENT, remedy) from error

    def close(self) -> None:
        self._client.close()

    def _clean(self, text: str) -> str:
        return one_line(text.replace(self._key, "<the key>") if self._key else text)


def of_status(status: int, reason: str, code: str | None, wait: float) -> RequestFailed:
    """What a status other than success means."""
    said = f"{status} {reason}"
    if status in REFUSED:
        return RequestFailed(said, FailureKind.REQUEST)
    if (status in TRANSIENT or status >= 500) and code != NO_CREDIT:
        return RequestFailed(said, FailureKind.TRANSIENT, "see that it works", wait)
    remedies = {
        401: "set the variable named by verifier.key_env to a valid key",
        403: "use a key (verifier.key_env) that is allowed to use verifier.model",
        404: "see that verifier.base_url (often ending in /v1) and verifier.model are right",
    }
    return RequestFailed(said, FailureKind.PERMANENT, remedies.get(status, "see to that"))


def retry_after(headers: Mapping[str, str]) -> float:
    """Seconds for which the endpoint asks to be left alone; 0 if it does not.

    From Retry-After (RFC 9110, section 10.2.3: a number or a date) or OpenAI's retry-after-ms.
    """
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            return max(0.0, float(headers[name]) / unit)
        except (KeyError, ValueError):
            continue
    date = parsedate_tz(headers.get("retry-after", ""))
    return 0.0 if date is None else max(0.0, mktime_tz(date) - time.time())


def read_answer(body: str, model: str, prompt_tokens: int, completion_tokens: int) -> Answer:
    """The answer in a body, whatever that is; the other arguments stand in for what it does not say."""
    try:
        reply = json.loads(body)
    except (ValueError, RecursionError):
        reply = None
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
        model=one_line(named) if isinstance(named, str) and named else model,
        prompt_tokens=prompt if isinstance(prompt, int) else prompt_tokens,
        completion_tokens=completion if isinstance(completion, int) else completion_tokens,
        time=time.time(),
    )


def at(value: Any, *path: str | int) -> Any:
    """The part of parsed JSON at a path; None if there is no such part."""
    for step in path:
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            return None
    return value


def one_line(text: str) -> str:
    """At most 300 characters, without line breaks and without halves of surrogate pairs."""
    return " ".join(text.encode(errors="replace").decode().split())[:300]


def _message(body: object) -> str:
    """What the body of a failure says; nothing for a web page."""
    said = body if isinstance(body, str) else at(body, "message") or at(body, "detail")
    return said if isinstance(said, str) and not said.lstrip().startswith("<") else ""
