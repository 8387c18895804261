"""A server in this process, on a free port, over a toy engine that can be held."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import uvicorn

from powerbench.config import compose, options
from powerbench.engines.base import Engine, Finished
from powerbench.engines.toy import ToyEngine
from powerbench.serve.app import Timing, make_app
from powerbench.serve.metrics import Metrics
from powerbench.serve.server import Server, engine_of, listen
from powerbench.serve.service import Limits, Service
from powerbench.serve.worker import Worker

TOY = ("max_tokens=12", "blocks=3", "steps=4")
PATIENCE = 60.0
"""Seconds after which a test takes something for lost."""
CHAT = {"model": "toy", "messages": [{"role": "user", "content": "abc"}]}


class HeldEngine(ToyEngine):
    """Makes no progress while it is held; fails when it is told to."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.free = threading.Event()
        self.free.set()
        self.error: Exception | None = None

    def step(self) -> list[Finished]:
        if self.error is not None:
            raise self.error
        if not self.free.is_set():
            time.sleep(0.001)
            return []
        return super().step()

    @property
    def requests(self) -> int:
        """Those at work."""
        return len(self._running)


@dataclass
class Served:
    """A server under test."""

    service: Service
    worker: Worker
    metrics: Metrics
    server: Server
    url: str
    key: str | None
    engines: list[Any]
    client: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        headers = {} if self.key is None else {"Authorization": f"Bearer {self.key}"}
        self.client = httpx.Client(base_url=self.url, headers=headers, timeout=PATIENCE)

    @property
    def engine(self) -> Any:
        return self.engines[0]

    def post(self, wait: float = PATIENCE, **body: Any) -> httpx.Response:
        """A completion, or a chat's if the body has messages. wait: seconds for it."""
        path = "/v1/chat/completions" if "messages" in body else "/v1/completions"
        json = {"model": self.service.model.name, **body}
        return self.client.post(path, json=json, timeout=wait)

    def texts(self, **body: Any) -> list[str]:
        """What is answered, choice by choice."""
        response = self.post(**body)
        assert response.status_code == 200, response.text
        choices = sorted(response.json()["choices"], key=lambda choice: choice["index"])
        return [c["message"]["content"] if "messages" in body else c["text"] for c in choices]

    def number(self, name: str, **labels: str) -> float:
        """A number of /metrics; 0 if it is not there."""
        return self.metrics.registry.get_sample_value(f"powerbench_{name}", labels) or 0.0

    def settled(self) -> bool:
        """Whether nothing is left of any request."""
        return not (self.worker.running or self.worker.waiting or self.engine.requests)


def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it does not come to be so"
        time.sleep(0.005)


@contextmanager
def served(
    *settings: str,
    limits: Limits | None = None,
    queue: int = 256,
    timing: Timing | None = None,
    key: str | None = None,
    grace: float = 30.0,
) -> Iterator[Served]:
    """A toy model, or what the settings name."""
    model = () if "engine=hf" in settings else ("model=toy", "engine=toy", "model.vocabulary=8")
    service = Service.of_config(
        compose([*TOY, *model, "tracker=none", *settings]),
        limits or Limits(list(options("sampler"))),
    )
    engines: list[Engine] = []
    toy = service.config.choices["engine"] == "toy"

    def make() -> Engine:
        engines.append(HeldEngine(service.model) if toy else engine_of(service)())
        return engines[0]

    metrics = Metrics()
    worker = Worker(make, 2, queue, metrics)
    app = make_app(service, worker, metrics, timing or Timing(interval=0.01), key)
    with listen("127.0.0.1", 0) as listening:
        port = listening.getsockname()[1]
        config = uvicorn.Config(
            app, lifespan="off", log_config=None, timeout_graceful_shutdown=int(grace) + 5
        )
        server = Server(config, worker, grace)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        worker.start()
        thread.start()
        here = Served(service, worker, metrics, server, f"http://127.0.0.1:{port}", key, engines)
        try:
            until(lambda: server.started)
            yield here
        finally:
            if toy:
                here.engine.free.set()
            here.client.close()
            server.should_exit = True
            thread.join(PATIENCE)
            worker.stop()
    assert not thread.is_alive(), "the server does not end"
