"""One request to an OpenAI-compatible endpoint: what it raises, and what its answer says."""

import math
import time
from collections.abc import Mapping
from typing import Any

from powerbench.verifiers.judge.answer_cache import Answer
from powerbench.verifiers.judge.failures import (
    FailureKind,
    RequestFailed,
    at,
    of_status,
    of_success,
    one_line,
    parsed,
    retry_after,
    said,
)
from powerbench.verifiers.judge.network import http_client, of_connection


class Client:
    """The connections to one endpoint; to be used by several threads at once.

    key: None if the endpoint needs none. It never appears in what is raised.
    timeout: seconds for connecting, and for each wait for more of an answer.
    """

    def __init__(self, base_url: str, key: str | None, timeout: float) -> None:
        """Raises RequestFailed, for good, where the proxies or certificates that are set cannot be used."""
        from openai import OpenAI  # slow to import

        self._key = key
        self._url = base_url
        self._timeout = timeout
        self._client = OpenAI(
            api_key=key or "none",
            base_url=base_url,
            timeout=timeout,
            max_retries=0,
            http_client=http_client(base_url),
        )

    def send(self, request: Mapping[str, Any]) -> str:
        """The body of the answer to a chat completion request, sent once. Raises RequestFailed."""
        from openai import APIConnectionError, APIStatusError, APITimeoutError

        settings = {name: value for name, value in request.items() if name != "messages"}
        try:
            response = self._client.chat.completions.with_raw_response.create(**request)
        except APIStatusError as error:
            told = said(error.body)
            reason = self._clean(told.message or error.response.reason_phrase)
            wait = retry_after(error.response.headers)
            line = f"{error.status_code} {reason}"
            raise of_status(error.status_code, line, told, wait, settings) from error
        except APITimeoutError as error:
            raise RequestFailed(
                f"no answer in {self._timeout:g} s", FailureKind.TRANSIENT
            ) from error
        except APIConnectionError as error:
            cause = error.__cause__ or error
            raise of_connection(cause, self._url, self._clean(str(cause))) from error
        if failed := of_success(response.text, retry_after(response.headers), settings):
            failed.reason = self._clean(failed.reason)
            raise failed
        return response.text

    def close(self) -> None:
        self._client.close()

    def _clean(self, text: str) -> str:
        return one_line(text.replace(self._key, "<the key>") if self._key else text)


def read_answer(body: str, model: str, prompt_tokens: int, completion_tokens: int) -> Answer:
    """The answer in a body, whatever that is; the other arguments stand in for what it does not say."""
    reply = parsed(body)
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
