"""The judges: what they make of a judge's token probabilities, and of an endpoint that misbehaves.

Run: pytest tests/verifiers/test_judge.py
"""

import json
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from powerbench.errors import UserError
from powerbench.types import Problem, Prompt
from powerbench.verifiers.judge import EndpointJudge, StandInJudge

PROBLEMS = [
    Problem(str(i), Prompt(""), "BASELINE", {"instruction": f"Do {i} {{things}}."})
    for i in range(20)
]


@dataclass
class Endpoint:
    """A fake judge: answers each question with the given probabilities of the next token."""

    answer: Callable[[str], dict[str, float]] = lambda question: {}
    status: int = 200
    body: bytes | None = None
    requests: list[dict[str, Any]] = field(default_factory=list)
    url: str = ""

    def respond(self, request: dict[str, Any]) -> bytes:
        self.requests.append(request)
        if self.body is not None:
            return self.body
        likely = self.answer(request["messages"][-1]["content"])
        tokens = [{"token": t, "logprob": math.log(p), "bytes": None} for t, p in likely.items()]
        first = {**tokens[0], "top_logprobs": tokens}
        choice = {
            "index": 0,
            "finish_reason": "length",
            "message": {"role": "assistant", "content": first["token"]},
            "logprobs": {"content": [first]},
        }
        head = {"id": "1", "object": "chat.completion", "created": 0, "model": request["model"]}
        return json.dumps({**head, "choices": [choice]}).encode()


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    fake = Endpoint()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            body = fake.respond(request)
            self.send_response(fake.status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    fake.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    yield fake
    server.shutdown()
    server.server_close()


def judge(endpoint: Endpoint, **settings: Any) -> EndpointJudge:
    settings = {"key_env": None, "retries": 0, "timeout": 10.0} | settings
    return EndpointJudge(model="fake", base_url=endpoint.url, **settings)


def candidate_first(question: str) -> bool:
    return question.index("CANDIDATE") < question.index("BASELINE")


def likes_candidate(question: str) -> dict[str, float]:
    liked, other = ("m", "M") if candidate_first(question) else ("M", "m")
    return {liked: 0.6, other: 0.2, "The": 0.1}


# -- an endpoint ----------------------------------------------------------------------------------


def test_preference_is_the_probability_of_the_candidates_label(endpoint: Endpoint) -> None:
    endpoint.answer = likes_candidate
    verifier = judge(endpoint)
    for problem in PROBLEMS:
        score = verifier.score(problem, "CANDIDATE")
        assert score.preference == pytest.approx(0.75)
        assert (score.correct, score.extracted) == (None, "CANDIDATE")
    verifier.close()


def test_the_order_is_mixed_fixed_by_the_seed_and_changes_with_it(endpoint: Endpoint) -> None:
    endpoint.answer = likes_candidate

    def orders(seed: int) -> list[bool]:
        endpoint.requests.clear()
        verifier = judge(endpoint, seed=seed)
        for problem in PROBLEMS:
            verifier.score(problem, "CANDIDATE")
        verifier.close()
        return [candidate_first(r["messages"][-1]["content"]) for r in endpoint.requests]

    assert set(orders(0)) == {True, False}
    assert orders(0) == orders(0) != orders(1)


def test_the_request_asks_for_one_greedy_token_with_logprobs(endpoint: Endpoint) -> None:
    endpoint.answer = likes_candidate
    judge(endpoint).score(PROBLEMS[0], "CANDIDATE")
    (request,) = endpoint.requests
    assert PROBLEMS[0].meta["instruction"] in request["messages"][-1]["content"]
    expected = {"temperature": 0, "max_tokens": 1, "logprobs": True, "top_logprobs": 5}
    assert {name: request[name] for name in expected} == expected


def test_one_label_alone_decides(endpoint: Endpoint) -> None:
    endpoint.answer = lambda question: {" m" if candidate_first(question) else " M": 0.9}
    assert judge(endpoint).score(PROBLEMS[0], "CANDIDATE").preference == 1.0


def test_an_empty_response_is_judged(endpoint: Endpoint) -> None:
    endpoint.answer = lambda question: {"m": 0.5, "M": 0.5}
    score = judge(endpoint).score(PROBLEMS[0], "")
    assert (score.preference, score.extracted) == (0.5, "")


def test_neither_label_is_undecided(endpoint: Endpoint) -> None:
    endpoint.answer = lambda question: {"Both": 0.7, "I": 0.3}
    score = judge(endpoint).score(PROBLEMS[0], "CANDIDATE")
    assert score.value is None
    assert score.reason == "neither m nor M among ['Both', 'I']"


@pytest.mark.parametrize("status", [401, 500])
def test_an_endpoint_that_refuses_is_undecided(endpoint: Endpoint, status: int) -> None:
    endpoint.status, endpoint.body = status, b'{"error": {"message": "overloaded"}}'
    score = judge(endpoint).score(PROBLEMS[0], "CANDIDATE")
    assert score.value is None
    assert "overloaded" in score.reason


def test_a_failed_request_is_sent_again(endpoint: Endpoint) -> None:
    endpoint.status, endpoint.body = 500, b"{}"
    judge(endpoint, retries=1).score(PROBLEMS[0], "CANDIDATE")
    assert len(endpoint.requests) == 2


@pytest.mark.parametrize(
    "body", [b"{}", b'{"choices": []}', b'{"choices": [{"logprobs": null}]}', b"nonsense", b"[]"]
)
def test_an_answer_without_logprobs_is_undecided(endpoint: Endpoint, body: bytes) -> None:
    endpoint.body = body
    score = judge(endpoint).score(PROBLEMS[0], "CANDIDATE")
    assert score.value is None
    assert score.reason


def test_an_endpoint_that_is_not_there_is_undecided() -> None:
    nowhere = Endpoint(url="http://127.0.0.1:1/v1")
    score = judge(nowhere).score(PROBLEMS[0], "CANDIDATE")
    assert score.value is None
    assert "Connection" in score.reason


def test_it_scores_again_after_close(endpoint: Endpoint) -> None:
    endpoint.answer = likes_candidate
    verifier = judge(endpoint)
    for _ in range(2):
        assert verifier.score(PROBLEMS[0], "CANDIDATE").preference == pytest.approx(0.75)
        verifier.close()


def test_a_missing_key_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MY_KEY", raising=False)
    with pytest.raises(UserError, match="environment variable MY_KEY is not set"):
        EndpointJudge(key_env="MY_KEY")
    monkeypatch.setenv("MY_KEY", "secret")
    EndpointJudge(key_env="MY_KEY").close()


# -- a stand-in -----------------------------------------------------------------------------------


def test_the_stand_in_averages_both_orders() -> None:
    def ask(text: str, options: Sequence[str]) -> Sequence[float]:
        assert tuple(options) == ("m", "M")
        return (0.9, 0.1) if candidate_first(text) else (0.6, 0.4)

    score = StandInJudge(ask=ask, label="toy").score(PROBLEMS[0], "CANDIDATE")
    assert score.preference == pytest.approx(0.65)
    assert score.reason == "stand-in judge toy, 0.90/0.40 by order"


def test_a_judge_with_a_taste_for_one_label_prefers_nobody() -> None:
    biased = StandInJudge(ask=lambda text, options: (1.0, 0.0))
    assert biased.score(PROBLEMS[0], "CANDIDATE").preference == 0.5


def test_a_problem_of_another_task_is_refused() -> None:
    with pytest.raises(UserError, match="needs 'instruction', which problem 7 lacks"):
        StandInJudge(ask=lambda text, options: (0.5, 0.5)).score(Problem("7", Prompt(""), "5"), "5")
