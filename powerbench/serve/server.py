"""The process of `powerbench serve`: its socket, its model, its end.

At SIGTERM or Ctrl-C no connection is accepted any more. What is asked already is answered, within the time of
grace; what is unfinished then gets an error object. A second Ctrl-C ends at once.
"""

import asyncio
import logging
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from errno import EADDRINUSE

import uvicorn

from powerbench.config import RunConfig
from powerbench.engines.base import Engine
from powerbench.errors import UserError, first_line, require_integer, require_number
from powerbench.serve.app import Timing, make_app
from powerbench.serve.metrics import Metrics
from powerbench.serve.service import Limits, Service
from powerbench.serve.worker import Worker

logger = logging.getLogger(__name__)

KEY = "POWERBENCH_API_KEY"
"""The environment variable that may hold the API key."""
LAST_WORDS = 5
"""Seconds in which the last errors are sent."""
LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True)
class Options:
    """Of the server itself."""

    host: str = "127.0.0.1"
    port: int = 8000
    """0: one that is free."""
    key: str | None = None
    """The API key; None: KEY's value, or no key at all."""
    queue: int = 256
    """Chains that may wait, at most."""
    timeout: float | None = None
    """Seconds that a request may take; None: any time."""
    grace: float = 30.0
    """Seconds that requests have to end in, when the server is to end."""

    def __post_init__(self) -> None:
        require_integer("--port", self.port, 0, 65535)
        require_integer("--queue", self.queue, 1, 10**6)
        require_number("--grace", self.grace, 0, 86400, "seconds")
        if self.timeout is not None:
            require_number("--timeout", self.timeout, 0, 10**7, "seconds")

    @property
    def api_key(self) -> str | None:
        return self.key or os.environ.get(KEY) or None


class Server(uvicorn.Server):
    """Ends when it is told to, or when the engine has failed."""

    def __init__(self, config: uvicorn.Config, worker: Worker, grace: float) -> None:
        super().__init__(config)
        self.worker, self.grace = worker, grace

    async def on_tick(self, counter: int) -> bool:
        return self.worker.failure is not None or await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.worker.close()
        left = asyncio.get_running_loop().call_later(self.grace, self.worker.give_up)
        try:
            await super().shutdown(sockets)
        finally:
            left.cancel()


def serve(config: RunConfig, options: Options, limits: Limits) -> None:
    """Serve until the process is told to end.

    Raises UserError for what cannot work, before the model is loaded, and where the engine fails.
    """
    service = Service.of_config(config, limits)
    with listen(options.host, options.port) as listening:
        metrics = Metrics()
        engine, speculate = engine_of(service), int(config.values.speculate)
        worker = Worker(engine, speculate, options.queue, metrics)
        app = make_app(service, worker, metrics, Timing(options.timeout), options.api_key)
        settings = uvicorn.Config(
            app,
            lifespan="off",
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=int(options.grace) + LAST_WORDS,
        )
        try:
            worker.start()
            logger.info(_opening(service, listening, options))
            Server(settings, worker, options.grace).run(sockets=[listening])
        except KeyboardInterrupt:  # uvicorn raises the signal again that it has obeyed
            pass
        finally:
            worker.stop()
    if worker.failure is not None:
        raise UserError(f"the engine has failed: {first_line(worker.failure)}") from worker.failure
    logger.info("stopped")


def engine_of(service: Service) -> Callable[[], Engine]:
    """Loads the model into the engine, its memory planned for the longest prompt and answer."""

    def load() -> Engine:
        factory = service.config.build("engine")
        return factory(
            service.model,
            max_prompt=service.longest_prompt,
            max_tokens=service.samplers.max_tokens,
        )

    return load


def listen(host: str, port: int) -> socket.socket:
    """A socket that accepts connections. Raises UserError where the port is in use, or the host is not here."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        why = "it is in use" if error.errno == EADDRINUSE else first_line(error)
        raise UserError(
            f"cannot listen on port {port} of {host}: {why}; choose another with --port or --host (--port 0: "
            f"one that is free)"
        ) from error


def _opening(service: Service, listening: socket.socket, options: Options) -> str:
    host, port = listening.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    key = "with a key" if options.api_key else "without a key"
    reach = key if host in LOOPBACK else f"to whoever reaches this machine, {key}"
    return (
        f"serving {service.model.name} with sampler={service.samplers.own} at http://{shown}:{port}/v1, "
        f"{reach}; Ctrl-C ends it"
    )
