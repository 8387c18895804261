"""Tests of programming problems, as data sets have them: read, and made into what the sandbox runs."""

import ast
import builtins
from collections.abc import Iterator, Sequence

from powerbench.errors import UserError
from powerbench.tasks.column_set import column_of
from powerbench.tasks.reading import Row

BUILTINS = frozenset(dir(builtins))


def script_of(row: Row, names: str | Sequence[str]) -> str:
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


def called_in(row: Row, tests: str, setup: str, solution: str) -> str:
    """The function that a row's tests call. Raises UserError if it cannot be told."""
    name = called(tests, setup, solution)
    if name is None:
        raise UserError(
            f"{row.where}: which function the tests call cannot be told; name it in a column, "
            f"task.entry_point"
        )
    return name


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
