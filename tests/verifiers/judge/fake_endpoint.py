"""A fake OpenAI-compatible endpoint in this process: answers as told, and remembers what it was asked."""

import json
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from powerbench.types import Problem, Prompt
from powerbench.verifiers.judge import EndpointJudge

DEADLINE = 60.0
"""Seconds after which a test is taken to hang."""


@dataclass(frozen=True)
class Reply:
    """What the endpoint does with one request, instead of answering it."""

    status: int = 200
    body: bytes = b"{}"
    headers: Mapping[str, str] = field(default_factory=dict)
    drop: bool = False
    """Hang up without a word."""


@dataclass
class FakeEndpoint:
    """A judge that answers each question with given probabilities of the next token."""

    answer: Callable[[str], Mapping[str, float]] = lambda question: {"m": 0.5, "M": 0.5}
    reply: Callable[[str], Reply | None] = lambda question: None
    """What it does instead; None for an answer."""
    usage: tuple[int, int] | None = (400, 1)
    """Tokens of questions and answers that it reports: fewer than its short questions seem to have."""
    model: str | None = None
    """What it calls itself; None for the name it was asked by."""
    on_request: Callable[[], None] = lambda: None
    may_answer: threading.Event = field(default_factory=threading.Event)
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    under_way: int = 0
    url: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.may_answer.set()

    @property
    def questions(self) -> list[str]:
        """What it was asked, in the order in which it came."""
        return [request["messages"][-1]["content"] for request in self.requests]

    def respond(self, request: dict[str, Any], key: str | None) -> Reply:
        with self.lock:
            self.keys.append(key)
            self.requests.append(request)
            self.under_way += 1
        self.on_request()
        question = request["messages"][-1]["content"]
        reply = self.reply(question)
        if reply is None:
            self.may_answer.wait(DEADLINE)
            reply = Reply(body=self._completion(request, question))
        with self.lock:
            self.under_way -= 1
        return reply

    def _completion(self, request: dict[str, Any], question: str) -> bytes:
        likely = self.answer(question)
        tokens = [{"token": t, "logprob": math.log(p), "bytes": None} for t, p in likely.items()]
        first = {**tokens[0], "top_logprobs": tokens}
        completion: dict[str, Any] = {
            "id": "1",
            "object": "chat.completion",
            "created": 0,
            "model": self.model or request["model"],
            "choices": [
                {
                    "index": 0,
                    "finish_reason": "length",
                    "message": {"role": "assistant", "content": first["token"]},
                    "logprobs": {"content": [first]},
                }
            ],
        }
        if self.usage is not None:
            prompt, completed = self.usage
            completion["usage"] = {"prompt_tokens": prompt, "completion_tokens": completed}
        return json.dumps(completion).encode()


@contextmanager
def served(fake: FakeEndpoint) -> Iterator[FakeEndpoint]:
    """The fake at a port of this machine."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            reply = fake.respond(request, self.headers["Authorization"])
            if reply.drop:
                self.close_connection = True
                return
            self.send_response(reply.status)
            for name, value in {"Content-Type": "application/json", **reply.headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(reply.body)))
            self.end_headers()
            self.wfile.write(reply.body)

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """Who asked may be gone, which is no error of the endpoint's."""

    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    fake.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    try:
        yield fake
    finally:
        fake.may_answer.set()
        server.shutdown()
        server.server_close()


def wait_until(holds: Callable[[], bool]) -> None:
    """Return as soon as it holds; fail the test if it never does."""
    end = time.monotonic() + DEADLINE
    while not holds():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


PROBLEMS = [
    Problem(str(i), Prompt(""), "BASELINE", {"instruction": f"Do {i} {{things}}."})
    for i in range(40)
]


def judge_at(fake: FakeEndpoint, cache: Path, **settings: Any) -> EndpointJudge:
    """A judge that asks the fake, and loses no time over failures."""
    quick = {"key_env": None, "retries": 0, "backoff": 0.01, "timeout": DEADLINE}
    return EndpointJudge(
        base_url=fake.url, cache=str(cache), **{"model": "fake"} | quick | settings
    )


def candidate_first(question: str) -> bool:
    return question.index("CANDIDATE") < question.index("BASELINE")


def likes_candidate(question: str) -> dict[str, float]:
    liked, other = ("m", "M") if candidate_first(question) else ("M", "m")
    return {liked: 0.6, other: 0.2, "The": 0.1}
