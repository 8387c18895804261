"""What the server refuses, and how it says so: OpenAI's error objects, each naming the value and the remedy.

Run: pytest tests/serve/test_serve_errors.py
"""

from collections.abc import Iterator
from typing import Any

import pytest
from serving import CHAT, Served, served

from powerbench.config import compose
from powerbench.errors import UserError
from powerbench.serve.app import Timing
from powerbench.serve.gate import MAX_BODY
from powerbench.serve.server import Options, listen, serve
from powerbench.serve.service import Limits, Service


@pytest.fixture(scope="module")
def toy() -> Iterator[Served]:
    with served(limits=Limits(["power", "greedy", "base", "max_swap"], choices=4)) as here:
        yield here


TEXT = {"prompt": "abc"}
REFUSED: list[tuple[dict[str, Any], int, str | None, str]] = [
    ({**TEXT, "model": "gpt-5"}, 404, "model", "'toy'"),
    ({**TEXT, "sed": 1}, 400, "sed", "did you mean 'seed'"),
    ({**TEXT, "max_tokens": 13}, 400, "max_tokens", "more than the 12"),
    ({**TEXT, "max_tokens": 0}, 400, "max_tokens", "greater than or equal to 1"),
    ({**TEXT, "max_tokens": "8"}, 400, "max_tokens", "valid integer"),
    ({"prompt": [1] * 4090}, 400, "max_tokens", "needs 4102 tokens"),
    ({"prompt": [1] * 2000}, 400, "prompt", "--max-prompt"),
    ({"prompt": ""}, 400, "prompt", "empty"),
    ({"prompt": []}, 400, "prompt", "empty"),
    ({"prompt": [1, 8]}, 400, "prompt", "8 is no token of toy"),
    ({"prompt": [1, -1]}, 400, "prompt", "-1 is no token of toy"),
    ({**TEXT, "n": 5}, 400, "n", "more than this server gives: 4"),
    ({**TEXT, "top_p": 0.9}, 400, "top_p", "not supported"),
    ({**TEXT, "frequency_penalty": 1}, 400, "frequency_penalty", "not supported"),
    ({**TEXT, "best_of": 3}, 400, "best_of", "sampler=best_of_n"),
    ({**TEXT, "stop": ""}, 400, "stop", "empty"),
    ({**TEXT, "temperature": 0}, 400, "temperature", "sampler=greedy"),
    ({**TEXT, "temperature": 1, "sampler": "greedy"}, 400, "temperature", "contradicts"),
    ({**TEXT, "temperature": 0.5, "sampler": "base"}, 400, "temperature", "is 1"),
    ({**TEXT, "temperature": 0.5, "sampler": {"alpha": 3}}, 400, "temperature", "alpha=3"),
    ({**TEXT, "temperature": -1}, 400, "temperature", "greater than or equal to 0"),
    ({**TEXT, "sampler": "low_temp"}, 400, "sampler", "known: base, greedy, max_swap, power"),
    ({**TEXT, "sampler": {"name": "power", "stpes": 1}}, 400, "sampler", "did you mean 'steps'"),
    ({**TEXT, "sampler": {"steps": "4"}}, 400, "sampler", "valid integer"),
    ({**TEXT, "sampler": {"steps": -1}}, 400, "sampler", "sampler.steps"),
    ({**TEXT, "sampler": {"steps": 10**9}}, 400, "sampler", "4096"),
    ({**TEXT, "sampler": {"blocks": 5}}, 400, "sampler", "must divide"),
    ({**TEXT, "sampler": {"max_tokens": 5}}, 400, "max_tokens", "field of the request"),
    ({**TEXT, "sampler": {"_target_": "os.system"}}, 400, "sampler", "_target_"),
    ({**TEXT, "sampler": {"alpha": {"_target_": "os.getcwd"}}}, 400, "sampler", "valid number"),
    ({**TEXT, "sampler": {"alpha": "${oc.env:HOME}"}}, 400, "sampler", "valid number"),
    ({"messages": []}, 400, "messages", "at least 1"),
    ({"messages": [{"role": "robot", "content": "a"}]}, 400, "messages", "role"),
    ({**CHAT, "tools": [{"type": "function"}]}, 400, "tools", "not supported"),
    ({**CHAT, "top_logprobs": 2}, 400, "top_logprobs", "logprobs=true"),
    ({**CHAT, "max_tokens": 3, "max_completion_tokens": 3}, 400, "max_tokens", "not both"),
]


@pytest.mark.parametrize(("body", "status", "param", "words"), REFUSED)
@pytest.mark.parametrize("stream", [False, True])
def test_what_cannot_be_is_refused(
    toy: Served, body: dict[str, Any], status: int, param: str | None, words: str, stream: bool
) -> None:
    response = toy.post(**body, stream=stream)
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert words in error["message"]
    assert "\n" not in error["message"]
    assert error["param"] == param
    assert set(error) == {"message", "type", "param", "code"}
    assert toy.settled()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"model": "toy", "prompt": "\\ud800"}',
        b'{"model": "toy", "prompt": "abc", "temperature": NaN}',
        b"[" * 100_000,
    ],
)
def test_a_malformed_body_is_refused(toy: Served, body: bytes) -> None:
    headers = {"content-type": "application/json"}
    response = toy.client.post("/v1/completions", content=body, headers=headers)
    assert response.status_code == 400, response.text
    assert response.json()["error"]["type"] == "invalid_request_error"


def test_other_paths_and_methods_have_error_objects(toy: Served) -> None:
    assert toy.client.get("/v1/nothing").json()["error"]["message"] == "GET /v1/nothing: Not Found"
    response = toy.client.get("/v1/completions")
    assert (response.status_code, "error" in response.json()) == (405, True)


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_too_large_is_refused(toy: Served, chunked: bool) -> None:
    chunks = (b" " * 2**16 for _ in range(MAX_BODY // 2**16 + 2))
    content: Any = chunks if chunked else b"".join(chunks)
    headers = {"content-type": "application/json"}
    response = toy.client.post("/v1/completions", content=content, headers=headers)
    assert response.status_code == 413, response.text
    assert response.json()["error"]["code"] == "body_too_large"


def test_a_key_is_asked_for_everywhere_but_for_health() -> None:
    with served(key="secret") as here:
        assert here.post(prompt="abc").status_code == 200
        for headers in ({"Authorization": "Bearer wrong"}, {"Authorization": "secret"}, {}):
            here.client.headers = headers  # type: ignore[assignment]
            for path in ("/v1/models", "/metrics", "/v1/nothing"):
                response = here.client.get(path)
                assert response.status_code == 401
                assert response.json()["error"]["code"] == "invalid_api_key"
            assert here.post(prompt="abc").status_code == 401
            assert here.client.get("/health").status_code == 200


def test_a_server_may_fix_the_settings() -> None:
    with served(limits=Limits([], settable=False)) as here:
        assert here.post(prompt="abc", temperature=0.5).status_code == 200
        refused = here.post(prompt="abc", sampler={"steps": 1})
        assert "does not let" in refused.json()["error"]["message"]
        assert here.post(prompt="abc", sampler="greedy").status_code == 400


def test_a_request_that_takes_too_long_is_given_up() -> None:
    with served(timing=Timing(timeout=0.2, interval=0.01)) as here:
        here.engine.free.clear()
        response = here.post(prompt="abc")
        assert (response.status_code, response.json()["error"]["code"]) == (504, "timeout")
        stream = here.post(prompt="abc", stream=True).text
        assert '"code": "timeout"' in stream
        assert "[DONE]" not in stream


def test_what_cannot_be_served_ends_before_a_model_is_loaded() -> None:
    with pytest.raises(UserError, match="model=toy and engine=toy go together"):
        Service.of_config(compose(["model=toy"]), Limits([]))
    with pytest.raises(UserError, match="unknown sampler 'pwer'"):
        Service.of_config(compose(["model=toy", "engine=toy"]), Limits(["pwer"]))
    toy = ["model=toy", "engine=toy", "max_tokens=4096"]
    with pytest.raises(UserError, match="no room for a prompt"):
        Service.of_config(compose(toy), Limits([]))
    with pytest.raises(UserError, match="--port"):
        Options(port=70000)


def test_a_port_in_use_is_one_clear_line() -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        config = compose(["model=toy", "engine=toy", "max_tokens=8", "blocks=2"])
        with pytest.raises(UserError, match=f"port {port} of 127.0.0.1: it is in use") as error:
            serve(config, Options(port=port), Limits([]))
        assert "\n" not in str(error.value)
