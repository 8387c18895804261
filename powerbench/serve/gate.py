"""What every HTTP request passes first: its key, the size of its body; and the count of what was answered."""

import hmac
import json
import time
from dataclasses import dataclass

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from powerbench.serve.failures import AUTH, ApiError
from powerbench.serve.metrics import Metrics

OPEN = ("/health",)
"""What is answered without a key."""
PATHS = ("/v1/completions", "/v1/chat/completions", "/v1/models", "/health", "/metrics")
"""Those that are counted by their names; all others are together."""
MAX_BODY = 8 * 2**20
"""Bytes."""


def as_response(error: ApiError) -> Response:
    """An error, as it is sent."""
    text = json.dumps(error.body)  # in ASCII, for a value that it names may not be valid Unicode
    return Response(text, error.status_code, error.sent_headers, "application/json")


@dataclass(frozen=True)
class Gate:
    """Middleware around the routes.

    key: what requests must give as `Authorization: Bearer <key>`; None: nothing.
    """

    app: ASGIApp
    key: str | None
    metrics: Metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.monotonic(), 499  # the client had gone before it was answered

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        path = scope["path"] if scope["path"] in PATHS else "other"
        try:
            await self._admit(scope, receive, counted)
        finally:
            self.metrics.request(path, status, time.monotonic() - began)

    async def _admit(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        if scope["path"] not in OPEN and not self._knows(headers.get(b"authorization", b"")):
            message = "wrong or missing API key: send it as Authorization: Bearer <key>"
            error = ApiError(401, message, AUTH, "invalid_api_key")
            await as_response(error)(scope, receive, send)
            return
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > MAX_BODY:
            await as_response(too_large())(scope, receive, send)
            return
        await self.app(scope, _bounded(receive), send)

    def _knows(self, given: bytes) -> bool:
        if self.key is None:
            return True
        scheme, _, key = given.partition(b" ")
        return scheme.lower() == b"bearer" and hmac.compare_digest(key.strip(), self.key.encode())


def too_large() -> ApiError:
    return ApiError(413, f"the body is larger than {MAX_BODY // 2**20} MiB", code="body_too_large")


def _bounded(receive: Receive) -> Receive:
    """The same messages, of a body that is not larger than allowed. Raises ApiError where it is."""
    size = 0

    async def bounded() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > MAX_BODY:
            raise too_large()
        return message

    return bounded
