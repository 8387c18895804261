r"""The answer that a response puts in a box: \boxed{...} or \fbox{...}."""

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

BRACES = re.compile(r"\\(?P<box>boxed|fbox)\s*\{|\\.|\{|\}", re.DOTALL)
DOUBLED = re.compile(r"(?<!\\)\\\\(?=(?:boxed|fbox)\s*\{)")
"""Before a box in a text that was escaped once too often."""
PLACEHOLDER = re.compile(
    r"(?:[\s.?_$*~…-]|\\[_ ,;]|\\phantom\{[^{}]*\}|\\(?:[lc]?dots|square|Box)(?![a-zA-Z]))*"
    r"|(?i:(?:\\(?:text|math|mbox)[a-z]*|[\s{$<\[(])*(?:(?:the|your|my)\s+)?(?:(?:final|correct)\s+)?"
    r"(?:answer|result|solution|letter)(?:\s+here)?[\s}$>\]).]*)"
)
"""Content that stands for an answer, as instructions have it."""
SPACE = r"(?:\\?\$|\\[()\[\]]|\s|\\[,;:! ]|\\q?quad\b|\*\*)*"
LINK = re.compile(
    rf"{SPACE}(?P<word>[,;]|(?:[,;]\s*)?(?:\\text\s*\{{\s*)?and\b|(?:\\text\s*\{{\s*)?or\b)(?:\s*\}})?"
    rf"{SPACE}(?:[a-zA-Z](?:_\{{?\w\}}?)?\s*=)?{SPACE}"
)
"""What stands between boxes that are one answer, as `and $x=`."""
LONGEST_LINK = 60
"""Characters."""


class Box(NamedTuple):
    content: str
    start: int
    end: int


def last_boxed(text: str) -> str | None:
    r"""The content of the last \boxed{...} or \fbox{...} whose braces balance; None without one.

    Of nested boxes it is the inner one.
    """
    last = max(_boxes(text), key=lambda box: box.start, default=None)
    return None if last is None else last.content


def answer_box(text: str) -> str | None:
    r"""The content of the last box that holds an answer; None without any box.

    Empty boxes and placeholders (`\boxed{}`, `\boxed{answer}`) hold none, unless there is no other box. A box
    whose backslash is doubled is one too; in its content every backslash is.
    """
    found = _answers(text)
    return found[-1].content if found else None


def answer_boxes(text: str) -> str | None:
    r"""As `answer_box`, but boxes that nothing separates but a comma, `and` or `or` are one answer together.

    A name before the second box is overlooked: `$x=\boxed{1}$ and $x=\boxed{2}$` is `1, 2`. A comma with `or`
    does not join: `\boxed{1}, or \boxed{2}` corrects itself.
    """
    found = _answers(text)
    if not found:
        return None
    content, start = found[-1].content, found[-1].start
    for box in reversed(found[:-1]):
        between = text[box.end : start]
        link = LINK.fullmatch(between) if len(between) <= LONGEST_LINK else None
        if link is None:
            break
        if box.content != content:
            content = f"{box.content}{' or ' if 'or' in link['word'] else ', '}{content}"
        start = box.start
    return content


def _answers(text: str) -> list[Box]:
    """The boxes that hold an answer, by their place; the last box if none does."""
    boxes = sorted(_boxes(DOUBLED.sub(r" \\", text)), key=lambda box: box.start)
    inner = [a for a, b in pairwise(boxes) if b.start > a.end] + boxes[-1:]
    filled = [box for box in inner if not PLACEHOLDER.fullmatch(box.content)]
    return [_unescaped(box, text) for box in filled or inner[-1:]]


def _unescaped(box: Box, text: str) -> Box:
    doubled = DOUBLED.match(text, max(0, box.start - 1))
    return box._replace(content=box.content.replace("\\\\", "\\")) if doubled else box


def _boxes(text: str) -> Iterator[Box]:
    """All boxes whose braces balance, in the order in which they close."""
    open_braces: list[tuple[int, int, bool]] = []
    for brace in BRACES.finditer(text):
        if brace["box"] or brace[0] == "{":
            open_braces.append((brace.start(), brace.end(), brace["box"] is not None))
        elif brace[0] == "}" and open_braces:
            start, inside, is_box = open_braces.pop()
            if is_box:
                yield Box(text[inside : brace.start()], start, brace.end())
