"""The official rule: programs as the official code finds them, its regular expressions as cases.

Run: pytest tests/verifiers/code/test_extract_official.py
"""

import pytest

from powerbench.tasks.humaneval import HumanEval
from powerbench.verifiers.code.extract_official import extract_official

SIGNATURE = "def root(x):\n"
DOCSTRING = "    ''' Root. '''\n"
BODY = "    return sqrt(x)\n"
WHOLE = SIGNATURE + BODY
WRONG = "def root(x):\n    return 0.0\n"


@pytest.mark.parametrize(
    ("text", "body"),
    [
        # the prompt's signature is found: the prompt's docstring, then the response to the margin
        (BODY, DOCSTRING + BODY.rstrip()),
        (f"{BODY}\n\n    x\n\ty\n  z\n x\n", f"{DOCSTRING}{BODY}\n\n    x\n\ty\n  z"),
        (f"{BODY}print(1)\n", DOCSTRING + BODY.rstrip()),
        (f"{BODY}\n\n\n", DOCSTRING + BODY.rstrip()),
        (f"{BODY}# a comment\n{BODY}", DOCSTRING + BODY.rstrip()),
        (WHOLE, DOCSTRING.rstrip()),
        ("", DOCSTRING.rstrip()),
        (BODY.replace("\n", "\r\n"), f"{DOCSTRING}{BODY.rstrip()}\r"),
        # a fence goes first, if it is closed at the start of a line and holds the function
        (f"Here:\n```python\n{WHOLE}```\n", BODY.rstrip()),
        (f"```Python\n{WHOLE}\n\n```", f"{BODY}\n"),
        (f"```\nimport a\n\n{WHOLE}{WRONG}```\n", f"{BODY}{WRONG}".rstrip()),
        (f"```\n1\n```\n```python\n{WHOLE}\n```\n", BODY),
        (f"```\n1\n```\n{WHOLE}```", BODY.rstrip()),
        (f"```def \t\n root_of(x): 1:\n{BODY}\n```", BODY),
        (f"```python\n{WHOLE}", DOCSTRING.rstrip()),
        (f"```python\n{WHOLE}   ```", DOCSTRING.rstrip()),
        (f"```python\n{WHOLE}".replace("root", "other") + "```", DOCSTRING.rstrip()),
        (f"{BODY}```\n", DOCSTRING + BODY.rstrip()),
        (f"```python\n{WHOLE}\n```\n".replace("\n", "\r\n"), DOCSTRING.rstrip()),
    ],
)  # fmt: skip
def test_the_official_rule(text: str, body: str) -> None:
    prompt = SIGNATURE + DOCSTRING
    assert extract_official(prompt, "root", text) == prompt + body


@pytest.mark.parametrize(
    ("prompt", "text", "body"),
    [
        ("", "def other():\n  1\n2", "  1"),
        ("", "undefined: a:\n  1\n\n\n  2\n", "  1\n\n\n  2"),
        ("", "```defroot:\n1\n```\ndef root:\n  2", "  2"),
        ("", "def root(x): return 1", "    def root(x): return 1"),
        ("x", "\ny\n\n z\n", "    x\n    y\n\n     z\n"),
    ],
)
def test_the_official_rule_without_the_prompts_signature(prompt: str, text: str, body: str) -> None:
    assert extract_official(prompt, "root", text) == prompt + body


def test_humanevals_own_solutions_are_taken_whole() -> None:
    """But for one, whose first line, a single blank, ends the body."""
    cut = []
    for problem in HumanEval().problems("base"):
        prompt, name = problem.meta["prompt"], problem.meta["entry_point"]
        program = extract_official(prompt, name, problem.gold)
        assert program.startswith(prompt)
        if not program.endswith(problem.gold.rstrip("\n")):
            cut.append(problem.id)
    assert cut == ["HumanEval/134"]


@pytest.mark.parametrize(
    "unit", ["def root", "def", "def ", "def root:\n", "```", "```def root", "\n", "\n  ", ":\n"]
)
def test_long_texts_do_not_hang(unit: str) -> None:
    extract_official("def root:\n", "root", unit * (300_000 // len(unit)) + "\n  x")
