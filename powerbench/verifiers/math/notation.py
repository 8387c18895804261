r"""Answers as LaTeX text: what a careful reader overlooks is dropped, and the parts that count are told apart.

Every function only rewrites or splits text; what the parts mean is for the graders.
"""

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple


class Rules:
    """Substitutions of regular expressions, made one after the other."""

    def __init__(self, *rules: tuple[str, str | Callable[[re.Match[str]], str]]) -> None:
        self._rules = [(re.compile(pattern), replacement) for pattern, replacement in rules]

    def applied(self, text: str) -> str:
        for pattern, replacement in self._rules:
            text = pattern.sub(replacement, text)
        return text


# -- decoration -----------------------------------------------------------------------------------

CHARACTERS = str.maketrans(
    {"−": "-", "–": "-", "²": "^2", "³": "^3", "°": r"^\circ ", "\N{NO-BREAK SPACE}": " "}
    | {"½": r"\frac{1}{2}", "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}", "√": r"\sqrt ", "π": r"\pi "}
    | {"×": r"\times ", "·": r"\cdot ", "÷": r"\div ", "±": r"\pm ", "≤": r"\le ", "≥": r"\ge "}
    | {"∞": r"\infty ", "∪": r"\cup ", "∈": r"\in ", "θ": r"\theta "}
)
SPACE = r"\\[,;: ]|\\(?:q?quad|thinspace|enspace)\b|\\(?:[hv]space|phantom)\s*\{[^{}]*\}|~"
GROUP = r"(?:\s*(?:\\[,;: ]|~|\{,\}(?:\\!)?|,?\s*\\!)\s*\d{3}|\s\d{3})"
PREAMBLE = r"\\approx|\\text\s*\{[^{}]*\b(?i:answer|is|about|approximately)[ :.]*\}(?!\s*=)"
DECORATION = Rules(
    # markup
    (r"\s+", " "),
    (r"(?<!\\)\$|^\s*\\[(\[]|(?<!\\)\\[)\]]\s*$", ""),
    (r"\\\\\s*\[[^\]]*\]", r"\\\\"),
    (rf"(?<![\d.])\d{{1,3}}{GROUP}+(?!\d)", lambda number: re.sub(r"\D", "", number[0])),
    (r"(?<=\d)\{,\}(?=\d)", "."),
    (r"\{:\}", ":"),
    (r"\\!|\\limits\b|\\(?:display|text|script)style\b|\\(?:text)?color\s*\{[^{}]*\}", ""),
    (rf"(?<!\\)(?:{SPACE})", " "),
    (r"\\(?:left|right|[bB]igg?[lrm]?)(?![a-zA-Z])\.?", ""),
    (r"\\[dtc]frac(?![a-zA-Z])", r"\\frac"),
    (r"\\math(?:rm|bf|it|sf)\s*\{\s*([a-zA-Z])\s*\}", r"\1"),
    (r"\\(?:math(?:rm|sf)|text(?:bf|it|rm|sf|tt|up|normal)|[mh]box|emph)\s*(?=\{)", r"\\text"),
    (r"\\(?:mathbf|mathit|boldsymbol|bold|bm|bf|rm|it|underline)(?![a-zA-Z])\s*", ""),
    # words
    (r"\\text\s*\{\s*([-+]?[\d.,/]+)\s*\}", r"\1"),
    (r"\\text\s*\{\s*(-?\d[\d.,]*)\s+([a-zA-Z][^{}]*)\}", r"\1\\text{\2}"),
    (r"\\(?:approx|simeq|sim)(?![a-zA-Z])", r"\\approx "),
    (rf"^\s*(?:{PREAMBLE})", ""),
    (r"\\text\s*\{\s*[(,]?\s*(?i:since|because|as)\b.*$", ""),
    (r"\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![a-zA-Z]))|\\degree(?![a-zA-Z])", r"\\text{degrees}"),
    (r"(\\text\{degrees\})\s*(?:[CF]|\\text\s*\{\s*[CF]\s*\})(?![a-zA-Z])", r"\1"),
    (r"\\?%", r"\\text{percent}"),
    # spellings
    (r"\^\{(\w)\}(?!\w)", r"^\1"),
    (r"(?<![\\a-zA-Z])pi(?![a-zA-Z])", r"\\pi "),
    (r"\\varnothing(?![a-zA-Z])|\\\{\s*\\\}", r"\\emptyset "),
    (r"(?<=[)\]])\s*U\s*(?=[(\[])", r"\\cup "),
    (r"\s+", " "),
)
THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?!\d|,\d)")


def clean(answer: str) -> str:
    r"""The answer without what a careful reader overlooks.

    Gone are math delimiters, spacing, sizes, fonts and colours, separators between thousands other
    than a bare comma, "the answer is" and "about", and one final period or other stop. Words are in
    \text{...}, whichever command held them; degree and percent signs are words.
    """
    text = DECORATION.applied(answer.translate(CHARACTERS))
    text = re.sub(r"(?<![.,;:])[.,;:]$", "", text.strip("*` ").rstrip("\\ ")).rstrip("\\ ")
    while text.startswith("{") and _enclosed(text):
        text = text[1:-1].strip()
    if not re.search(r"[(\[][^()\[\]]*,|\\\{", text):
        text = THOUSANDS.sub(lambda number: number[0].replace(",", ""), text)
    return re.sub(r"(?<![a-zA-Z0-9]) | (?![a-zA-Z0-9])", "", text)


def words(text: str) -> str:
    r"""The text in lower case, without \text, braces, parentheses, punctuation and spaces."""
    return re.sub(r"\\text(?=\{)|[\s{}()\[\].,;:!?'\"`]", "", text).lower()


def is_text(text: str) -> bool:
    r"""Whether it is words alone, in \text{...}."""
    return re.fullmatch(r"[(\[]?(?:\\text\{[^{}]*\}[ ,.]?)+[)\]]?", text) is not None


# -- names ----------------------------------------------------------------------------------------

LETTERS = r"\([a-zA-Z](?:,[a-zA-Z])*\)"
NAME = (
    r"\\text\{[^{}]*\}|\\(?:overline|vec)\{\w+\}|\\angle ?[A-Z]+"
    rf"|\\?[a-zA-Z]+(?:_(?:\w|\{{\w+\}}))?'*(?:{LETTERS})?|{LETTERS}"
)
NAMED = re.compile(rf"(?P<name>{NAME})(?:=|\\in(?![a-zA-Z]))(?P<value>.+)")


class Pair(NamedTuple):
    gold: str
    answer: str


def without_names(gold: str, answer: str) -> Pair:
    r"""The answers without `x =`, `f(x) =` or `x \in`, if both have the same, or one of them has none."""
    named = NAMED.fullmatch(gold), NAMED.fullmatch(answer)
    if named[0] and named[1]:
        if named[0]["name"] == named[1]["name"]:
            return Pair(named[0]["value"], named[1]["value"])
    elif named[0] and "=" not in answer:
        return Pair(named[0]["value"], answer)
    elif named[1] and "=" not in gold:
        return Pair(gold, named[1]["value"])
    return Pair(gold, answer)


# -- numbers --------------------------------------------------------------------------------------

BASED = re.compile(r"\(?(?P<digits>-?\d\w*?)\)?_(?:(?P<digit>\d)|\{(?:\\text\{)?(?P<base>\w+)\}+)")
BASE_WORDS = {
    "two": "2",
    "three": "3",
    "four": "4",
    "five": "5",
    "six": "6",
    "seven": "7",
    "eight": "8",
}
BASE_WORDS |= {"nine": "9", "ten": "10", "eleven": "11", "twelve": "12", "sixteen": "16"}


class Numeral(NamedTuple):
    digits: str
    base: str


def numeral(text: str) -> Numeral | None:
    """A number with an explicit base, as 445_6; None for anything else."""
    match = BASED.fullmatch(text)
    if match is None:
        return None
    base = match["digit"] or match["base"].lower()
    return Numeral(match["digits"].lower(), BASE_WORDS.get(base, base))


# -- collections ----------------------------------------------------------------------------------

TOKEN = re.compile(
    r"(?P<open>[(\[{]|\\\{|\\(?:lbrace|langle|lfloor|lceil|begin)(?![a-zA-Z]))"
    r"|(?P<close>[)\]}]|\\\}|\\(?:rbrace|rangle|rfloor|rceil|end)(?![a-zA-Z]))"
    r"|(?P<between>[,;]? ?(?:\\text\{ ?,?(?:and|or) ?\}|(?<![\\a-zA-Z])(?:and|or)(?![a-zA-Z]))|[,;])"
    r"|\\[a-zA-Z]+|\\?."
)
BRACKETS = re.compile(
    r"(?P<opening>\\\{|\\lbrace|[(\[])(?P<inside>.*)(?P<closing>\\\}|\\rbrace|[)\]])"
)


class Collection(NamedTuple):
    """A tuple, interval, set or bare list; anything else is the one item of a bare list."""

    opening: str
    items: tuple[str, ...]
    closing: str

    @property
    def brackets(self) -> str:
        """Those of a tuple or interval; none for sets and lists, whose order is of no account."""
        return self.opening + self.closing if self.opening in ("(", "[") else ""


def collection(text: str) -> Collection:
    r"""The items of a cleaned answer, a \pm b as two."""
    match = BRACKETS.fullmatch(text) if _enclosed(text) else None
    inside = match["inside"] if match else text
    items = tuple(signed for item in _items(inside) for signed in _signs(item))
    if match is None or (len(items) < 2 and match["opening"] in "(["):
        return Collection("", items, "")
    return Collection(match["opening"], items, match["closing"])


def _items(text: str) -> Iterator[str]:
    depth = start = 0
    for token in TOKEN.finditer(text):
        depth += bool(token["open"]) - bool(token["close"])
        if depth == 0 and token["between"]:
            yield text[start : token.start()].strip()
            start = token.end()
    yield text[start:].strip()


def _signs(item: str) -> Iterator[str]:
    if re.search(r"\\(?:pm|mp)(?![a-zA-Z])", item) is None:
        yield item
        return
    for plus, minus in ("+", "-"), ("-", "+"):
        signed = re.sub(r"\\pm(?![a-zA-Z]) ?", plus, item)
        yield re.sub(r"\\mp(?![a-zA-Z]) ?", minus, signed).removeprefix("+")


def _enclosed(text: str) -> bool:
    """Whether one pair of brackets, of any kind, holds it all."""
    depth = 0
    for token in TOKEN.finditer(text):
        depth += bool(token["open"]) - bool(token["close"])
        if depth == 0:
            return bool(token["close"]) and token.end() == len(text)
    return False
