"""Python among other text: the statements in a response, those inside its fences and those outside."""

import ast
import re
import symtable
import threading
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence, Set
from keyword import iskeyword
from typing import NamedTuple

USES = {"print", "input", "__name__"}
"""Names that mark a statement outside of functions as a use of the program, not a part of it."""
DEFINITIONS = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Import | ast.ImportFrom
MARK = re.compile(
    r"""</ | <! | <[|\uff5c] | <\w[\w.:\u2581-]*\s*/?> | &lt;[/|]  # tags: </s>, <|im_end
    | \[/ | `+ | ~~~ | \"\"\" | \'\'\' | \\(?=\S)  # [/PYTHON], fences, \end{code}
    | [\u2028\u2029\x85]  # ends of lines elsewhere
    """,
    re.VERBOSE,
)
LAST_MARK = re.compile(r"[^\x00-\x7f\w]|[\x00-\x08\x0e-\x1f\x7f$?!]|\|>|-->")
"""What is written behind code to end it, and cannot go on with it; it may be cut off itself. LAST_MARK:
what is such a mark where no letter or digit follows."""
BRACKETED = re.compile(
    r"\[(CODE|DONE|END|EO[A-Z]|INST|PAD|PYTHON|SEP|STOP)\](?=[ \t]*(?:$|<|\[))", re.MULTILINE
)
"""Such marks as Python reads for a subscript."""
BRANCH = re.compile(r"(try|else|except\b.*|if\b.*|elif\b.*):\s*(#.*)?$")
_silence = threading.Lock()  # catch_warnings is not safe for threads


def plain(text: str) -> str:
    """The text with Python's line ends, and without the characters that it takes nowhere."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    return lines.replace("\0", "\ufffd").replace("\ufeff", "").encode(errors="replace").decode()


def without_bracketed(text: str) -> str:
    """Without marks such as [DONE] at the end of a line, where nothing else in the text has that name."""
    names = Counter(re.findall(r"\w+", text))
    return BRACKETED.sub(lambda mark: "" if names[mark[1]] == 1 else mark[0], text)


class Module(NamedTuple):
    """Source, and its statements."""

    lines: Sequence[str]
    body: Sequence[ast.stmt]


class Parser:
    """Finds modules until it has read `characters` in all; from then on it finds none.

    Without that limit, a text with an error in each line would take time quadratic in its length.
    """

    def __init__(self, characters: int) -> None:
        self._left = characters

    def parse(self, lines: Sequence[str], start: int = 0) -> Module:
        """The longest run of lines, from line `start` on, that is a module.

        They are whole, but for the last: a mark that is no Python may follow its last statement.
        """
        tried = lines[start:]
        while tried and self._left > 0:
            source = "\n".join(tried)
            self._left -= len(source)
            try:
                with _silence, warnings.catch_warnings(action="ignore"):
                    return Module(tried, ast.parse(source).body)
            except SyntaxError as error:
                at = min(len(tried), error.lineno or 1) - 1
                tried = [*tried[:at], *_before_mark(tried[at], error.offset or 0)]
            except (RecursionError, MemoryError):  # too deep, most likely on the longest line
                tried = tried[: max(range(len(tried)), key=lambda i: len(tried[i]))]
        return Module((), ())


def _before_mark(line: str, error: int) -> list[str]:
    """The line up to the last mark that begins before column `error` (from 1 on); none without a mark."""
    tail = next((i for i in range(len(line), 0, -1) if line[i - 1].isalnum()), 0)
    for marks in (MARK.finditer(line), LAST_MARK.finditer(line, tail)):
        begins = [mark.start() for mark in marks if mark.start() < error]
        if begins and (code := line[: begins[-1]].rstrip()):
            return [code]
    return []


# -- Markdown -------------------------------------------------------------------------------------


class Region(NamedTuple):
    """Lines that stand together: the content of a fence, or what is between two of them."""

    lines: Sequence[str]
    fenced: bool = False
    closed: bool = True


def regions(lines: Iterable[str]) -> Iterator[Region]:
    """In order. Fences are CommonMark's, in list items too; one may also close behind code, on its line."""
    region: list[str] = []
    fence = ""
    for line in lines:
        code = line.rstrip().rstrip(fence[:1] or None)
        if not fence and (fence := opening(line)):
            yield Region(region)
            region = []
        elif fence and len(line.rstrip()) - len(code) >= len(fence):
            yield Region([*region, code], fenced=True)
            region, fence = [], ""
        else:
            region.append(line)
    yield Region(region, fenced=bool(fence), closed=not fence)


def opening(line: str) -> str:
    """The backticks or tildes with which the line opens a fence; "" if it opens none."""
    head = line.lstrip(" \t-*+.)0123456789")
    info = head.lstrip(head[0]) if head[:1] in ("`", "~") else head
    fence = head[: len(head) - len(info)]
    return fence if len(fence) >= 3 and "`" not in info else ""


# -- statements -----------------------------------------------------------------------------------


class Statement(NamedTuple):
    """A statement outside of functions."""

    node: ast.stmt
    source: str
    """Its own characters, decorators included."""
    position: int
    """Among the statements of the response."""
    region: int
    fenced: bool
    whole: bool
    """Whether neither a syntax error nor the end of the response can have cut it short."""


def statements(parser: Parser, parts: Sequence[Region], function: str) -> list[Statement]:
    """All that can be parsed; a statement is taken up to a syntax error in it.

    The outermost definition of `function` in a region, or assignment to it beside one, is taken for its
    left margin; without one, a fence's is that of its first line.
    """
    found: list[Statement] = []
    for number, (raw, fenced, closed) in enumerate(parts):
        lines = _dedented(raw, function, fenced)
        start = 0
        while start < len(lines):
            module = parser.parse(lines, start) if _may_begin(lines[start]) else Module((), ())
            start += len(module.lines) or 1
            cut = lines[start][:1].isspace() if start < len(lines) else not closed
            for node in module.body:
                whole = not cut or node is not module.body[-1]
                source = source_of(node, module.lines)
                found.append(Statement(node, source, len(found), number, fenced, whole))
    return found


def _dedented(lines: Sequence[str], function: str, fenced: bool) -> list[str]:
    words = [line.lstrip() for line in lines]
    margins = [len(line) - len(word) for line, word in zip(lines, words, strict=True)]
    heads = [i for i, word in enumerate(words) if word.startswith(f"def {function}")]
    if heads:
        assigned = re.compile(rf"{re.escape(function)}\s*(?:[:,].*)?=(?!=)")
        heads = [_branching(words, margins, min(heads, key=margins.__getitem__)), *heads]
        heads += [i for i, word in enumerate(words) if assigned.match(word)]
    first = [i for i, word in enumerate(words) if word][:1] if fenced else []
    margin = min([margins[i] for i in heads or first], default=0)
    return [line[min(margin, own) :] for line, own in zip(lines, margins, strict=True)]


def _branching(words: Sequence[str], margins: Sequence[int], line: int) -> int:
    """The line at which the outermost `try` or `if` begins that a line stands in; else the line itself."""
    for i in range(line - 1, -1, -1):
        if words[i] and margins[i] < margins[line]:
            if not BRANCH.match(words[i]):
                break
            line = i
    return line


def _may_begin(line: str) -> bool:
    """Whether a statement may begin here. It spares the parser nearly all prose."""
    word = line.partition(" ")[0].rstrip(":")
    return not line[:1].isspace() and (iskeyword(word) or any(mark in line for mark in "=(@"))


def first_line(node: ast.stmt) -> int:
    """From 1 on, with the decorators."""
    return min([node.lineno, *(each.lineno for each in getattr(node, "decorator_list", ()))])


def source_of(node: ast.stmt, lines: Sequence[str]) -> str:
    """Its part of the module's lines, which `;` may share out between statements."""
    kept = [line.encode() for line in lines[first_line(node) - 1 : node.end_lineno]]
    kept[-1] = kept[-1][: node.end_col_offset]
    kept[0] = kept[0][node.col_offset :]
    return b"\n".join(kept).decode()


# -- names ----------------------------------------------------------------------------------------


def binds(node: ast.stmt) -> set[str]:
    """The module's names that a statement may bind; "*" if it imports all there are."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {node.name}
    names: set[str] = set()
    for each in ast.walk(node):
        match each:
            case ast.alias():
                names.add(each.asname or each.name.partition(".")[0])
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                names.add(each.name)
            case ast.Name(ctx=ast.Store()):
                names.add(each.id)
    return names


def uses(source: str) -> set[str] | None:
    """The module's names, and the built-in ones, that a statement uses; None if it does not compile."""
    try:
        with _silence, warnings.catch_warnings(action="ignore"):
            compile(source, "<response>", "exec", dont_inherit=True)
            tables = [symtable.symtable(source, "<response>", "exec")]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    names: set[str] = set()
    while tables:
        table = tables.pop()
        tables += table.get_children()
        symbols = table.get_symbols()
        names |= {s.get_name() for s in symbols if s.is_referenced() and s.is_global()}
    return names


def with_needed(
    chosen: Sequence[Statement],
    pool: Iterable[Statement],
    function: str,
    bound: Set[str] = frozenset(),
) -> list[Statement]:
    """The chosen statements, and those of the pool that bind a name these use, directly or not; in order.

    Left out is what binds `function`, or a name already `bound`, or is no part of the program.
    """
    binding: defaultdict[str, list[Statement]] = defaultdict(list)
    for each in pool:
        for name in binds(each.node) - {function} - bound:
            binding[name].append(each)
    kept = {each.position: each for each in chosen}
    todo = list(chosen)
    while todo:
        for name in (uses(todo.pop().source) or set()) | {"*"}:
            for each in binding.pop(name, ()):
                if each.position not in kept and is_part(each, function):
                    kept[each.position] = each
                    todo.append(each)
    return [kept[position] for position in sorted(kept)]


def is_part(statement: Statement, function: str) -> bool:
    """Whether it compiles, and is no use of the program: of the function, its input or its output."""
    used = uses(statement.source)
    if used is None or isinstance(statement.node, DEFINITIONS):
        return used is not None
    return used.isdisjoint(USES | {function})
