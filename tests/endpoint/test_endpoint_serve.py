"""model=endpoint at our own server: the same samples as the model makes where it is.

Run: pytest tests/endpoint/test_endpoint_serve.py
"""

import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from powerbench.cli import main
from powerbench.store import Run, find_runs
from powerbench.types import SampleKey

NEEDED = ("powerbench.serve", "fastapi", "uvicorn")
missing = [name for name in NEEDED if find_spec(name) is None]
pytestmark = pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)}")

TOY = ["model=toy", "engine=toy", "max_tokens=12", "blocks=3", "steps=4"]
TASK = ["task=math_mini", "task.chat=never", "task.one_line=false", "limit=3", "tracker=none"]
DEADLINE = 60.0


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["serve", *TOY, *TASK, "sampler=base", "--port", str(port)]
    server = subprocess.Popen([sys.executable, "-m", "powerbench.cli", *command])
    try:
        end = time.monotonic() + DEADLINE
        while not _answers(f"http://127.0.0.1:{port}/health"):
            assert server.poll() is None, "the server has ended"
            assert time.monotonic() < end, "waited in vain"
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        server.wait(DEADLINE)


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5) as reply:
            return reply.status == 200
    except OSError:
        return False


def made(folder: Path, *settings: str) -> Run:
    main(["run", *TASK, "max_tokens=12", f"runs={folder}", *settings])
    (run,) = find_runs([folder])
    return run


def test_greedy_samples_are_those_of_the_model_itself(url: str, tmp_path: Path) -> None:
    there = [
        *("model=endpoint", "model.id=toy", f"model.base_url={url}", "model.key_env=null"),
        *(f"model.cache={tmp_path / 'cache'}", "model.kind=base"),
        *("+model.options.sampler=greedy", "sampler=greedy"),
    ]
    asked = made(tmp_path / "asked", *there)
    own = made(tmp_path / "own", *TOY, "sampler=greedy")
    assert len(asked.samples()) == 3
    for key, sample in own.samples().items():
        reply = asked.samples()[key]
        assert reply.text == sample.text
        assert reply.finish_reason == sample.finish_reason
        assert (reply.length, reply.cost.decoded) == (len(sample.tokens), sample.cost.decoded)
        assert (reply.tokens, reply.logp) == ((), None)


def test_the_servers_sampler_answers_where_it_is_asked_for(url: str, tmp_path: Path) -> None:
    """Power sampling behind the API, with the seed of a run of its own: the same responses."""
    power = {"name": "power", "blocks": 3, "steps": 4}
    options = [f"+model.options.sampler.{k}={v}" for k, v in power.items()]
    own = made(tmp_path / "own", *TOY, "sampler=power")
    first = SampleKey(next(iter(own.problems())), 0)  # the toy reads all prompts as this one
    there = [
        *("model=endpoint", "model.id=toy", f"model.base_url={url}", "model.key_env=null"),
        *(f"model.cache={tmp_path / 'cache'}", "model.kind=base", "sampler=base"),
        *(*options, "+model.options.temperature=null", "+model.options.seed=0"),
    ]
    reply, sample = made(tmp_path / "asked", *there).samples()[first], own.samples()[first]
    assert reply.text == sample.text
    assert (reply.reported is not None) and reply.finish_reason == sample.finish_reason
