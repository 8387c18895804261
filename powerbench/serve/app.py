"""The routes: `/v1/completions`, `/v1/chat/completions`, `/v1/models`, `/health` and `/metrics`."""

import logging
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, PlainTextResponse, Response

from powerbench.errors import UserError, first_line
from powerbench.serve.answers import Answers
from powerbench.serve.failures import SERVER, ApiError, bad, of_invalid_body
from powerbench.serve.gate import Gate, as_response
from powerbench.serve.metrics import Metrics
from powerbench.serve.schema import Body, ChatBody, CompletionBody
from powerbench.serve.service import Asked, Service
from powerbench.serve.waiting import ClientGone, EventStream, all_of
from powerbench.serve.worker import Worker

logger = logging.getLogger(__name__)

BODIES: dict[str, type[Body]] = {
    "/v1/completions": CompletionBody,
    "/v1/chat/completions": ChatBody,
}


@dataclass(frozen=True)
class Timing:
    """How long answers may take."""

    timeout: float | None = None
    """Seconds after which a request is given up; None: never."""
    interval: float = 1.0
    """Seconds between two comments on the progress of a stream."""


def make_app(
    service: Service, worker: Worker, metrics: Metrics, timing: Timing, key: str | None
) -> Gate:
    """The application, for an ASGI server. key: the API key that requests must give; None: none."""
    app = FastAPI(title="powerbench", docs_url=None, redoc_url=None, openapi_url=None)

    async def answer(asked: Asked, request: Request, stream: bool, usage: bool) -> Response:
        answers = Answers(asked, service.prompts.tokenizer)
        worker.submit(asked.jobs)
        if stream:
            return EventStream(answers, timing.interval, timing.timeout, usage)
        return JSONResponse(answers.whole(await all_of(asked.jobs, request, timing.timeout)))

    @app.post("/v1/completions")
    async def completions(body: CompletionBody, request: Request) -> Response:
        asked = service.completion(body)
        return await answer(asked, request, bool(body.stream), body.include_usage)

    @app.post("/v1/chat/completions")
    async def chat(body: ChatBody, request: Request) -> Response:
        asked = service.chat(body)
        return await answer(asked, request, bool(body.stream), body.include_usage)

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [_model(service)]}

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> dict[str, Any]:
        service.require_model(name)
        return _model(service)

    @app.get("/health")
    async def health() -> Response:
        state = {"status": "ok" if worker.alive else "closing"}
        counts = {"running": worker.running, "waiting": worker.waiting}
        return JSONResponse(state | counts, 200 if worker.alive else 503)

    @app.get("/metrics")
    async def numbers() -> Response:
        return PlainTextResponse(metrics.text(), media_type="text/plain; version=0.0.4")

    _handle_errors(app)
    return Gate(app, key, metrics)


def _model(service: Service) -> dict[str, Any]:
    """The model as `/v1/models` lists it, with what requests may ask of it."""
    samplers = service.samplers
    return {
        "id": service.model.name,
        "object": "model",
        "created": service.created,
        "owned_by": "powerbench",
        "context_length": service.model.context_length,
        "max_tokens": samplers.max_tokens,
        "sampler": samplers.own,
        "samplers": list(samplers.allowed),
    }


def _handle_errors(app: FastAPI) -> None:
    """Answer every error by an error object."""

    @app.exception_handler(ApiError)
    async def api(request: Request, error: ApiError) -> Response:
        return as_response(error)

    @app.exception_handler(UserError)
    async def mistaken(request: Request, error: UserError) -> Response:
        return as_response(bad(str(error)))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        fields = BODIES[request.url.path].model_fields
        return as_response(of_invalid_body(error.errors(), list(fields)))

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        where = f"{request.method} {request.url.path}"
        if error.status_code == 400:
            return as_response(bad(str(error.detail)))
        return as_response(ApiError(error.status_code, f"{where}: {error.detail}"))

    @app.exception_handler(ClientGone)
    async def gone(request: Request, error: ClientGone) -> Response:
        return Response(status_code=499)

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> Response:
        return as_response(ApiError(500, f"the server has failed: {first_line(error)}", SERVER))
