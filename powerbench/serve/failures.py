"""What the server answers where it cannot do what is asked: OpenAI's error objects."""

import math
from collections.abc import Sequence
from typing import Any

from fastapi import HTTPException
from pydantic_core import ErrorDetails

from powerbench.errors import unknown

INVALID, RATE, AUTH, SERVER = (
    "invalid_request_error",
    "rate_limit_error",
    "authentication_error",
    "server_error",
)


class ApiError(HTTPException):
    """An error that the client is told: an HTTP status, and the fields of OpenAI's error object."""

    def __init__(
        self,
        status: int,
        message: str,
        kind: str = INVALID,
        code: str | None = None,
        param: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        """kind: the object's `type`. retry_after: seconds after which the same request may succeed."""
        super().__init__(status, message)
        self.message, self.kind, self.code, self.param = message, kind, code, param
        self.retry_after = retry_after

    @property
    def body(self) -> dict[str, Any]:
        """The error object."""
        return {
            "error": {
                "message": self.message,
                "type": self.kind,
                "param": self.param,
                "code": self.code,
            }
        }

    @property
    def sent_headers(self) -> dict[str, str]:
        """The headers that go with it."""
        headers = {"WWW-Authenticate": "Bearer"} if self.status_code == 401 else {}
        if self.retry_after is not None:
            headers["Retry-After"] = str(max(1, math.ceil(self.retry_after)))
        return headers


def bad(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    """A request that can never succeed as it is: status 400."""
    return ApiError(400, message, code=code, param=param)


def shutting_down() -> ApiError:
    """The server ends before the answer is there: status 503."""
    return ApiError(503, "the server is shutting down", SERVER, "shutting_down", retry_after=30)


def of_invalid_body(errors: Sequence[ErrorDetails | Any], fields: Sequence[str]) -> ApiError:
    """What a body's first mistake comes to; fields: those that a body may have."""
    first = errors[0]
    where = [str(part) for part in first["loc"] if part != "body"]
    if first["type"] == "json_invalid":
        return bad(f"the body is not JSON: {first['ctx']['error']}")
    if first["type"] == "extra_forbidden" and len(where) == 1:
        return bad(str(unknown("field", where[0], fields)), where[0], "unknown_field")
    param = where[0] if where else None
    wrong = f"{'.'.join(where)}: {first['msg']}" if where else f"the body: {first['msg']}"
    return bad(wrong[0].lower() + wrong[1:], param)
