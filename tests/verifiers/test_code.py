"""The code verifier: what it takes for the program, and that only a program whose checks return passes.

Run: pytest tests/verifiers/test_code.py
"""

from textwrap import indent

import pytest

from powerbench.errors import UserError
from powerbench.tasks.humaneval import HumanEval
from powerbench.types import Problem, Prompt, Score
from powerbench.verifiers.code import CodeVerifier

PROMPT = '''from math import sqrt


def helper(x):
    return 2 * x


def root(x: float) -> float:
    """ The square root.
    >>> root(4.0)
    2.0
    """
'''
TEST = """
def check(candidate):
    assert candidate(4.0) == 2.0, "four"
    assert candidate(9.0) == 3.0, "nine"
"""
PROBLEM = Problem(
    "root", Prompt(PROMPT), "", {"prompt": PROMPT, "entry_point": "root", "test": TEST}
)
WHOLE = "def root(x):\n    return sqrt(x)\n"
BODY = "    return sqrt(x)\n"


def judge(text: str, timeout: float = 5.0) -> Score:
    return CodeVerifier(timeout=timeout).score(PROBLEM, text)


# -- extraction -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        BODY,
        BODY.rstrip(),
        "\n" + BODY + "\n\nprint(root(4.0))\nassert False\n",
        BODY + "\n\ndef other():\n    raise SystemExit\n\nother()\n",
        BODY + "\nThe function returns the square root.\n",
        BODY + "```\nThis is it.",
        "    note = '''\nat column 0\n'''\n" + BODY,
        BODY + "    if x and (\n",
        WHOLE,
        PROMPT + BODY,
        f"Here it is:\n```python\n{WHOLE}```\nIt uses `sqrt`.",
        f"Here it is:\n```python\n{WHOLE}",
        f"```\n{PROMPT}{BODY}```",
        f"```python\n{BODY}```",
        "```python\nreturn sqrt(x)\n```",
        f"1. First\n   ```python\n{indent(WHOLE, '   ')}   ```\n",
        f"```python\nprint(1)\n```\nand\n```python\n{WHOLE}```",
        f"```python\ndef root(x):\n    return helper(x) / 2 and sqrt(x)\n```\n```python\n{'x' * 9}\n```",
    ],
)
def test_the_program_is_found(text: str) -> None:
    score = judge(text)
    assert (score.correct, score.reason) == (True, "passed")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no code"),
        ("I cannot do that.", "no code"),
        ("```text\nnothing to run\n```", "no code"),
        ("return sqrt(x)", "no code"),
        ("\0", "no code"),
        ("```python\ndef root(x) return 1\n```", "SyntaxError"),
    ],
)
def test_a_response_without_the_function_is_wrong(text: str, reason: str) -> None:
    assert judge(text) == Score(correct=False, reason=reason)


def test_extracted_is_the_program_without_the_tests() -> None:
    assert judge(BODY + "\nprint(1)\n").extracted == PROMPT + BODY
    fenced = judge(f"```\n{WHOLE}```").extracted
    assert fenced is not None
    assert fenced.startswith("from math import sqrt\n\n\ndef helper(x):")
    assert fenced.endswith(WHOLE)


# -- execution ------------------------------------------------------------------------------------


@pytest.mark.parametrize("solution", ["alone", "in a fenced block"])
def test_all_canonical_solutions_of_humaneval_pass(solution: str) -> None:
    verifier = CodeVerifier(timeout=20.0)
    for problem in HumanEval().problems("base"):
        text = problem.gold
        if solution == "in a fenced block":
            text = f"Sure!\n\n```python\n{problem.meta['prompt']}{problem.gold}```\n\nIt works."
        assert verifier.score(problem, text).correct, problem.id


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("return 2.0", "AssertionError"),
        ("return undefined", "NameError: name 'undefined' is not defined"),
        ("import sys; sys.exit(0)", "SystemExit: 0"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("import os; os._exit(0)", "exited with code 0 before the checks returned"),
        ("import os; os.kill(os.getpid(), 9)", "killed by SIGKILL before the checks returned"),
        ("return float(input())", "EOFError: EOF when reading a line"),
        ("return ' ' * 10**10", "MemoryError"),
        ("nonlocal y", "SyntaxError: no binding for nonlocal 'y' found (<program>, line 13)"),
        ("return root(x)", "RecursionError: maximum recursion depth exceeded"),
    ],
)
def test_a_program_that_fails_says_how(body: str, reason: str) -> None:
    score = judge(f"    {body}\n")
    assert (score.correct, score.reason) == (False, reason)


@pytest.mark.parametrize(
    "body",
    [
        "while True: pass",
        "while True: print('x' * 10000)",
        "import time; time.sleep(1000)",
        "import subprocess; subprocess.run(['sleep', '1000'])",
    ],
)
def test_a_program_that_does_not_end_has_failed(body: str) -> None:
    score = judge(f"    {body}\n", timeout=0.5)
    assert score.correct is False
    if "subprocess" not in body:  # there, the limit on processes may come first
        assert score.reason == "timed out"


def test_a_program_that_hoards_memory_has_failed() -> None:
    score = judge("    hoard = []\n    while True: hoard.append(' ' * 10**7)\n", timeout=20)
    assert (score.correct, score.reason) == (False, "MemoryError")


@pytest.mark.parametrize(
    "body", ["print('x' * 10**6)", "import sys; sys.stderr.write('x' * 10**6)", "open('f', 'w')"]
)
def test_output_and_files_do_no_harm(body: str) -> None:
    assert judge(f"    {body}\n{BODY}").correct is True


def test_a_program_cannot_report_for_the_harness() -> None:
    """Every descriptor is written to, then the process exits before the checks return."""
    attack = """    import os
    for descriptor in range(3, 64):
        try:
            os.write(descriptor, b"passed")
        except OSError:
            pass
    os._exit(0)
"""
    assert judge(attack).correct is False


def test_the_environment_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "key")
    assert judge(f"    import os; assert 'SECRET' not in os.environ\n{BODY}").correct is True


def test_a_verdict_does_not_depend_on_a_hash_seed() -> None:
    text = "    raise ValueError(hash('a'))\n"
    assert judge(text) == judge(text)


def test_a_sandbox_that_fails_decides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/no/such/python")
    score = judge(BODY)
    assert score.value is None
    assert "the sandbox failed" in score.reason


# -- misuse ---------------------------------------------------------------------------------------


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(UserError, match="timeout must be > 0"):
        CodeVerifier(timeout=0)
    with pytest.raises(UserError, match="memory_mb must be >= 64"):
        CodeVerifier(memory_mb=1)


def test_a_problem_of_another_task_is_refused() -> None:
    with pytest.raises(UserError, match="'code' needs 'prompt', which problem 7 lacks"):
        CodeVerifier().score(Problem("7", Prompt(""), "5"), "5")
