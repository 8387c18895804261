"""lm-evaluation-harness and inspect_ai against the server: item by item and seed by seed, their answers and
scores are those of `powerbench run`.

Run: make test-clients
"""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from serving import Served, served

from powerbench.cli import main
from powerbench.config import compose
from powerbench.store import Run, find_runs

ROOT = Path(__file__).parents[2]
LM_EVAL = os.environ.get("LM_EVAL", str(ROOT / ".venv-lm-eval/bin/lm_eval"))
INSPECT = os.environ.get("INSPECT", str(ROOT / ".venv-inspect/bin/inspect"))
TOKENS, LIMIT, SEEDS = 48, 8, (0, 1)
SMALL = (f"max_tokens={TOKENS}", "blocks=2", "steps=2")
KEY = "of-the-test"

pytestmark = pytest.mark.clients


class Setting(NamedTuple):
    """A server, and the settings of the runs that its answers are held against."""

    here: Served
    task: Sequence[str]


@pytest.fixture(scope="module", params=["text", "chat"])
def setting(request: pytest.FixtureRequest) -> Iterator[Setting]:
    task = ("task=math_mini", *(["task.chat=always"] if request.param == "chat" else []))
    with served("model=smollm2-135m", "engine=hf", *task, *SMALL, key=KEY) as here:
        yield Setting(here, task)


def run(setting: Setting, seed: int, folder: Path) -> Run:
    """What `powerbench run` makes of the same items."""
    settings = ["tracker=none", f"runs={folder}", f"limit={LIMIT}", f"seed={seed}"]
    main(["run", *setting.task, *SMALL, *settings])
    (made,) = find_runs([folder])
    return made


def command(words: Sequence[str], url: str) -> None:
    """Run a client as its user would, without what this process imports from."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    keys = {"OPENAI_API_KEY": KEY, "POWERBENCH_API_KEY": KEY, "POWERBENCH_BASE_URL": f"{url}/v1"}
    done = subprocess.run(
        words, env=env | keys | {"HF_HUB_OFFLINE": "1"}, cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def require_same(made: Run, found: dict[str, tuple[str, float]]) -> None:
    """found: text and score of each item."""
    samples = {sample.problem: sample for sample in made.stream()}
    scores = {key.problem: score.value for key, score in made.scores("math").items()}
    assert found.keys() == samples.keys()
    assert len(found) == LIMIT
    for problem, (text, score) in found.items():
        assert text.strip() == samples[problem].text.partition("\n")[0].strip()
        assert score == scores[problem], (problem, text)


@pytest.mark.parametrize("seed", SEEDS)
def test_lm_eval_scores_as_a_run_does(setting: Setting, seed: int, tmp_path: Path) -> None:
    chat = len(setting.task) > 1
    kind, path = ("local-chat-completions", "chat/") if chat else ("local-completions", "")
    model = [
        f"model=smollm2-135m,base_url={setting.here.url}/v1/{path}completions",
        f"seed={seed},num_concurrent=4,tokenizer_backend=None,tokenized_requests=False",
    ]
    words = [LM_EVAL, "--model", kind, "--model_args", ",".join(model)]
    words += ["--tasks", "powerbench_math_mini", "--include_path", "powerbench/serve/lm_eval"]
    words += ["--gen_kwargs", f"max_gen_toks={TOKENS}", "--limit", str(LIMIT)]
    words += ["--output_path", str(tmp_path / "lm_eval"), "--log_samples"]
    command([*words, *(["--apply_chat_template"] if chat else [])], setting.here.url)
    (log,) = (tmp_path / "lm_eval").rglob("samples_*.jsonl")
    lines: list[dict[str, Any]] = [json.loads(line) for line in log.read_text().splitlines()]
    found = {x["doc"]["unique_id"]: (x["resps"][0][0], x["exact_match"]) for x in lines}
    require_same(run(setting, seed, tmp_path / "runs"), found)


def test_the_readmes_two_commands_work_as_they_stand(tmp_path: Path) -> None:
    """But for the port, and fewer items."""
    readme = (ROOT / "README.md").read_text().partition("<!-- serve -->")[2]
    serve, lm_eval = re.findall(r"```bash\n(.*?)```", readme, re.S)[:2]
    start = serve.partition("#")[0].split()[1:]
    words = [sys.executable, "-m", "powerbench.cli", *start, "--port", "0"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=ROOT) as server:
        try:
            assert server.stdout is not None
            url = server.stdout.readline().partition(" at ")[2].partition("/v1")[0]
            assert url.startswith("http://127.0.0.1:")
            asked = lm_eval.replace("http://127.0.0.1:8000", url).replace("--limit 16", "--limit 2")
            given = shlex.split(asked.replace("\\\n", " "))
            command([LM_EVAL, *given[1:], "--output_path", str(tmp_path)], url)
        finally:
            server.terminate()
    (results,) = tmp_path.rglob("results_*.json")
    found = json.loads(results.read_text())["results"]["powerbench_math_mini"]
    assert 0 <= found["exact_match,boxed"] <= 1


@pytest.mark.parametrize("seed", SEEDS)
def test_inspect_scores_as_a_run_does(setting: Setting, seed: int, tmp_path: Path) -> None:
    if len(setting.task) == 1:
        pytest.skip("inspect_ai speaks chat alone")
    problems = compose(list(setting.task)).build("task").problems("instruct")[:LIMIT]
    items = [{"id": p.id, "input": p.prompt.text, "target": p.gold} for p in problems]
    file = tmp_path / "items.jsonl"
    file.write_text("\n".join(map(json.dumps, items)))
    words = [INSPECT, "eval", "tests/serve/inspect_math.py"]
    words += ["-T", f"items={file}", "--model", "openai-api/powerbench/smollm2-135m"]
    words += ["--seed", str(seed), "--max-tokens", str(TOKENS)]
    words += ["--log-format", "json", "--log-dir", str(tmp_path / "log"), "--display", "plain"]
    command(words, setting.here.url)
    (log,) = (tmp_path / "log").glob("*.json")
    found = {
        str(x["id"]): (x["output"]["choices"][0]["message"]["content"], x["scores"]["pattern"])
        for x in json.loads(log.read_text())["samples"]
    }
    scored = {id: (text, float(score["value"] == "C")) for id, (text, score) in found.items()}
    require_same(run(setting, seed, tmp_path / "runs"), scored)
