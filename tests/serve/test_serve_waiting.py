"""Streams, clients that go away, full queues, failures and the server's end: nothing hangs, nothing stays.

Run: pytest tests/serve/test_serve_waiting.py
"""

import json
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving import CHAT, PATIENCE, Served, served, until

from powerbench.errors import UserError
from powerbench.samplers.power import Power
from powerbench.types import Chain, Context

ROOT = Path(__file__).parents[2]


@pytest.fixture
def toy() -> Iterator[Served]:
    with served() as here:
        yield here


def events(text: str) -> list[Any]:
    """The data of a stream's events."""
    data = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    return [each if each == "[DONE]" else json.loads(each) for each in data]


def test_a_stream_is_the_same_answer_after_comments_on_its_progress(toy: Served) -> None:
    body = {"prompt": "abc", "seed": 1, "n": 2}
    plain = toy.post(**body).json()
    toy.engine.free.clear()
    lines = []
    options = {"stream": True, "stream_options": {"include_usage": True}}
    with toy.client.stream(
        "POST", "/v1/completions", json={"model": "toy", **body, **options}
    ) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        for line in stream.iter_lines():
            lines.append(line)
            if sum(each.startswith(": 2 chains") for each in lines) == 3:
                toy.engine.free.set()
    found = events("\n".join(lines))
    assert found[-1] == "[DONE]"
    choices = {c["index"]: c for chunk in found[:-2] for c in chunk["choices"]}
    assert [choices[i]["text"] for i in range(2)] == [c["text"] for c in plain["choices"]]
    assert [choices[i]["finish_reason"] for i in range(2)] == [
        c["finish_reason"] for c in plain["choices"]
    ]
    assert found[-2]["choices"] == []
    cost = ("completion_tokens", "decoded_tokens")
    assert [found[-2]["usage"][k] for k in cost] == [plain["usage"][k] for k in cost]


def test_a_chats_stream_has_deltas(toy: Served) -> None:
    plain = toy.texts(messages=CHAT["messages"], seed=1)
    found = events(toy.post(messages=CHAT["messages"], seed=1, stream=True).text)
    first, last, done = found
    assert (first["object"], done) == ("chat.completion.chunk", "[DONE]")
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": plain[0]}
    assert first["choices"][0]["finish_reason"] is None
    assert last["choices"][0]["delta"] == {}
    assert last["choices"][0]["finish_reason"] in ("stop", "length")


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_away_is_withdrawn(toy: Served, stream: bool) -> None:
    toy.engine.free.clear()
    body = {"model": "toy", "prompt": "abc", "n": 10, "stream": stream}
    raw = json.dumps(body).encode()
    head = "POST /v1/completions HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\n"
    head += f"Content-Length: {len(raw)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", int(toy.url.rpartition(":")[2]))) as client:
        client.sendall(head.encode() + raw)
        until(lambda: toy.worker.running + toy.worker.waiting == 10 and toy.worker.running == 8)
    until(toy.settled)
    assert toy.number("chains_total", sampler="power", end="withdrawn") == 10
    assert toy.number("chains_total", sampler="power", end="completed") == 0
    toy.engine.free.set()
    assert len(toy.texts(prompt="abc")) == 1


def test_a_full_queue_is_429_and_says_when_to_come_again() -> None:
    with served("engine.max_num_seqs=2", queue=4) as here, ThreadPoolExecutor(4) as pool:
        here.engine.max_num_seqs = 2
        here.engine.free.clear()
        there = [pool.submit(here.post, prompt="abc", n=2)]
        until(lambda: here.worker.running == 2)
        there += [pool.submit(here.post, prompt="abc", n=2) for _ in range(2)]
        until(lambda: here.worker.waiting == 4)
        refused = here.post(prompt="abc")
        assert refused.status_code == 429
        assert refused.json()["error"]["code"] == "queue_full"
        assert int(refused.headers["retry-after"]) >= 1
        here.engine.free.set()
        assert [each.result().status_code for each in there] == [200] * 3
        never = here.post(prompt="abc", n=5)
        assert never.status_code == 400
        assert "holds 4" in never.json()["error"]["message"]
        assert here.post(prompt="abc").status_code == 200


def test_one_chain_that_fails_leaves_the_others(
    toy: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain = Power.chain
    (bad,) = toy.service.prompts.of_text("bad")

    def failing(self: Power, context: Context, state: Any = None) -> Chain:
        moves = chain(self, context, state)
        request = next(moves)
        while True:
            answer = yield request
            if context.prompt == bad:
                raise RuntimeError("no luck") if context.stop_tokens == (0,) else UserError("no")
            try:
                request = moves.send(answer)
            except StopIteration as end:
                return end.value

    expected = toy.texts(prompt="abc", seed=1)
    monkeypatch.setattr(Power, "chain", failing)
    with ThreadPoolExecutor(8) as pool:
        good = [pool.submit(toy.texts, prompt="abc", seed=1) for _ in range(8)]
        wrong = [pool.submit(toy.post, prompt="bad", n=3) for _ in range(4)]
        assert all(each.result() == expected for each in good)
    for each in wrong:
        assert each.result().status_code == 500
        assert each.result().json()["error"]["message"] == "the sampler has failed: no luck"
    mistaken = toy.post(prompt="bad", stop="a")
    assert (mistaken.status_code, mistaken.json()["error"]["message"]) == (400, "no")
    until(toy.settled)
    assert '"the sampler has failed: no luck"' in toy.post(prompt="bad", stream=True).text


def test_an_engine_that_fails_ends_the_server_with_an_answer_for_all() -> None:
    with served() as here, ThreadPoolExecutor(4) as pool:
        here.engine.free.clear()
        there = [pool.submit(here.post, prompt="abc") for _ in range(3)]
        until(lambda: here.worker.running == 3)
        here.engine.error = RuntimeError("out of memory")
        for each in there:
            assert each.result().status_code == 500
            assert "out of memory" in each.result().json()["error"]["message"]
        until(lambda: not here.server.started or here.server.should_exit or here.settled())
        assert here.settled()
        with pytest.raises(httpx.TransportError):
            end = time.monotonic() + PATIENCE
            while time.monotonic() < end:
                assert here.client.get("/health").status_code == 503


@pytest.mark.parametrize("grace", [30.0, 0.2])
def test_at_the_end_answers_are_finished_or_get_an_error_object(grace: float) -> None:
    with served(grace=grace) as here, ThreadPoolExecutor(4) as pool:
        here.engine.free.clear()
        plain = pool.submit(here.post, prompt="abc", seed=1)
        stream = pool.submit(here.post, prompt="abc", seed=1, stream=True)
        until(lambda: here.worker.running == 2)
        here.server.should_exit = True
        until(lambda: not here.worker.alive)
        if grace > 1:
            here.engine.free.set()
            assert plain.result().status_code == 200
            assert stream.result().text.endswith("data: [DONE]\n\n")
        else:
            assert plain.result().status_code == 503
            assert plain.result().json()["error"]["code"] == "shutting_down"
            assert '"code": "shutting_down"' in stream.result().text
        until(here.settled)


def test_sigterm_ends_the_command_and_a_taken_port_is_one_line() -> None:
    command = [sys.executable, "-m", "powerbench.cli", "serve", "model=toy", "engine=toy"]
    toy = [*command, "max_tokens=8", "blocks=2", "--port"]
    with subprocess.Popen([*toy, "0"], stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        opening = process.stdout.readline()
        assert opening.startswith("serving toy with sampler=power at http://127.0.0.1:")
        url = opening.partition(" at ")[2].partition("/v1")[0]
        assert httpx.get(f"{url}/health").json()["status"] == "ok"
        port = url.rpartition(":")[2]
        second = subprocess.run([*toy, port], capture_output=True, text=True, cwd=ROOT)
        assert second.returncode == 2
        assert second.stderr.count("\n") == 1
        assert f"port {port} of 127.0.0.1: it is in use" in second.stderr
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == "stopped\n"
    assert process.returncode == 0


KILLED = """
import httpx, sys
print("here", flush=True)
httpx.post(sys.argv[1] + "/v1/completions", json={"model": "toy", "prompt": "abc", "n": 4}, timeout=None)
"""


def test_a_client_that_is_killed_leaves_nothing(toy: Served) -> None:
    toy.engine.free.clear()
    with subprocess.Popen([sys.executable, "-c", KILLED, toy.url]) as client:
        until(lambda: toy.worker.running == 4)
        client.kill()
    until(toy.settled)
    toy.engine.free.set()
    assert toy.number("chains_total", sampler="power", end="withdrawn") == 4


def test_two_hundred_requests_some_cancelled_some_malformed_leave_nothing() -> None:
    """Those that are answered have the answers that they have alone; threads end, and the queue is empty."""
    with served(queue=60) as here:
        expected = {seed: here.texts(prompt="abc", seed=seed) for seed in range(5)}
        rng = random.Random(0)
        kinds = ["cancelled"] * 40 + ["malformed"] * 30 + ["plain"] * 90 + ["stream"] * 40
        rng.shuffle(kinds)
        threads = threading.active_count()

        def ask(i: int) -> str:
            body = {"model": "toy", "prompt": "abc", "seed": i % 5}
            kind, path = kinds[i], f"{here.url}/v1/completions"
            timeout = httpx.Timeout(
                PATIENCE, read=(1 + i % 7) / 200 if kind == "cancelled" else None
            )
            with httpx.Client(timeout=timeout) as client:
                try:
                    if kind == "malformed":
                        wrong = client.post(path, content=json.dumps(body)[: i % 40])
                        return str(wrong.status_code)
                    while True:
                        got = client.post(path, json={**body, "stream": kind == "stream"})
                        if got.status_code != 429:
                            break
                        time.sleep(0.05)
                except httpx.TimeoutException:
                    return "cancelled"
            if kind == "stream":
                chunk, done = events(got.text)
                assert done == "[DONE]"
            else:
                chunk = got.json()
            assert [chunk["choices"][0]["text"]] == expected[i % 5]
            return "answered"

        with ThreadPoolExecutor(200) as pool:
            ends = list(pool.map(ask, range(200)))
        assert [end for end, kind in zip(ends, kinds, strict=True) if kind == "malformed"] == [
            "400"
        ] * 30
        assert ends.count("answered") >= 130
        until(here.settled)
        assert not here.worker._running
        assert here.number("chains_running") == here.number("chains_waiting") == 0
        until(lambda: threading.active_count() <= threads)
        assert here.texts(prompt="abc", seed=3) == expected[3]
