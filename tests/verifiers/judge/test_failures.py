"""What an endpoint's failures mean: refusals of the form or of one pair, and errors inside an answer.

Run: pytest tests/verifiers/judge/test_failures.py
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_endpoint import PROBLEMS, FakeEndpoint, Reply, judge_at, served

from powerbench.models.endpoint.endpoint import REFUSALS
from powerbench.models.endpoint.failures import FailureKind
from powerbench.verifiers.common import CannotScore


@pytest.fixture
def endpoint() -> Iterator[FakeEndpoint]:
    with served(FakeEndpoint()) as fake:
        yield fake


def error(message: str, **fields: Any) -> bytes:
    return json.dumps({"error": {"message": message, **fields}}).encode()


FORM = [
    error("This model has no support for 'logprobs': not supported."),
    error("Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens'.", param="max_tokens"),
    error("Only the default is possible.", param="temperature", code="unsupported_value"),
    error("Expected a value >= 16, but got 1.", param="max_tokens", code="integer_below_min_value"),
    error("top_logprobs must be at most 3."),
    error("max_tokens: must be at least 2"),
    error("The model `fake` does not exist.", code="model_not_found"),
    error("The model 'fake' was not found in this deployment"),
    error("API key not valid. Please pass a valid API key."),
    error("Your credit balance is too low."),
    b'{"detail": [{"loc": ["body", "logprobs"], "msg": "Extra inputs are not permitted"}]}',
    b'{"object": "error", "message": "logprobs is not supported here", "code": 400}',
    b'{"error": "unknown field: top_logprobs"}',
]


@pytest.mark.parametrize("status", [400, 422])
@pytest.mark.parametrize("body", FORM, ids=range(len(FORM)))
def test_a_refusal_of_the_requests_form_ends_judging(
    endpoint: FakeEndpoint, tmp_path: Path, status: int, body: bytes
) -> None:
    endpoint.reply = lambda question: Reply(status, body)
    with pytest.raises(CannotScore, match=f"in 1 attempt: {status} .*; .*verifier") as ended:
        judge_at(endpoint, tmp_path, retries=3).score(PROBLEMS[0], "CANDIDATE")
    assert "\n" not in str(ended.value)
    assert len(endpoint.requests) == 1


CONTENT = [
    (400, error("The response was filtered: content management policy", code="content_filter")),
    (400, error("Refused.", innererror={"code": "ResponsibleAIPolicyViolation"})),
    (400, error("Your prompt was flagged as a violation of the usage policy", code="invalid_prompt")),
    (403, error("This model requires moderation, and the input was flagged")),
    (400, error("Input data may contain inappropriate content", code="data_inspection_failed")),
    (200, error("The prompt was blocked", code="content_filter")),
    (200, b'{"choices": [{"finish_reason": "content_filter", "logprobs": null}]}'),
]  # fmt: skip
LONG = [
    (400, error("maximum context length is 8192 tokens", code="context_length_exceeded")),
    (
        400,
        error("This model's maximum context length is 64 tokens; max_tokens must be less than 0"),
    ),
    (413, error("Request too large for model")),
    (422, error("The input is too long: 9000 tokens")),
    (200, error("prompt is too long", code="context_length_exceeded")),
]


@pytest.mark.parametrize(("status", "body"), CONTENT, ids=range(len(CONTENT)))
def test_however_many_pairs_are_refused_for_their_content_judging_goes_on(
    endpoint: FakeEndpoint, tmp_path: Path, status: int, body: bytes
) -> None:
    endpoint.reply = lambda question: Reply(status, body)
    verifier = judge_at(endpoint, tmp_path, retries=2)
    scores = [verifier.score(problem, "CANDIDATE") for problem in PROBLEMS[:30]]
    assert {score.value for score in scores} == {None}
    assert len(endpoint.requests) == 30
    assert verifier.usage.paid == 0
    endpoint.reply = lambda question: None
    assert verifier.score(PROBLEMS[31], "CANDIDATE").value == 0.5


@pytest.mark.parametrize(
    ("kind", "status", "body"),
    [(FailureKind.TOO_LONG, *each) for each in LONG]
    + [
        (FailureKind.UNCLEAR, 400, b""),
        (FailureKind.UNCLEAR, 422, error("Could not process the request.")),
        (FailureKind.UNCLEAR, 400, error("No.", type="invalid_request_error", param="messages")),
    ],
)
def test_other_refusals_end_judging_if_there_is_nothing_else(
    endpoint: FakeEndpoint, tmp_path: Path, kind: FailureKind, status: int, body: bytes
) -> None:
    few = REFUSALS[kind]
    endpoint.reply = lambda question: Reply(status, body)
    verifier = judge_at(endpoint, tmp_path / "refused")
    for problem in PROBLEMS[: few - 1]:
        assert verifier.score(problem, "CANDIDATE").value is None
    with pytest.raises(CannotScore, match=f"in 1 attempt: {status} "):
        verifier.score(PROBLEMS[few], "CANDIDATE")

    answering = judge_at(endpoint, tmp_path / "answered")
    endpoint.reply = lambda question: None
    assert answering.score(PROBLEMS[0], "CANDIDATE").value == 0.5
    endpoint.reply = lambda question: Reply(status, body)
    scores = [answering.score(problem, "CANDIDATE") for problem in PROBLEMS[1:]]
    assert {score.value for score in scores} == {None}


# -- errors with status 200 -----------------------------------------------------------------------

PASSING = [
    error("Rate limit exceeded", code=429),
    error("Slow down", code="rate_limit_exceeded"),
    error("Overloaded", type="overloaded_error"),
    error("Provider returned error", code="503", metadata={"raw": "busy"}),
    b'{"error": "The model is loading"}',
    b'{"choices": [{"error": {"code": 502, "message": "upstream"}, "finish_reason": "error"}]}',
    b'{"choices": [{"finish_reason": "error", "logprobs": null}]}',
    b'{"object": "error", "message": "out of memory", "code": 500}',
    b'data: {"error": {"code": 429, "message": "busy"}}\n\ndata: [DONE]\n\n',
    *(b"{}", b"[]", b"null", b"", b"nonsense", b"<html>busy</html>", b"[" * 100_000),
    *(b'{"choices": []}', b'{"choices": null}', b'{"choices": [null]}', b'{"id": "1"}'),
]


@pytest.mark.parametrize("body", PASSING, ids=range(len(PASSING)))
def test_an_error_inside_an_answer_is_tried_again(
    endpoint: FakeEndpoint, tmp_path: Path, body: bytes
) -> None:
    endpoint.reply = lambda question: Reply(body=body) if len(endpoint.requests) < 3 else None
    verifier = judge_at(endpoint, tmp_path, retries=3)
    assert verifier.score(PROBLEMS[0], "CANDIDATE").value == 0.5
    assert (len(endpoint.requests), verifier.usage.paid) == (3, 1)
    endpoint.reply = lambda question: Reply(body=body)
    with pytest.raises(CannotScore, match=r"in 4 attempts: (429|50[023]|200) ") as ended:
        verifier.score(PROBLEMS[1], "CANDIDATE")
    assert "log-probabilities" not in str(ended.value)
    assert "\n" not in str(ended.value)
    assert verifier.usage.paid == 1


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (error("No auth", code=401), "401 No auth .*valid key"),
        (error("Wrong", code="invalid_api_key"), "200 Wrong; .*valid key"),
        (error("Insufficient credits", code=402), "402 Insufficient credits"),
        (error("Out of quota", code="insufficient_quota"), "200 Out of quota"),
        (error("No endpoints found", code=404), "404 No endpoints found .*verifier.model"),
        (error("logprobs is not supported", code=400), "400 logprobs is not supported .*takes"),
        (error("No such model", code="model_not_found"), "200 No such model; .*verifier.model"),
    ],
)
def test_an_error_inside_an_answer_that_the_user_must_fix_ends_judging_at_once(
    endpoint: FakeEndpoint, tmp_path: Path, body: bytes, said: str
) -> None:
    endpoint.reply = lambda question: Reply(body=body)
    with pytest.raises(CannotScore, match=f"in 1 attempt: {said}"):
        judge_at(endpoint, tmp_path, retries=3).score(PROBLEMS[0], "CANDIDATE")
    assert len(endpoint.requests) == 1


def test_an_answer_with_an_empty_error_is_an_answer(endpoint: FakeEndpoint, tmp_path: Path) -> None:
    completion = endpoint._completion

    def with_null(request: dict[str, Any], question: str) -> bytes:
        return json.dumps(json.loads(completion(request, question)) | {"error": None}).encode()

    endpoint._completion = with_null  # type: ignore[method-assign]
    assert judge_at(endpoint, tmp_path).score(PROBLEMS[0], "CANDIDATE").value == 0.5
