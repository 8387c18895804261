"""One request to an OpenAI-compatible endpoint, and what it raises."""

from collections.abc import Mapping
from typing import Any

from powerbench.models.endpoint.failures import (
    FailureKind,
    RequestFailed,
    of_status,
    of_success,
    one_line,
    retry_after,
    said,
)
from powerbench.models.endpoint.network import http_client, of_connection


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

    def send(self, route: str, request: Mapping[str, Any], cut_counts: bool = False) -> str:
        """The body of the answer to a request, sent once. Raises RequestFailed.

        route: `/chat/completions` or `/completions`. cut_counts: as for `of_success`.
        """
        import httpx
        from openai import APIConnectionError, APIStatusError, APITimeoutError

        settings = {k: value for k, value in request.items() if k not in ("messages", "prompt")}
        try:
            response = self._client.post(route, body=dict(request), cast_to=httpx.Response)
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
        wait = retry_after(response.headers)
        if failed := of_success(response.text, wait, settings, cut_counts):
            failed.reason = self._clean(failed.reason)
            raise failed
        return response.text

    def close(self) -> None:
        self._client.close()

    def _clean(self, text: str) -> str:
        return one_line(text.replace(self._key, "<the key>") if self._key else text)
