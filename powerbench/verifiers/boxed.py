r"""The answer that a response puts in a box: \boxed{...} or \fbox{...}."""

import re

BRACES = re.compile(r"\\(?P<box>boxed|fbox)\s*\{|\\.|\{|\}", re.DOTALL)


def last_boxed(text: str) -> str | None:
    r"""The content of the last \boxed{...} or \fbox{...} whose braces balance; None without one.

    Of nested boxes it is the inner one.
    """
    found: tuple[int, str | None] = (-1, None)
    open_braces: list[tuple[int, bool]] = []
    for brace in BRACES.finditer(text):
        if brace["box"] or brace[0] == "{":
            open_braces.append((brace.end(), brace["box"] is not None))
        elif brace[0] == "}" and open_braces:
            start, is_box = open_braces.pop()
            if is_box and start > found[0]:
                found = start, text[start : brace.start()]
    return found[1]
