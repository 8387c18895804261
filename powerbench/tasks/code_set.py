"""Any set of programming problems with tests."""

import ast
import builtins
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from powerbench.errors import UserError, require
from powerbench.tasks.column_set import FEW_SHOT, QUESTION, ColumnSet, column_of
from powerbench.tasks.reading import Row
from powerbench.types import Problem

TESTS = "{tests}"
BUILTINS = frozenset(dir(builtins))


@dataclass(frozen=True, kw_only=True)
class CodeSet(ColumnSet):
    """Functions to write or complete, run in the sandbox against their tests by verifier=code.

    question: what is to be written, in words, or the beginning of the function, to be completed.
    tests: the column of the tests: a list of asserts, statements in one text, or a `check(candidate)`.
    entry_point: the column of the function's name; None: the function that the tests call.
    setup: a column of statements that run before the tests, such as imports, or a list of them.
    solution: the column of a reference solution.
    prompt_style: `plain`, which shows the tests and asks for a fenced block; `raw`, the question as it is;
        `few_shot`, for which an example has the field `tests` too. A template of your own may hold {tests}.
    """

    STYLES: ClassVar[Mapping[str, str]] = {
        "plain": (
            f"{QUESTION}\n\nYour code should pass these tests:\n\n{TESTS}\n\n"
            "Answer with the whole function, imports included, in one fenced code block."
        ),
        "raw": QUESTION,
    }
    RAW: ClassVar[tuple[str, ...]] = (FEW_SHOT, "raw")

    tests: str | Sequence[str] = "tests"
    entry_point: str | None = None
    setup: str | Sequence[str] | None = None
    solution: str | None = None
    examples: str | None = "bundled:examples/code.jsonl"

    def columns(self) -> Mapping[str, str | Sequence[str] | None]:
        return {
            "tests": self.tests,
            "entry_point": self.entry_point,
            "setup": self.setup,
            "solution": self.solution,
        }

    def problem(self, row: Row, id: str, kind: str) -> Problem:
        question, tests = self.text_of(row, self.question), self._script(row, self.tests)
        require(bool(tests.strip()), f"{row.where}: {self.tests!r} is blank; see task.tests")
        setup = "" if self.setup is None else self._script(row, self.setup)
        solution = "" if self.solution is None else row.cell(self.solution)
        name = self._name(row, tests, setup, solution)
        stub = re.search(rf"^\s*(?:async\s+)?def\s+{name}\b", question, re.MULTILINE) is not None
        meta: dict[str, Any] = {
            "prompt": question if stub else "",
            "entry_point": name,
            "test": check_of(tests, name, setup, solution),
            "problem": question,
        }
        shown = self._shown(question, tests) if self.few_shot else question
        return Problem(id=id, prompt=self.asked(shown, kind, tests=tests), gold=solution, meta=meta)

    def example(self, shown: str, solution: str | None) -> str:
        return f"{shown}\n[BEGIN]\n" + ("" if solution is None else f"{solution}\n[DONE]")

    def example_question(self, row: Row) -> str:
        return self._shown(row.filled("question"), self._script(row, "tests"))

    def _shown(self, question: str, tests: str) -> str:
        """What `few_shot` shows of a problem."""
        return f"Task: {question}\nYour code should pass these tests:\n\n{tests}"

    def _script(self, row: Row, names: str | Sequence[str]) -> str:
        """Statements in one text, or a list of them; "" if there are none."""
        column = column_of(names, row.record)
        value = row[column]
        if isinstance(value, Sequence) and not isinstance(value, str):
            lines = Row({f"{column}[{i}]": x for i, x in enumerate(value)}, row.where)
            script = "\n".join(lines.text(name) for name in lines.record)
        else:
            script = "" if value is None else row.text(column)
        script = script.replace("\r\n", "\n").strip()
        try:
            ast.parse(script)
        except (SyntaxError, ValueError) as error:
            raise UserError(
                f"{row.where}: {column!r} is not Python ({error}); see task.tests"
            ) from error
        return script

    def _name(self, row: Row, tests: str, setup: str, solution: str) -> str:
        name = (
            called(tests, setup, solution)
            if self.entry_point is None
            else row.cell(self.entry_point).strip()
        )
        require(
            name is not None and name.isidentifier(),
            f"{row.where}: which function the tests call cannot be told, got {name!r}; name it in a column: "
            f"task.entry_point",
        )
        return str(name)


def called(tests: str, setup: str, solution: str) -> str | None:
    """The program's function that the tests call: the first that the solution, or else nothing, defines."""
    bound = BUILTINS | _bound(f"{setup}\n{tests}")
    calls = [
        node.func
        for node in ast.walk(ast.parse(tests))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    ]
    in_order = sorted(calls, key=lambda name: (name.lineno, name.col_offset))
    free = [name.id for name in in_order if name.id not in bound]
    defined = _bound(solution)
    return next((name for name in free if name in defined), next(iter(free), None))


def check_of(tests: str, entry_point: str, setup: str, solution: str) -> str:
    """The tests as a `check(candidate)`, which a verifier of programs asks for; one that is there stays.

    They are run as they are, after the setup, with the candidate under the function's name. A setup that uses
    what the reference solution defines, such as the class of an argument, runs after that.
    """
    if any(
        isinstance(node, ast.FunctionDef) and node.name == "check" for node in ast.parse(tests).body
    ):
        return f"{setup}\n\n{tests}" if setup else tests
    used = {node.id for node in ast.walk(ast.parse(setup)) if isinstance(node, ast.Name)}
    needed = (used - _bound(setup) - BUILTINS) & _bound(solution)
    before = f"{solution}\n\n{setup}" if needed else setup
    return (
        "def check(candidate):\n"
        "    scope = dict(globals())\n"
        f"    exec({before!r}, scope)\n"
        f"    scope[{entry_point!r}] = candidate\n"
        f"    exec({tests!r}, scope)\n"
    )


def _bound(source: str) -> set[str]:
    """The names that a text of Python binds anywhere; none if it is for another version of Python."""
    try:
        nodes = list(ast.walk(ast.parse(source)))
    except (SyntaxError, ValueError):
        return set()
    return {name for node in nodes for name in _binds(node)}


def _binds(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            yield node.name
        case ast.Name(ctx=ast.Store()):
            yield node.id
        case ast.arg():
            yield node.arg
        case ast.Import() | ast.ImportFrom():
            yield from ((alias.asname or alias.name).partition(".")[0] for alias in node.names)
