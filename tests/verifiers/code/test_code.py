"""The code verifier: executions on responses, and what each of its settings is for.

What a program cannot do is in test_sandbox.py, how it is found in test_extract.py.
Run: pytest tests/verifiers/code/test_code.py
"""

import platform
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from powerbench.errors import UserError
from powerbench.tasks.humaneval import HumanEval
from powerbench.types import Problem, Prompt, Score
from powerbench.verifiers import sandbox
from powerbench.verifiers.code import CodeVerifier

BEFORE = "from math import sqrt\n\n\n"
PROMPT = f'{BEFORE}def root(x):\n    """ The square root. """\n'
TEST = """
def check(candidate):
    assert candidate(4.0) == 2.0, "four"
    assert candidate(9.0) == sqrt(9.0), "nine"
"""
PROBLEM = Problem(
    "root", Prompt(PROMPT), "", {"prompt": PROMPT, "entry_point": "root", "test": TEST}
)
WHOLE = "def root(x):\n    return sqrt(x)\n"
BODY = "    return sqrt(x)\n"


def judge(text: str, **settings: Any) -> Score:
    return CodeVerifier(**{"timeout": 60.0, **settings}).score(PROBLEM, text)


@pytest.mark.parametrize(
    "text", [BODY, WHOLE, f"Sure.\n```python\n{WHOLE}```\n", f"{BODY}\nprint(root(input()))\n"]
)
def test_a_program_whose_checks_return_is_right(text: str) -> None:
    score = judge(text)
    assert (score.correct, score.reason) == (True, "passed")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("return 2.0", "AssertionError"),
        ("return undefined", "NameError: name 'undefined' is not defined"),
        ("return float(input())", "EOFError"),
        ("nonlocal y", "SyntaxError: no binding for nonlocal 'y' found"),
    ],
)
def test_a_program_that_fails_is_wrong_and_says_how(body: str, reason: str) -> None:
    score = judge(f"    {body}\n")
    assert score.correct is False
    assert score.reason.startswith(reason)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no code"),
        ("I cannot do that.", "no code"),
        ("```python\ndef root(x) return 1\n```", "no usable definition"),
        ("def root(x):\n    ...\n", "no usable definition"),
    ],
)
def test_a_response_without_the_function_is_wrong(text: str, reason: str) -> None:
    assert judge(text) == Score(correct=False, reason=reason, by="syntax tree")


def test_the_score_keeps_the_program_and_what_decided() -> None:
    assert judge(f"{BODY}\nprint(1)\n") == Score(
        correct=True,
        answer=PROMPT + BODY,
        reason="passed",
        by=f"{sandbox.best_mode()}, Python {platform.python_version()}",
    )


def test_a_sandbox_that_fails_decides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/no/such/python")
    score = judge(BODY)
    assert score.value is None
    assert score.answer == PROMPT + BODY
    assert "the sandbox failed" in score.reason
    assert score.by.startswith("limits")


def test_it_may_be_called_from_its_number_of_threads() -> None:
    verifier = CodeVerifier(timeout=60, workers=4)
    texts = [f"    return {number} * sqrt(x)\n" for number in (1, 2) * 6]
    with ThreadPoolExecutor(verifier.workers) as pool:
        scores = list(pool.map(lambda text: verifier.score(PROBLEM, text), texts))
    assert [score.correct for score in scores] == [True, False] * 6
    assert CodeVerifier().workers == CodeVerifier(workers=None).workers >= 1  # type: ignore[operator]


# -- HumanEval ------------------------------------------------------------------------------------

HUMANEVAL: Mapping[str, Problem] = {p.id: p for p in HumanEval().problems("base")}


@pytest.mark.parametrize("number", [10, 32, 38, 50, 115])
def test_what_the_prompt_alone_has_is_there_for_function_and_checks(number: int) -> None:
    """The response is the entry point alone: without the helpers or imports that the prompt gives."""
    problem = HUMANEVAL[f"HumanEval/{number}"]
    name = problem.meta["entry_point"]
    signature = next(
        line for line in problem.meta["prompt"].split("\n") if line.startswith(f"def {name}(")
    )
    score = CodeVerifier(timeout=60).score(problem, f"```\n{signature}\n{problem.gold}\n```")
    assert (score.correct, score.reason) == (True, "passed")


# -- settings -------------------------------------------------------------------------------------


def test_each_mode_has_a_name_and_a_rule() -> None:
    official = CodeVerifier(mode="official", timeout=60)
    assert (CodeVerifier().name, official.name) == ("code", "code_official")
    right = official.score(PROBLEM, f"```python\n{WHOLE}```\n")
    assert (right.correct, right.answer) == (True, PROMPT + BODY.rstrip())
    assert judge(WHOLE).correct is True
    assert official.score(PROBLEM, WHOLE).correct is False
    assert official.score(PROBLEM, "").correct is False


@pytest.mark.parametrize(
    ("settings", "body", "reason"),
    [
        ({"timeout": 0.5}, "while True: pass", "timed out"),
        ({"memory_mb": 256}, "return len(' ' * 300 * 2**20)", "MemoryError"),
        ({"file_mb": 2}, "open('f', 'w').write(' ' * 3 * 2**20)", "OSError"),
    ],
)
def test_each_limit_holds(settings: dict[str, Any], body: str, reason: str) -> None:
    score = judge(f"    {body}\n    return sqrt(x)\n", **settings)
    assert score.correct is False
    assert score.reason.startswith(reason)


def test_the_limits_are_no_smaller_than_they_say() -> None:
    body = "    kept = ' ' * 100 * 2**20\n    open('f', 'w').write(kept[: 3 * 2**20])\n"
    assert judge(body + BODY, memory_mb=512, file_mb=4).correct is True


def test_the_sandbox_is_told_what_the_settings_say(monkeypatch: pytest.MonkeyPatch) -> None:
    obstacles = dict.fromkeys(sandbox.MODES, "")
    monkeypatch.setattr(sandbox, "available", lambda: obstacles)
    told: list[tuple[sandbox.Program, sandbox.Limits, str | None]] = []

    def run(
        program: sandbox.Program, limits: sandbox.Limits, mode: str | None
    ) -> sandbox.Execution:
        told.append((program, limits, mode))
        return sandbox.Execution(True, "passed", "bubblewrap")

    monkeypatch.setattr(sandbox, "run", run)
    limits = {"timeout": 1.5, "memory_mb": 128, "file_mb": 2}
    judge(BODY, **limits)
    judge(BODY, **limits, require_sandbox=True)
    program = sandbox.Program(BEFORE, PROMPT + BODY, "root", TEST)
    expected = sandbox.Limits(seconds=1.5, memory_mb=128, file_mb=2)
    assert told == [(program, expected, None), (program, expected, "bubblewrap")]


def test_a_sandbox_that_is_required_but_does_not_work(monkeypatch: pytest.MonkeyPatch) -> None:
    obstacles = {**dict.fromkeys(sandbox.MODES, ""), "bubblewrap": "bwrap is not installed"}
    monkeypatch.setattr(sandbox, "available", lambda: obstacles)
    CodeVerifier()
    with pytest.raises(UserError, match=r"bubblewrap, .*\(bwrap is not installed\); set it to"):
        CodeVerifier(require_sandbox=True)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"mode": "offical"}, r"unknown verifier.mode 'offical' \(did you mean 'official'\?\)"),
        ({"timeout": 0}, "verifier.timeout must be a number > 0 and <= 3600 seconds, got 0"),
        ({"timeout": 1e9}, "verifier.timeout must be a number .*, got 1000000000.0"),
        ({"timeout": "long"}, "verifier.timeout must be a number .*, got long"),
        ({"memory_mb": 1}, "verifier.memory_mb must be an integer >= 64 and <= 1048576, got 1"),
        ({"file_mb": 0}, "verifier.file_mb must be an integer >= 1 and <= 1048576, got 0"),
        ({"workers": 0}, "verifier.workers must be an integer >= 1, got 0"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        CodeVerifier(**settings)


def test_a_problem_of_another_task_is_refused() -> None:
    with pytest.raises(UserError, match="'code' needs 'prompt', which problem 7 lacks"):
        CodeVerifier().score(Problem("7", Prompt(""), "5"), "5")
