"""What a failure of an endpoint means: for one request, for some time, or until the user mends it.

Endpoints agree on little. They say what is wrong by a status, by `error.code`, `error.type` and
`error.param` (OpenAI's API reference, "Error codes"), in words, or with an error inside a status of 200
(OpenRouter's "Errors and debugging"); they are read in this order of trust: code, param, words, status.
"""

import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import mktime_tz, parsedate_tz
from enum import Enum, auto
from typing import Any, NamedTuple

from powerbench.errors import UserError

REFUSED = (400, 413, 422)
"""Statuses of a request that is refused for its form or its content."""
TRANSIENT = (408, 409, 425, 429)
"""Statuses, besides all from 500 on, after which the same request may well succeed."""
UNKNOWN = 502
"""Stands for the status of an error that names none: it may pass."""
STATUS_OF = {
    **dict.fromkeys(("insufficient_quota", "billing_hard_limit_reached", "insufficient_credits"), 402),
    **dict.fromkeys(("invalid_api_key", "authentication_error", "unauthorized"), 401),
    **dict.fromkeys(("permission_error", "permission_denied", "model_not_allowed"), 403),
    **dict.fromkeys(("model_not_found", "not_found_error", "deploymentnotfound"), 404),
    **dict.fromkeys(("rate_limit_exceeded", "rate_limit_error", "too_many_requests"), 429),
    **dict.fromkeys(("server_error", "internal_error", "api_error", "overloaded_error"), 503),
    **dict.fromkeys(("invalid_request_error", "badrequesterror", "bad_request"), 400),
}  # fmt: skip
"""The status that a code or type stands for, where it says more than the status that came."""
CONTENT = re.compile(
    r"content.?(filter|policy|management|moderation)|moderation|flagged|responsible.?ai|safety|"
    r"data_inspection|sensitive|invalid.?prompt|unsafe|harmful|recitation"
)
LENGTH = re.compile(
    r"context.?(length|window|size)|(max(imum)?|model).?(context|model.?len|prompt|input)|string_above_max|"
    r"too (long|large|many tokens)|reduce the length|request_too_large|token.? limit|exceeds? .*(tokens|length)"
)
FORM = re.compile(
    r"unsupported|not support|unrecognized|unknown|not permitted|not allowed|forbidden|extra (field|input)s?|"
    r"unexpected|invalid.?(model|param|argument|value)|deprecated|does.?n.t (exist|support)|not (exist|found|"
    r"available|implemented|valid)|must be|should be|at (least|most)|disabled|less than|greater than|"
    r"minimum|expected"
)
ACCOUNT = re.compile(
    r"api.?key|credentials?\b|credit balance|billing|insufficient.(quota|credits|balance)"
)
OVERLOADED = ("error", "insufficient_system_resource")
"""Values of finish_reason of an answer that is none: an error (OpenRouter), or too few resources (DeepSeek)."""
REMEDIES = {
    401: "set the variable named by {section}.key_env to a valid key",
    403: "use a key ({section}.key_env) that is allowed to use {model}",
    404: "see that {section}.base_url (often ending in /v1) and {model} are right",
    407: "give the proxy's name and password in HTTPS_PROXY or HTTP_PROXY (http://name:password@host:port)",
}


class FailureKind(Enum):
    """Which requests a failure concerns, and for how long."""

    REQUEST = auto()
    """This request, for its own content."""
    UNCLEAR = auto()
    """This request at least; all of them, if none is ever answered."""
    TOO_LONG = auto()
    """This request, for its length; all of them, if the model's context is too short for the prompt."""
    TRANSIENT = auto()
    """All requests, for some time."""
    PERMANENT = auto()
    """All requests, until the user fixes the cause."""


class CannotAsk(UserError):  # noqa: N818
    """No further request can be answered now: the endpoint cannot be reached, or its budget is spent.

    Asking stops; the answers so far are kept, and the same command continues from them.
    """


class Unanswered(Exception):  # noqa: N818
    """This request has no answer, for a reason of its own; others may have one."""

    def __init__(self, reason: str, kind: FailureKind | None = None) -> None:
        """kind: None where there was an answer that is of no use."""
        super().__init__(reason)
        self.kind = kind


@dataclass
class RequestFailed(Exception):  # noqa: N818
    """Why there is no answer."""

    reason: str
    kind: FailureKind
    remedy: str = ""
    """With `{section}` and `{model}` for what the user set, see `Names.fill`."""
    wait: float = 0.0
    """Seconds for which the endpoint asks to be left alone."""


class Said(NamedTuple):
    """What the body of a failure says, as far as it does."""

    message: str = ""
    code: str = ""
    type: str = ""
    param: str = ""
    status: int = 0
    """As the body has it; 0 if it has none."""


def said(error: Any) -> Said:
    """From the value of `error` in a body, or from all of a body without one; a web page says nothing."""
    if isinstance(error, str):
        return Said("" if error.lstrip().startswith("<") else error)
    texts = [at(error, key) for key in ("message", "detail", "msg", "error")]
    words = [text for text in texts if isinstance(text, str) and text]
    other = at(error, "detail") or at(error, "metadata", "raw")
    inner = at(error, "innererror", "code") or at(error, "metadata", "error_type")
    code, kind, param = (str(at(error, key) or "") for key in ("code", "type", "param"))
    numbers = (str(at(error, key)) for key in ("code", "status", "status_code"))
    return Said(
        message=words[0] if words else json.dumps(other) if other else "",
        code=str(inner) if inner else code,
        type=kind,
        param=param,
        status=next((int(n) for n in numbers if re.fullmatch("[45][0-9]{2}", n)), 0),
    )


def of_status(
    status: int, line: str, error: Said, wait: float, settings: Mapping[str, Any]
) -> RequestFailed:
    """What a status other than success means.

    line: the reason to give. settings: the request's own parameters, without its messages; a refusal that
    names one is of its form.
    """
    if status in (*REFUSED, 404, 429) or status >= 500:
        codes = (error.code.lower(), error.type.lower())
        status = next((STATUS_OF[code] for code in codes if code in STATUS_OF), status)
    if status in REFUSED or (status == 403 and CONTENT.search(error.message.lower())):
        return _refused(line, error, settings)
    if status in TRANSIENT or status >= 500:
        return RequestFailed(line, FailureKind.TRANSIENT, "see that it works", wait)
    return RequestFailed(line, FailureKind.PERMANENT, REMEDIES.get(status, "see to that"))


def _refused(line: str, error: Said, settings: Mapping[str, Any]) -> RequestFailed:
    codes, words = f"{error.code} {error.type}".lower(), error.message.lower()
    named = [name for name in settings if re.search(rf"\b{name}\b", words)]
    bad_form = bool(FORM.search(words))
    if CONTENT.search(codes):
        kind, remedy = FailureKind.REQUEST, ""
    elif ACCOUNT.search(words):
        kind, remedy = FailureKind.PERMANENT, REMEDIES[401]
    elif error.param.split(".")[-1] in settings or "unsupported" in codes:
        kind, remedy = FailureKind.PERMANENT, _takes(settings)
    elif LENGTH.search(f"{codes} {words}"):
        kind, remedy = FailureKind.TOO_LONG, "choose a {model} of a longer context"
    elif bad_form and set(named) - {"model"}:
        kind, remedy = FailureKind.PERMANENT, _takes(settings)
    elif CONTENT.search(words):
        kind, remedy = FailureKind.REQUEST, ""
    elif bad_form and named:
        kind, remedy = FailureKind.PERMANENT, _takes(settings)
    else:
        kind, remedy = FailureKind.UNCLEAR, "see what it refuses"
    return RequestFailed(line, kind, remedy)


def _takes(settings: Mapping[str, Any]) -> str:
    names = ", ".join(name for name in settings if name != "model")
    return f"set {{section}}.base_url and {{model}} to a model that takes {names}"


def of_success(
    body: str, wait: float, settings: Mapping[str, Any], cut_counts: bool = False
) -> RequestFailed | None:
    """What is wrong with a body that came with status 200; None if it holds an answer.

    cut_counts: whether an answer that a filter cut short is an answer even without log-probabilities.
    """
    reply = parsed(body)
    choice = at(reply, "choices", 0)
    error = at(reply, "error") or at(choice, "error")
    if not error and isinstance(choice, dict):
        cut = at(choice, "finish_reason") == "content_filter"
        if cut and not cut_counts and not at(choice, "logprobs", "content"):
            return RequestFailed("200 content_filter", FailureKind.REQUEST)
        if at(choice, "finish_reason") not in OVERLOADED:
            return None
    told = said(error or (reply if not choice else None))
    if not told.message and not error:
        told = told._replace(message=_without_answer(body, reply, choice))
    words = f"{told.code} {told.type}".strip()
    status = told.status or next((STATUS_OF[w] for w in words.lower().split() if w in STATUS_OF), 0)
    if not status:
        refused = CONTENT.search(words.lower()) or LENGTH.search(words.lower())
        status = REFUSED[0] if refused else UNKNOWN
    line = f"{told.status or 200} {one_line(told.message or words or 'an error')}"
    line += " (an error with status 200)" if told.status else ""
    failed = of_status(status, line, told, wait, settings)
    if status == UNKNOWN:
        failed.remedy = (
            "see that it works, and that {section}.base_url (often ending in /v1) is right"
        )
    return failed


def _without_answer(body: str, reply: Any, choice: Any) -> str:
    if choice is not None:
        return f"finish_reason: {at(choice, 'finish_reason')}"
    if reply is None:
        return f"no JSON: {body.strip()[:60]}" if body.strip() else "an empty answer"
    return "no choices"


def parsed(body: str) -> Any:
    """The JSON in a body, or in the first event of a stream that has some; None without any."""
    lines = body.splitlines() if body.startswith(("data:", "event:", ":")) else []
    for text in [body, *(line.removeprefix("data:") for line in lines if line.startswith("data:"))]:
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            continue
    return None


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
