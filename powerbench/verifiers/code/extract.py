"""The program in a response, found by Python's syntax tree.

Three places are looked at in turn, and the first that holds the function gives it:

1. The response continues the prompt: it begins with the function's body, whatever comes after.
2. It defines the function, by `def`, an import or an assignment (`bindings`). Of several definitions
   the last counts, as it would if they were run one after the other: a correction follows the draft. But
   one in a fence goes before one outside, and before both goes one that neither a syntax error nor the
   end of the response cuts short.
3. A fence, the last that can be it, is the function's body.

With the function go the statements that it needs, by the names it uses, from anywhere in the response,
and those before it that set something up, such as `sys.setrecursionlimit(9999)`. What only uses it is
left out: calls, checks, printing, a `__main__` block. The prompt's imports and helpers are always kept.
"""

import ast
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from powerbench.verifiers.code.bindings import (
    IMPORTS,
    SCOPES,
    acts,
    defines,
    may_define,
    wraps,
)
from powerbench.verifiers.code.fragments import (
    Parser,
    Region,
    Statement,
    binds,
    first_line,
    is_part,
    plain,
    regions,
    source_of,
    statements,
    with_needed,
    without_bracketed,
)

INDENT = 4 * " "
MIN_PARSED, PARSED_PER_CHARACTER = 10**6, 10
"""Limit of the characters parsed for one response: a constant, and this number for each of its own."""


def extract(prompt: str, entry_point: str, text: str) -> str | None:
    """The program that a response stands for, by the rules above; None if it holds none.

    The prompt ends inside the function `entry_point`. What is not Python is skipped, and a function
    is taken up to its first syntax error. Never raises. The time is linear in the lengths, since the
    number of characters parsed is limited.
    """
    prompt, text = plain(prompt), without_bracketed(plain(text))
    parser = Parser(MIN_PARSED + PARSED_PER_CHARACTER * (len(prompt) + len(text)))
    given = _given(parser, prompt, entry_point)
    parts = list(regions(text.split("\n")))
    return (
        _continuation(parser, given, text)
        or _definition(parser, given, parts)
        or _definition(parser, given, [Region(text.split("\n"))])  # a fence in a docstring is none
        or _body(parser, given, parts)
    )


def preamble(prompt: str, entry_point: str) -> str:
    """The prompt's imports and helpers: what stands before the function `entry_point`, "" if nothing."""
    prompt = plain(prompt)
    return _given(
        Parser(MIN_PARSED + PARSED_PER_CHARACTER * len(prompt)), prompt, entry_point
    ).before


class Given(NamedTuple):
    """What the prompt gives."""

    prompt: str
    entry_point: str
    before: str
    """What stands before the function."""
    names: frozenset[str]
    """Bound there."""
    imports: Sequence[str]
    """Inside the function, as in HumanEval/115."""
    margin: str
    """The indentation of the function's body."""


def _given(parser: Parser, prompt: str, entry_point: str) -> Given:
    prompt += "" if prompt.endswith("\n") else "\n"
    module = parser.parse(f"{prompt}{INDENT}pass".split("\n"))  # a body, where there is none yet
    function = _function(reversed(module.body), entry_point)
    if function is None:
        return Given(prompt, entry_point, "", frozenset(), (), INDENT)
    first = module.lines[function.body[0].lineno - 1]
    return Given(
        prompt=prompt,
        entry_point=entry_point,
        before=_joined(module.lines[: first_line(function) - 1]),
        names=frozenset(name for node in module.body for name in binds(node)),
        imports=[ast.unparse(node) for node in function.body if isinstance(node, IMPORTS)],
        margin=first[: len(first) - len(first.lstrip())] or INDENT,
    )


def _function(body: Iterable[ast.stmt], name: str) -> ast.FunctionDef | None:
    functions = (node for node in body if isinstance(node, ast.FunctionDef))
    return next((function for function in functions if function.name == name), None)


def _joined(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


# -- a body for the prompt's function -------------------------------------------------------------


class Continued(NamedTuple):
    """The prompt up to the end of its function, and what comes after."""

    program: str
    function: Statement
    after: Sequence[str]


def _continued(
    parser: Parser, given: Given, body: str, fits: Callable[[ast.stmt], bool]
) -> Continued | None:
    """The prompt continued by a body; None if no statement of the body fits, or it defines the function."""
    lines = (given.prompt + body).split("\n")
    module = parser.parse(lines)
    start = given.prompt.count("\n")
    function = _function((n for n in module.body if n.lineno <= start < _end(n)), given.entry_point)
    new = [each for each in function.body if _end(each) > start] if function else []
    if function is None or _function(new, given.entry_point) or not any(map(fits, new)):
        return None
    statement = Statement(function, source_of(function, module.lines), -1, -1, False, True)
    return Continued(_joined(module.lines[: _end(function)]), statement, lines[_end(function) :])


def _end(node: ast.stmt) -> int:
    return node.end_lineno or node.lineno


def _continuation(parser: Parser, given: Given, text: str) -> str | None:
    """The response as a body; with its first line, or all of it, indented anew where that takes more in."""
    reindented = given.margin + text.lstrip(), _indented(text.split("\n"), given.margin)
    found = [
        _continued(parser, given, text, acts),
        *(_continued(parser, given, body, _returns) for body in reindented),
    ]
    best = min(filter(None, found), key=lambda each: len(each.after), default=None)
    return best and _completed(parser, given, best, list(regions(best.after)))


def _body(parser: Parser, given: Given, parts: Sequence[Region]) -> str | None:
    for part in reversed([part for part in parts if part.fenced]):
        body = _indented(part.lines, given.margin)
        if found := _continued(parser, given, body, _returns):
            return _completed(parser, given, found, parts)
    return None


def _completed(parser: Parser, given: Given, found: Continued, parts: Sequence[Region]) -> str:
    """With the helpers among the other parts of the response; the prompt's own are not replaced."""
    pool = statements(parser, parts, given.entry_point)
    _, *helpers = with_needed([found.function], pool, given.entry_point, given.names)
    return found.program + "".join(f"\n\n{each.source}\n" for each in helpers)


def _indented(lines: Sequence[str], margin: str) -> str:
    """Moved so that the first line that is not blank stands at the margin."""
    first = next((line for line in lines if line.strip()), "")
    old = first[: len(first) - len(first.lstrip())]
    moved = (
        margin + line[len(old) :] if line[: len(old)].isspace() or not old else line
        for line in lines
    )
    return "\n".join(moved)


def _returns(node: ast.stmt) -> bool:
    """Whether its function can return or yield a value by it."""
    todo: list[ast.AST] = [node]
    while todo:
        each = todo.pop()
        if isinstance(each, ast.Return | ast.Yield | ast.YieldFrom):
            return True
        if not isinstance(each, SCOPES):
            todo += ast.iter_child_nodes(each)
    return False


# -- a definition in the response -----------------------------------------------------------------


def _definition(parser: Parser, given: Given, parts: Sequence[Region]) -> str | None:
    name = given.entry_point
    pool = statements(parser, parts, name)
    wrapping: list[Statement] = []
    bare: list[Statement] = []
    for each in pool:
        (wrapping if wraps(each.node, name) else bare).append(each)
    defining = [each for each in bare if defines(each.node, name)] or [
        each for each in bare if may_define(each.node, name) and is_part(each, name)
    ]
    if not defining:
        return None
    function = max(defining, key=lambda each: (each.whole, each.fenced, each.position))
    before = [each for each in pool[: function.position] if each.region == function.region]
    setup = [each for each in before if _sets_up(each.node) and is_part(each, name)]
    wrapped = [each for each in wrapping if each.position > function.position]
    kept = with_needed([*setup, function, *wrapped], pool, name)
    future = [each for each in kept if _is_future(each.node)]
    sources = [each.source for each in kept if not _is_future(each.node)]
    return (
        _joined(each.source for each in future)
        + given.before
        + "\n\n".join([*given.imports, *sources])
        + "\n"
    )


def _sets_up(node: ast.stmt) -> bool:
    """Whether it may have an effect that no name shows."""
    match node:
        case ast.Expr():
            return isinstance(node.value, ast.Call)
        case ast.Assign():
            return not all(isinstance(target, ast.Name | ast.Tuple) for target in node.targets)
        case ast.ImportFrom():
            return _is_future(node)
    return isinstance(node, ast.AugAssign | ast.If | ast.For | ast.While | ast.Try | ast.With)


def _is_future(node: ast.stmt) -> bool:
    return isinstance(node, ast.ImportFrom) and node.module == "__future__"
