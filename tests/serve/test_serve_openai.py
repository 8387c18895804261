"""The `openai` client against the server: sync, async, streams, cancelling, errors.

Run: pytest tests/serve/test_serve_openai.py
"""

import asyncio
from collections.abc import Iterator

import openai
import pytest
from serving import Served, served, until


@pytest.fixture(scope="module")
def toy() -> Iterator[Served]:
    with served(key="secret") as here:
        yield here


@pytest.fixture
def client(toy: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{toy.url}/v1", api_key="secret", max_retries=0) as client:
        yield client


def test_it_completes_and_chats(toy: Served, client: openai.OpenAI) -> None:
    sampler = {"name": "power", "alpha": 2.0}
    text = client.completions.create(
        model="toy", prompt="abc", seed=1, n=2, logprobs=1, extra_body={"sampler": sampler}
    )
    assert [c.text for c in text.choices] == toy.texts(prompt="abc", seed=1, n=2, sampler=sampler)
    assert text.usage is not None
    assert text.usage.model_extra is not None
    assert text.usage.model_extra["decoded_tokens"] > text.usage.completion_tokens
    chat = client.chat.completions.create(
        model="toy",
        messages=[{"role": "user", "content": "abc"}],
        seed=1,
        max_completion_tokens=6,
        logprobs=True,
    )
    message = chat.choices[0].message
    assert [message.content] == toy.texts(prompt="abc", seed=1, max_tokens=6)
    assert [model.id for model in client.models.list()] == ["toy"]


def test_it_streams(toy: Served, client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model="toy",
        messages=[{"role": "user", "content": "abc"}],
        seed=1,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert [text] == toy.texts(prompt="abc", seed=1)
    assert chunks[-1].usage is not None
    pieces = client.completions.create(model="toy", prompt="abc", seed=1, stream=True)
    assert ["".join(chunk.choices[0].text for chunk in pieces)] == [text]


def test_many_at_once_are_answered_as_each_alone(toy: Served) -> None:
    async def ask() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{toy.url}/v1", api_key="secret") as client:
            asked = [
                client.completions.create(model="toy", prompt="abc", seed=i) for i in range(20)
            ]
            return [each.choices[0].text for each in await asyncio.gather(*asked)]

    assert asyncio.run(ask()) == [toy.texts(prompt="abc", seed=i)[0] for i in range(20)]


def test_what_is_cancelled_is_withdrawn(toy: Served) -> None:
    before = toy.number("chains_total", sampler="power", end="withdrawn")

    async def ask() -> None:
        async with openai.AsyncOpenAI(base_url=f"{toy.url}/v1", api_key="secret") as client:
            task = asyncio.create_task(
                client.completions.create(model="toy", prompt="abc", n=3, timeout=60)
            )
            while toy.worker.running < 3:
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            stream = await client.completions.create(
                model="toy", prompt="abc", n=2, stream=True, timeout=60
            )
            while toy.worker.running < 2:
                await asyncio.sleep(0.01)
            await stream.close()

    toy.engine.free.clear()
    try:
        asyncio.run(ask())
        until(toy.settled)
    finally:
        toy.engine.free.set()
    assert toy.number("chains_total", sampler="power", end="withdrawn") == before + 5


def test_errors_are_the_clients_own(toy: Served, client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="does not exist here"):
        client.completions.create(model="gpt", prompt="abc")
    with pytest.raises(openai.BadRequestError, match="contradicts") as error:
        client.completions.create(model="toy", prompt="abc", temperature=0)
    assert error.value.param == "temperature"
    with pytest.raises(openai.AuthenticationError, match="API key"):
        client.with_options(api_key="other").models.list()
    toy.engine.free.clear()
    try:
        with pytest.raises(openai.APITimeoutError):
            client.completions.create(model="toy", prompt="abc", timeout=0.1)
        until(toy.settled)
    finally:
        toy.engine.free.set()
