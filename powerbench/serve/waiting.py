"""Waiting for the chains of a request: for all of them, or one after the other as server-sent events.

Whoever stops waiting, since the client is gone, time is up or an answer has failed, gives up all chains of the
request.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from fastapi import Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from powerbench.chains.runner import Completed
from powerbench.serve.answers import Answers
from powerbench.serve.failures import SERVER, ApiError
from powerbench.serve.worker import Job


class ClientGone(Exception):  # noqa: N818
    """Nobody waits for the answer any more."""


@contextmanager
def giving_up(jobs: Sequence[Job]) -> Iterator[None]:
    """At the end, jobs that are not finished are given up."""
    try:
        yield
    finally:
        for job in jobs:
            job.future.cancel()


async def all_of(jobs: Sequence[Job], request: Request, timeout: float | None) -> list[Completed]:
    """What all jobs come to. Raises ApiError where one fails or time is up, ClientGone when the client
    is."""
    with giving_up(jobs):
        whole = asyncio.gather(*(asyncio.wrap_future(job.future) for job in jobs))
        gone = asyncio.create_task(_disconnected(request))
        try:
            both: set[asyncio.Future[Any]] = {whole, gone}
            await asyncio.wait(both, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            if whole.done():
                return whole.result()
            raise ClientGone if gone.done() else _late(timeout)
        finally:
            for each in (whole, gone):
                each.cancel()
                with suppress(asyncio.CancelledError, Exception):
                    await each


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _late(timeout: float | None) -> ApiError:
    return ApiError(504, f"the answer has taken more than {timeout:g} seconds", SERVER, "timeout")


class EventStream(StreamingResponse):
    """A stream of events that gives up its jobs, however it ends: even if it never begins."""

    def __init__(
        self, answers: Answers, interval: float, timeout: float | None, include_usage: bool
    ) -> None:
        self.jobs = answers.asked.jobs
        super().__init__(
            _events(answers, interval, timeout, include_usage),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with giving_up(self.jobs):
            await super().__call__(scope, receive, send)


async def _events(
    answers: Answers, interval: float, timeout: float | None, include_usage: bool
) -> AsyncIterator[str]:
    """Comments while chains move, each answer when it is there, and the end."""
    try:
        async with asyncio.timeout(timeout):
            async for event in _answered(answers, interval, include_usage):
                yield event
    except TimeoutError:
        yield _event(_late(timeout).body)
    except ApiError as error:
        yield _event(error.body)


async def _answered(answers: Answers, interval: float, include_usage: bool) -> AsyncIterator[str]:
    asked = answers.asked
    futures = {id(job): asyncio.wrap_future(job.future) for job in asked.jobs}
    left = list(range(asked.choices))
    yield _progress(asked.jobs)
    while left:
        waiting = [future for future in futures.values() if not future.done()]
        await asyncio.wait(waiting, timeout=interval, return_when=asyncio.FIRST_COMPLETED)
        for index in [*left]:
            needed = [futures[id(job)] for job in asked.jobs_of(index)]
            if all(future.done() for future in needed):
                left.remove(index)
                for chunk in answers.chunks(index, [future.result() for future in needed]):
                    yield _event(chunk)
        if left:
            yield _progress(asked.jobs)
    if include_usage:
        yield _event(answers.last_chunk([await futures[id(job)] for job in asked.jobs]))
    yield "data: [DONE]\n\n"


def _event(data: Mapping[str, Any]) -> str:
    return f"data: {json.dumps(data)}\n\n"


def _progress(jobs: Sequence[Job]) -> str:
    """A comment, which clients skip: how far the chains are."""
    waiting = sum(job.number is None for job in jobs)
    finished = sum(job.future.done() for job in jobs)
    blocks, decoded = sum(job.blocks for job in jobs), sum(job.decoded for job in jobs)
    return (
        f": {len(jobs)} chains, {waiting} waiting, {finished} finished; "
        f"{blocks} blocks, {decoded} tokens decoded\n\n"
    )
