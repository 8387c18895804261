"""The program in a response, found as the official code does (aakaran/reasoning-with-sampling, 720a8e9).

Its rule looks in prompt and response together for a function's body, and HumanEval's stock rule runs
the prompt, continued by that body, with the tests (Chen et al. 2021, arXiv 2107.03374). The prompt's own
signature is there to be found, so what is taken is as a rule all that follows it, up to the margin.
"""

from textwrap import indent

FENCE = "```"


def extract_official(prompt: str, entry_point: str, text: str) -> str:
    """The program: there is one for every response. The time is linear in the lengths."""
    return prompt + _body(prompt + text, entry_point)


def _body(text: str, entry_point: str) -> str:
    """The first of these that there is.

    What follows the first signature of the entry point behind the first fence, up to the next line that
    begins with a fence; what follows its first signature anywhere, up to the next line that is not
    indented; what follows any function's first signature, likewise; all of the text, indented.
    """
    opened = text.find(FENCE)
    if opened >= 0:
        start = _after_signature(text, _definition(text, entry_point, opened))
        end = text.find(f"\n{FENCE}", start) if start >= 0 else -1
        if end >= 0:
            return text[start:end]
    for definition in (_definition(text, entry_point), text.find("def")):
        start = _after_signature(text, definition)
        if start >= 0:
            return text[start : _margin(text, start)]
    return indent(text, 4 * " ")


def _definition(text: str, name: str, start: int = 0) -> int:
    """Where `def <name>` is, though the name may go on and the line begin otherwise; -1 without one."""
    at = text.find("def", start)
    while at >= 0:
        after = at + len("def")
        while text[after : after + 1].isspace():
            after += 1
        if after > at + len("def") and text.startswith(name, after):
            return at
        at = text.find("def", after)
    return -1


def _after_signature(text: str, definition: int) -> int:
    """Behind the next colon that ends a line; -1 without one."""
    colon = text.find(":\n", definition) if definition >= 0 else -1
    return colon + len(":\n") if colon >= 0 else -1


def _margin(text: str, start: int) -> int:
    """The end of the last line before one that begins with neither two blanks nor a tab, blank lines aside."""
    end = text.find("\n", start)
    while end >= 0:
        after = end + 1
        while text.startswith("\n", after):
            after += 1
        if not text.startswith(("  ", "\t"), after):
            return end
        end = text.find("\n", after)
    return len(text)
