"""Programs: the function in a response, found by its syntax tree and run against the problem's tests."""

import ast
import re
import warnings
from dataclasses import dataclass
from textwrap import dedent, indent
from typing import NamedTuple

from powerbench.errors import require
from powerbench.types import Problem, Score
from powerbench.verifiers.common import asked
from powerbench.verifiers.sandbox import run

FENCED = re.compile(r"^[ \t]*```[^\n`]*\n(.*?)(?:^[ \t]*```|\Z)", re.DOTALL | re.MULTILINE)
INDENT = 4 * " "


@dataclass(frozen=True)
class CodeVerifier:
    """Decides whether the function that a response defines or completes passes `check(entry_point)`.

    timeout: seconds for the program with its tests; one that needs longer has failed.
    memory_mb: address space of its process, in MiB.
    """

    name: str = "code"
    timeout: float = 5.0
    memory_mb: int = 1024

    def __post_init__(self) -> None:
        require(self.timeout > 0, f"verifier.timeout must be > 0 seconds, got {self.timeout}")
        require(self.memory_mb >= 64, f"verifier.memory_mb must be >= 64, got {self.memory_mb}")

    def score(self, problem: Problem, text: str) -> Score:
        prompt, entry_point, test = (
            asked(problem, field, self.name) for field in ("prompt", "entry_point", "test")
        )
        program = extract(prompt, entry_point, text)
        if program is None:
            tried = f"def {entry_point}" in text
            return Score(correct=False, reason="SyntaxError" if tried else "no code")
        tested = f"{program}\n{test}\n\ncheck({entry_point})\n"
        passed, reason = run(tested, self.timeout, self.memory_mb)
        return Score(correct=passed, extracted=program, reason=reason)

    def close(self) -> None:
        """Nothing is held between calls."""


def extract(prompt: str, entry_point: str, text: str) -> str | None:
    """The program that a response stands for; None if it holds none.

    The first fenced block (closed or not) that defines the entry point, or else the response itself
    if it does: both after the part of the prompt that precedes the function, its imports and helpers.
    Otherwise the prompt, continued up to the end of the function by the response, or else by a block
    that is a function's body. From the first line on that is not Python, everything is left out.
    """
    blocks = [dedent(block) for block in FENCED.findall(text)]
    for candidate in (*blocks, text):
        module = _parse(candidate)
        function = _function(module, entry_point)
        if function and _has_body(function):
            return _preamble(prompt, entry_point) + module.source
    bodies = [indent(block, INDENT) for block in blocks]
    for candidate in (text, *bodies):
        module = _parse(prompt + candidate)
        function = _function(module, entry_point)
        if function and _end(function) > prompt.count("\n"):
            return _first_lines(module.source, _end(function))
    return None


class Module(NamedTuple):
    """Source, and its top-level statements."""

    source: str
    body: list[ast.stmt]


def _parse(source: str) -> Module:
    """The longest run of whole lines, from the first on, that is a module."""
    lines = source.partition("\0")[0].split("\n")
    while lines:
        content = "\n".join(lines)
        try:
            with warnings.catch_warnings(action="ignore"):  # about the program's string escapes
                return Module(content, ast.parse(content).body)
        except SyntaxError as error:  # any more lines than those before it would fail there again
            lines = lines[: min(len(lines), error.lineno or 1) - 1]
        except (ValueError, RecursionError, MemoryError):  # not text, or nested too deeply
            break
    return Module("", [])


def _function(module: Module, name: str) -> ast.FunctionDef | None:
    functions = (node for node in module.body if isinstance(node, ast.FunctionDef))
    return next((function for function in functions if function.name == name), None)


def _has_body(function: ast.FunctionDef) -> bool:
    """Whether there is more than a docstring or an ellipsis."""
    return not all(
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        for node in function.body
    )


def _preamble(prompt: str, entry_point: str) -> str:
    """The part of the prompt before the function."""
    function = _function(_parse(prompt), entry_point)
    if function is None:
        return ""
    start = min([function.lineno, *(decorator.lineno for decorator in function.decorator_list)])
    return _first_lines(prompt, start - 1)


def _end(function: ast.FunctionDef) -> int:
    return function.end_lineno or function.lineno


def _first_lines(source: str, count: int) -> str:
    return "".join(f"{line}\n" for line in source.split("\n")[:count])
