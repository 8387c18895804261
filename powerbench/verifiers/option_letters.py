"""Which option of a multiple-choice question a text names."""

import re
from collections.abc import Sequence
from string import ascii_uppercase

from powerbench.verifiers.typesetting import typeset

FONT = r"(?:text|math)(?:rm|bf|it|sf|sc|sl|tt|up|md|normal)?|operatorname|mbox|rm|bf|it|bm|boldsymbol|q?quad"
MARKUP = re.compile(rf"\\(?:{FONT})\b|\\[^a-zA-Z]|\*\*|[${{}}`\"~]")
LETTER = re.compile(
    r"(?i:(?:the )?(?:correct |final )?(?:option|choice|answer)(?: is)?:? ?)?"
    r"[(\[]?(?P<letter>[A-Za-z])(?:(?:[)\].:,]+| -+(?= )) ?(?P<text>.*)| (?P<own>.+))?"
)
FREE = re.compile(r"\b[ABCD]\b")
SKIPPED = "\u043a\u0438"
"""Two Cyrillic letters, which the official code takes out before it looks."""


def named(content: str, options: Sequence[str]) -> str | None:
    r"""The option (A, B, ...) that a box's content names; None if it names none, or more than one.

    A letter of either case, in any markup and parentheses: `B`, `b`, `(B).`, `\text{B}`, `$B`, `Ｂ`,
    `Option B`; or a letter, a mark of punctuation or a dash, and a text, as in `B) 5 eV`. That text is
    the named option's own, or at least holds no other option's letter, as `A) or B)` does; without such a mark
    it is the option's own. What is an option's text as a whole names no letter, as `C. elegans` may or `c`, a
    speed: only a capital without a text always does.
    """
    answer = plain(content)
    letters = ascii_uppercase[: len(options)]
    match = LETTER.fullmatch(answer)
    if match is None or match["letter"].upper() not in letters:
        return None
    letter, text = match["letter"].upper(), match["text"] or match["own"] or ""
    texts = [plain(option).lower() for option in options]
    if text.lower() == texts[letters.index(letter)] or (not text and match["letter"] == letter):
        return letter
    if match["own"]:
        return None
    others = set(re.findall(rf"\b[{letters}]\b", text)) - {letter}
    return None if others or answer.lower() in texts else letter


def last_free(text: str) -> str | None:
    """The official code's rule (commit 720a8e9): the last A, B, C or D between word boundaries, in any case.

    The article "a" is one, and so is the B of `vitamin B`. None without one.
    """
    letters = FREE.findall(text.replace(SKIPPED, "").upper())
    return letters[-1] if letters else None


def option_letter(content: str) -> str | None:
    """The letter from A to E, with a text behind it or without, where the options are not known."""
    match = LETTER.fullmatch(plain(content))
    if match is None or match["own"] or re.search(r"\b[A-E]\b", match["text"] or ""):
        return None
    return match["letter"].upper()


def plain(text: str) -> str:
    """The text without LaTeX's and Markdown's markup, one final period, and more than single spaces."""
    return " ".join(MARKUP.sub("", typeset(text)).split()).removesuffix(".").rstrip()
