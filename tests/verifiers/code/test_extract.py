"""Extraction: whatever a response is dressed in, its program is found, and nothing else is run.

Run: pytest tests/verifiers/code/test_extract.py
"""

import ast
import random
from typing import Any

import pytest
from responses import BEFORE, BRANCHES, HEAD, HELPERS, OTHER, PROMPT, RIGHT, fenced

from powerbench.tasks.humaneval import HumanEval
from powerbench.verifiers.code import fragments
from powerbench.verifiers.code.extract import PARSED_PER_CHARACTER, extract, preamble


def defined(program: str | None) -> Any:
    """The function that a program, ours, defines."""
    assert program is not None
    namespace: dict[str, Any] = {"__name__": "program"}
    exec(compile(program, "<program>", "exec"), namespace)
    return namespace["root"]


@pytest.mark.parametrize("dressing", RIGHT)
def test_the_program_is_found_and_nothing_else_is_run(dressing: str) -> None:
    root = defined(extract(PROMPT, "root", RIGHT[dressing]))
    assert (root(4.0), root(9.0)) == (2.0, 3.0)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I cannot do that.",
        "No",
        "Note: root",
        "\0",
        "    pass\n",
        "    ...\n",
        '    """ More to say. """\n',
        "    # to do\n",
        "    def inner(x):\n        return x\n",
        HEAD,
        PROMPT,
        fenced("nothing to run\n", language="text"),
        fenced("root(4.0)\n"),
        fenced("def root(x) return 1\n"),
        "async def root(x):\n    return sqrt(x)\n",
        "def roots(x):\n    return sqrt(x)\n",
        "class Solution:\n    def root(self, x):\n",
        "def root(x)\n    return sqrt(x)\n",
        fenced("def root(x)\n    return sqrt(x)"),
    ],
)
def test_there_is_no_program_without_the_function(text: str) -> None:
    assert extract(PROMPT, "root", text) is None


def test_a_continued_prompt_is_kept_letter_by_letter() -> None:
    text = "    # why not\n    return sqrt(x)  \n\n\nprint(1)\n"
    assert extract(PROMPT, "root", text) == f"{PROMPT}    # why not\n    return sqrt(x)  \n"


def test_line_ends_make_no_difference() -> None:
    for text in (BRANCHES, fenced(f"{OTHER}\n{HELPERS}")):
        for end in ("\r\n", "\r"):
            assert extract(PROMPT, "root", text.replace("\n", end)) == extract(PROMPT, "root", text)


def test_what_is_needed_follows_what_the_prompt_gives() -> None:
    code = "import math, os\nimport sys; sys.exit()\nK = 1\nL = 2\n\ndef root(x):  # so\n    return K\n"
    assert extract(PROMPT, "root", fenced(code)) == (
        f"{BEFORE}import sys\n\nsys.exit()\n\nK = 1\n\ndef root(x):  # so\n    return K\n"
    )


def test_the_prompts_imports_and_helpers_are_kept() -> None:
    assert preamble(PROMPT, "root") == BEFORE
    decorated = f"{BEFORE}@wraps\n# twice\n@wraps\n{HEAD}"
    assert preamble(decorated, "root") == BEFORE
    assert preamble(HEAD, "root") == ""
    assert preamble(f"{BEFORE}def root(x):\n", "root") == BEFORE
    assert preamble("not Python", "root") == ""
    inside = "def root(x):\n    import math\n    ''' The root. '''\n"
    assert defined(extract(inside, "root", "def root(x):\n    return math.sqrt(x)\n"))(4.0) == 2.0


def test_a_prompt_of_any_indentation_is_continued() -> None:
    for margin in ("  ", "\t", 8 * " "):
        prompt = f"def root(x):\n{margin}''' The root. '''\n"
        for body in (f"{margin}return x**0.5\n", "return x**0.5\n", "    return x**0.5\n"):
            assert defined(extract(prompt, "root", body))(4.0) == 2.0
    for end in ("", "    ", "\n", "\n    "):
        text = "return x**0.5" if end.endswith("    ") else "\n    return x**0.5"
        assert defined(extract(f"def root(x):\n    ''' It. '''{end}", "root", text))(4.0) == 2.0


HUMANEVAL = {problem.id: problem for problem in HumanEval().problems("base")}


@pytest.mark.parametrize("dressing", ["body", "fence", "prose"])
def test_humanevals_own_solutions_are_found(dressing: str) -> None:
    assert len(HUMANEVAL) == 164
    for problem in HUMANEVAL.values():
        prompt, name = problem.meta["prompt"], problem.meta["entry_point"]
        text = {
            "body": f"{problem.gold}\n\nprint({name}(input()))\n",
            "fence": f"Sure!\n\n{fenced(prompt + problem.gold)}\nIt works.",
            "prose": f"Sure! It's this:\n\n{prompt}{problem.gold}\nIt works, doesn't it?\n",
        }[dressing]
        program = extract(prompt, name, text)
        assert program is not None, problem.id
        assert program.startswith(preamble(prompt, name)), problem.id
        functions = [n for n in ast.parse(program).body if isinstance(n, ast.FunctionDef)]
        wanted = [
            n for n in ast.parse(prompt + problem.gold).body if isinstance(n, ast.FunctionDef)
        ]
        assert ast.dump(functions[-1]) == ast.dump(wanted[-1]), problem.id


# -- hostile texts --------------------------------------------------------------------------------

BITS = (
    *("def root(x):\n", "def f(x): return root(x)\n", "    return x\n", "\treturn y\n", "  x\n", "\n"),
    *("```\n", "```python\n", "~~~\n", "(", ")", "[", "'''", '"""', "'", "\\\n", "if x:\n", "@a\n"),
    *("    ", "\t", "x = 1\n", "class A:\n", "try:\n", "from b import *\n", "it's\n", "lambda: ", "f'{"),
    *("=", ":", "\0", "\ud800", "\ufeff", "\r", "\x0c", "nonlocal x\n", "yield\n", "; ", "é", "-", "*"),
)  # fmt: skip


def test_no_text_raises() -> None:
    random_bits = random.Random(0)
    for _ in range(300):
        text = "".join(random_bits.choices(BITS, k=random_bits.randrange(40)))
        for prompt in (PROMPT, text):
            extract(prompt, "root", text)


@pytest.mark.parametrize(
    "unit",
    [
        *("(", "[{(", "'''", "-", "not ", "a.", "1 + ", "lambda: ", "f'{", "\\\n", "\n", " ", "\t", "é", "\0"),
        *("```\n", "```python\nx = 1\n", "def root(x):\n", "def root(x):\n    x = (\n", "@a\n", "if x:\n"),
        *("x = 1\n", "x = (\n", "x = '''\n", "try:\n", "    try:\n", "    x = (\n", "    return (\n"),
        *("elif x: pass\n", "it's = (\n", "class A:\n    def root(self):\n", "x = = 2\n", "x = 1; "),
    ],
)  # fmt: skip
def test_the_work_is_linear_in_the_text(unit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many errors there are in it; the last text to be parsed may go past the limit."""
    parse, read = ast.parse, []

    def counted(source: str) -> ast.Module:
        read.append(len(source))
        return parse(source)

    monkeypatch.setattr(fragments.ast, "parse", counted)
    monkeypatch.setattr(f"{extract.__module__}.MIN_PARSED", 1000)
    text = unit * (20_000 // len(unit))
    extract(PROMPT, "root", text)
    assert 0 < sum(read) <= 1000 + (PARSED_PER_CHARACTER + 2) * (len(PROMPT) + len(text))
