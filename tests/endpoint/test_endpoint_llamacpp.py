"""model=endpoint at a real server: llama.cpp's (xllamacpp) with the bundled language model.

Run: pytest tests/endpoint/test_endpoint_llamacpp.py
"""

import json
import math
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from local_server import llamacpp

from powerbench.cli import main
from powerbench.config import compose
from powerbench.run.in_text import stops
from powerbench.store import Run, find_runs
from powerbench.types import FinishReason

pytestmark = pytest.mark.model

TASK = ["task=math_mini", "limit=1"]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with llamacpp() as address:
        yield address


def run(url: str, folder: Path, *settings: str) -> Run:
    fixed = [
        *("model=endpoint", "model.id=smollm2", "model.key_env=null", f"model.base_url={url}"),
        *(f"model.cache={folder / 'cache'}", "model.workers=1", "model.retries=0", *TASK),
        *("tracker=none", "max_tokens=24", f"runs={folder / 'runs'}"),
    ]
    main(["run", *fixed, *settings])
    (found,) = find_runs([folder / "runs"])
    return found


def ask(url: str, route: str, **request: Any) -> dict[str, Any]:
    """The first choice in the answer to a greedy request, asked without powerbench."""
    body = json.dumps({"max_tokens": 24, "temperature": 0, **request}).encode()
    headers = {"Content-Type": "application/json"}
    with urllib.request.urlopen(
        urllib.request.Request(url + route, body, headers), timeout=60
    ) as r:
        choice: dict[str, Any] = json.load(r)["choices"][0]
    return choice


def test_greedy_responses_are_what_the_server_says(url: str, tmp_path: Path) -> None:
    """As chats, and as raw text."""
    for chat in ("always", "never"):
        made = run(url, tmp_path / chat, "sampler=greedy", f"task.chat={chat}")
        task = compose([*TASK, f"task.chat={chat}"]).build("task")
        stop = list(stops(task))
        for problem in task.problems("instruct")[:1]:
            text = problem.prompt.text
            turn = {"messages": [{"role": "user", "content": text}]}
            if chat == "always":
                expected = ask(url, "/chat/completions", stop=stop, **turn)["message"]["content"]
            else:
                expected = ask(url, "/completions", stop=stop, prompt=text)["text"]
            sample = made.samples()[problem.id, 0]
            assert sample.text == expected
            assert 0 < sample.length <= 24
            assert sample.prompt_tokens > 10
            assert (sample.finish_reason is FinishReason.LENGTH) == (sample.length == 24)


@pytest.mark.parametrize("chat", ["always", "never"])
def test_best_of_n_and_deepconf_have_the_log_probabilities_that_they_need(
    url: str, tmp_path: Path, chat: str
) -> None:
    for sampler, more in (("best_of_n", []), ("deepconf", ["sampler.top_k_confidence=5"])):
        settings = [f"sampler={sampler}", "sampler.n=2", f"task.chat={chat}", *more]
        (sample,) = run(url, tmp_path / sampler, *settings).stream()
        (chosen,) = sample.rounds
        assert len(chosen.weights) == 2
        assert sample.cost.decoded >= 2
        assert sample.logp is None
        if sampler == "best_of_n":
            assert all(-24 * 20 < weight <= 0 for weight in chosen.weights)
            assert chosen.weights[chosen.kept[0]] == max(chosen.weights)
        assert all(map(math.isfinite, chosen.weights))


def test_a_command_repeated_needs_no_server(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(url, tmp_path, "sampler=base").samples()
    (tmp_path / "runs").rename(tmp_path / "away")
    monkeypatch.setattr("openai.OpenAI.post", lambda *_, **__: pytest.fail("asked again"))
    second = run(url, tmp_path, "sampler=base").samples()
    assert {k: s.text for k, s in first.items()} == {k: s.text for k, s in second.items()}
