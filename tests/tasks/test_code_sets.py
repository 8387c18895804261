"""MBPP, and any other set of programming problems: prompts, tests in the sandbox, bad input.

The rows are our own, in MBPP's format. Run: pytest tests/tasks/test_code_sets.py
"""

import json
from pathlib import Path
from typing import Any

import pytest

from powerbench.config import compose
from powerbench.errors import UserError
from powerbench.tasks.code_set import CodeSet
from powerbench.tasks.mbpp import MBPP
from powerbench.tasks.reading import read_file
from powerbench.types import Problem, Prompt
from powerbench.verifiers.code import CodeVerifier

DOUBLE = {
    "question": "Write a function that doubles a number.",
    "tests": ["assert double(2) == 4", "assert double(0) == 0", "assert set([double(1)]) == {2}"],
}
RIGHT, WRONG = "def double(x):\n    return 2 * x", "def double(x):\n    return x + 2"


def saved(folder: Path, *rows: Any, name: str = "set.jsonl") -> str:
    (folder / name).write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return str(folder / name)


def only(folder: Path, row: dict[str, Any], **settings: Any) -> Problem:
    (problem,) = CodeSet(path=saved(folder, row), **settings).problems("base")
    return problem


def verdict(problem: Problem, text: str) -> tuple[bool | None, str]:
    score = CodeVerifier(timeout=20.0).score(problem, text)
    return score.correct, score.reason


# -- what counts as right -------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["list", "text", "check"])
def test_a_right_function_passes_and_a_wrong_one_fails(tmp_path: Path, form: str) -> None:
    script = "\n".join(DOUBLE["tests"])
    checks = "def check(candidate):\n    assert candidate(2) == 4 and candidate(1) == 2"
    tests = {"list": DOUBLE["tests"], "text": script, "check": checks}[form]
    row = DOUBLE | {"tests": tests, "name": "double"}
    problem = only(tmp_path, row, entry_point="name" if form == "check" else None)
    assert problem.meta["entry_point"] == "double"
    assert verdict(problem, f"Here:\n```python\n{RIGHT}\n```\n") == (True, "passed")
    assert verdict(problem, f"[BEGIN]\n{RIGHT}\n[DONE]\nYou are an expert") == (True, "passed")
    assert verdict(problem, f"```python\n{WRONG}\n```")[0] is False
    assert verdict(problem, "I cannot.") == (False, "no code")


def test_each_of_the_tests_counts(tmp_path: Path) -> None:
    for i in range(3):
        tests = [*DOUBLE["tests"]]
        tests[i] = "assert double(7) == 15"
        assert verdict(only(tmp_path, DOUBLE | {"tests": tests}), RIGHT)[0] is False


def test_a_program_cannot_replace_its_tests(tmp_path: Path) -> None:
    problem = only(tmp_path, DOUBLE)
    for trick in (
        "def check(candidate): pass",
        "import builtins\nbuiltins.exec = print",
        "TESTS = ''",
    ):
        assert verdict(problem, f"```python\n{trick}\n{WRONG}\n```")[0] is False


def test_setup_runs_before_the_tests_and_may_use_the_references_classes(tmp_path: Path) -> None:
    row = DOUBLE | {
        "tests": ["assert math.isclose(double(math.pi), math.tau)"],
        "setup": "import math",
    }
    assert verdict(only(tmp_path, row, setup="setup"), RIGHT) == (True, "passed")
    assert (
        verdict(only(tmp_path, row | {"setup": ["import math"]}, setup="setup"), RIGHT)[0] is True
    )
    reference = (
        "class Node:\n    def __init__(self, v): self.v = v\ndef value(node):\n    return -1"
    )
    row = {
        "question": "Write a function that gives a node's value.",
        "tests": ["assert value(root.v) == 3"],
        "setup": "root = Node(3)",
        "code": reference,
    }
    problem = only(tmp_path, row, setup="setup", solution="code")
    assert problem.gold == reference
    assert verdict(problem, "def value(v):\n    return v") == (True, "passed")
    passed, reason = verdict(
        only(
            tmp_path, row | {"tests": ["assert value(root) == 3"]}, setup="setup", solution="code"
        ),
        "def value(node):\n    return node.v",
    )
    assert passed is None
    assert "a value of type Node, which cannot cross" in reason


@pytest.mark.parametrize(
    ("tests", "solution", "name"),
    [
        (["assert set(f(1)) == set([1])"], "", "f"),
        (["assert math.isclose(area(2), 4)"], "", "area"),
        (["import math", "x = make(3)", "assert first(x)"], "def first(x): ...", "first"),
        (["assert sorted(map(g, [1])) == [h(1)]"], "", "h"),
        (["assert outer(inner(1)) == 2"], "def inner(x): ...\ndef outer(x): ...", "outer"),
        (["assert outer(inner(1)) == 2"], "def inner(x): ...", "inner"),
        (["assert f(1)"], "print 'Python 2'", "f"),
    ],
)
def test_the_function_is_the_one_that_the_tests_call(
    tmp_path: Path, tests: list[str], solution: str, name: str
) -> None:
    row = {"question": "Do it.", "tests": tests, "code": solution or "pass"}
    assert only(tmp_path, row, solution="code").meta["entry_point"] == name


def test_a_functions_beginning_is_completed(tmp_path: Path) -> None:
    stub = 'import math\n\ndef double(x):\n    """Twice x."""\n'
    problem = only(tmp_path, DOUBLE | {"question": stub}, prompt_style="raw")
    assert problem.prompt == Prompt(stub, chat=False)
    assert verdict(problem, "    return 2 * x\n\nprint(double(1))") == (True, "passed")
    (turn,) = CodeSet(path=saved(tmp_path, DOUBLE | {"question": stub})).problems("instruct")
    assert turn.prompt.chat
    assert stub in turn.prompt.text


# -- prompts --------------------------------------------------------------------------------------


def test_prompts_show_the_tests(tmp_path: Path) -> None:
    tests = "\n".join(DOUBLE["tests"])
    plain = only(tmp_path, DOUBLE).prompt.text
    assert plain.startswith(
        f"{DOUBLE['question']}\n\nYour code should pass these tests:\n\n{tests}\n\n"
    )
    own = only(tmp_path, DOUBLE, prompt="# {question}\n# {tests}\n").prompt.text
    assert own == f"# {DOUBLE['question']}\n# {tests}\n"
    few = only(tmp_path, DOUBLE, prompt_style="few_shot").prompt
    assert few.text.count("[BEGIN]") == 3
    assert few.text.count("[DONE]") == 2
    assert few.text.endswith(f"{tests}\n[BEGIN]\n")
    assert not few.chat


def test_the_bundled_examples_pass_their_tests(tmp_path: Path) -> None:
    path = "bundled:examples/code.jsonl"
    problems = CodeSet(path=path, solution="solution").problems("base")
    assert len(problems) == len(read_file(path)) == 2
    assert [verdict(p, p.gold) for p in problems] == [(True, "passed")] * 2


# -- MBPP -----------------------------------------------------------------------------------------


def mbpp_row(task_id: int, name: str = "double") -> dict[str, Any]:
    return {
        "text": f"Write a function to double a number, number {task_id}.",
        "code": f"def {name}(x):\r\n  return 2 * x",
        "task_id": task_id,
        "test_setup_code": "",
        "test_list": [f"assert {name}({i}) == {2 * i}" for i in range(3)],
        "challenge_test_list": [],
    }


def test_mbpp_is_the_papers_prompt_and_split(tmp_path: Path) -> None:
    rows = [mbpp_row(i) for i in (1, 2, 3, 4, 10, 11, 510, 511)]
    task = compose(["task=mbpp", f"task.path={saved(tmp_path, *rows)}"]).build("task")
    problems = task.problems("instruct")
    assert [problem.id for problem in problems] == ["11", "510"]
    tests = "assert double(0) == 0\nassert double(1) == 2\nassert double(2) == 4"
    shown = "".join(
        f"You are an expert Python programmer, and here is your task: Write a function to double a number, "
        f"number {i}. Your code should pass these tests:\n\n{tests}\n[BEGIN]\n"
        + ("" if i == 11 else "def double(x):\n  return 2 * x\n[DONE]\n")
        for i in (2, 3, 4, 11)
    )
    assert problems[0].prompt == Prompt(shown, chat=False)
    for problem in problems:
        assert verdict(problem, problem.gold) == (True, "passed")
        assert verdict(problem, f"{WRONG}\n[DONE]\nYou are an expert Python programmer")[0] is False
    assert task.source()["rows"] == 2


def test_mbpp_plain_is_a_turn_and_needs_no_examples(tmp_path: Path) -> None:
    path = saved(tmp_path, mbpp_row(11))
    (problem,) = MBPP(path=path, prompt_style="plain").problems("instruct")
    assert problem.prompt.chat
    assert "assert double(2) == 4" in problem.prompt.text
    assert "[BEGIN]" not in problem.prompt.text
    with pytest.raises(UserError, match=r"shows the problems 2, 3 and 4 of MBPP, which .* lacks"):
        MBPP(path=path).problems("base")


def test_mbpp_takes_its_examples_and_problems_from_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    splits = {"prompt": [mbpp_row(i) for i in range(1, 11)], "test": [mbpp_row(11), mbpp_row(12)]}

    def load(hub: str, subset: str, *, split: str, revision: str) -> list[dict[str, Any]]:
        assert (hub, subset, revision[:7]) == ("google-research-datasets/mbpp", "full", "4bb6404")
        return splits[split]

    monkeypatch.setattr("datasets.load_dataset", load)
    hub = compose(["task=mbpp"]).build("task")
    local = MBPP(path=saved(tmp_path, *splits["prompt"], *splits["test"]))
    assert hub.problems("base") == local.problems("base")
    assert hub.source()["sha256"] == local.source()["sha256"]


def test_the_sanitised_mbpp_is_read_too(tmp_path: Path) -> None:
    row = mbpp_row(11)
    row = {"prompt": row["text"], "test_imports": ["import math"], **row}
    del row["text"], row["test_setup_code"]
    row["test_list"] = ["assert math.isclose(double(1), 2)"]
    (problem,) = MBPP(path=saved(tmp_path, row), prompt_style="plain").problems("base")
    assert row["prompt"] in problem.prompt.text
    assert verdict(problem, RIGHT) == (True, "passed")


# -- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "settings", "said"),
    [
        ({"tests": []}, {}, "line 2: 'tests' is blank"),
        ({"tests": None}, {}, "line 2: 'tests' is blank"),
        ({"tests": ["assert (", "x"]}, {}, "line 2: 'tests' is not Python"),
        ({"tests": [1]}, {}, "line 2: 'tests[0]' must be a string, got 1"),
        ({"tests": "assert 1 == 1"}, {}, "line 2: which function the tests call cannot be told"),
        (
            {"tests": "def check(candidate): candidate()"},
            {},
            "cannot be told; name it in a column",
        ),
        (
            {"name": "not a name"},
            {"entry_point": "name"},
            "'name' must be a function's name, got 'not a name'",
        ),
        (
            {},
            {"entry_point": "nme"},
            "unknown column task.entry_point = 'nme' (did you mean 'name'?)",
        ),
        ({}, {"tests": "test_list"}, "unknown column task.tests = 'test_list'"),
        ({"question": None}, {}, "line 2: 'question' is missing"),
    ],
)
def test_bad_input_is_one_line_that_names_it(
    tmp_path: Path, row: dict[str, Any], settings: dict[str, Any], said: str
) -> None:
    good = DOUBLE | {"name": "double"}
    with pytest.raises(UserError) as caught:
        CodeSet(path=saved(tmp_path, good, good | row), **settings).problems("base")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_task_id_of_mbpp_is_a_number(tmp_path: Path) -> None:
    row = mbpp_row(11) | {"task_id": "eleven"}
    with pytest.raises(UserError, match="'task_id' must be a number of MBPP, got 'eleven'"):
        MBPP(path=saved(tmp_path, row)).problems("base")
