r"""Answers as LaTeX text, without what a careful reader overlooks. Every function only rewrites text."""

import re
from functools import lru_cache

from powerbench.verifiers.math.commands import COMMANDS
from powerbench.verifiers.math.units import as_unit
from powerbench.verifiers.typesetting import Rules, typeset

ORDINAL = "(?:st|nd|rd|th)"
CODES = {"USD": r"\$", "US": r"\$", "EUR": "€", "GBP": "£"}
CODE = rf"({'|'.join(CODES)})\s*(?:\\\$)?"
SIUNITX = Rules(
    (r"\\ang\s*\{([^{};]*)\}", r"\1^\\circ "),
    (r"\\(?:SI|qty)\s*\{([^{}]*)\}\s*\{([^{}]*)\}", r"\1\\text{\2}"),
    (r"\\(?:si|unit)\s*(?=\{)", r"\\text"),
    (r"\\num\s*\{([^{}]*)\}", r"\1"),
    needs="\\",
)
MARKS = Rules(
    (
        rf"(?<=\d)(?:-?{ORDINAL}(?![a-zA-Z])|\s*\^\s*\{{\s*(?:{ORDINAL}|\\text\s*\{{\s*{ORDINAL}\s*\}})\s*\}}"
        rf"|\s*\^?\s*\\text\s*\{{\s*{ORDINAL}\s*\}})",
        "",
    ),
    (
        rf"(?<![a-zA-Z]){CODE}\s*(?=\d)|\\text\s*\{{\s*{CODE}\s*\}}\s*(?=\d)",
        lambda m: CODES[m[1] or m[2]],
    ),
    (
        r"(?<=\d)\s*(?:[eE]\s*\{([-+]?\d+)\}|\\text\s*\{\s*[eE]\s*(?:\}\s*\{?([-+]?\d+)\}?|([-+]?\d+)\s*\}))",
        lambda m: "e" + next(filter(None, m.groups())),
    ),
    (r"(?<=\d)\s+E(?=[-+]\d)", "e"),
    (r"(?<=\d)\s*[xX]\s*10(?=\s*\^)", r"\\times 10"),
    (r"(?<=\d)( ?)\{\s*(\\text\s*\{[^{}]*\})\s*\}", r"\1\2"),
    (r"(?<=[\d+}-])\s*\\text\s*\{\s*i\s*\}", "i"),
)
"""Ordinals are numbers, codes of currencies signs; powers of ten as in `6.72e-5`."""

PREFIX = (
    r"(?i:(?:(?:so|thus|hence|therefore|the|my|our|final|correct)\W+)*(?:answer|ans\.?|result|solution|value)"
    r"\s*(?:is|are|=|:)+\s*:?\s*(?=\S))"
)
MATHEMATICS = re.compile(
    r"(?=.*\d|\s*(?:\\?[$%]|[:;,.])\s*$)(?:[-+\d.,;:/()\[\]=^*<>|!{}\s]|\\[$%{}]|\b(?:and|or)\b"
    r"|\\(?:frac|sqrt|pi|cdot|times|pm|le|ge|circ|infty|text)(?![a-zA-Z]))*"
)
LABEL = r"\(?(?:[a-zA-Z]|[IVX]+)\)?"
LABELS = re.compile(rf"\s*{LABEL}(?:\s*(?:[,;]\s*and\b|[,;&]|\band\b)\s*{LABEL})+\s*")
TEXT = r"\\text\s*\{((?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*)\}"


def _text(match: re.Match[str]) -> str:
    r"""Mathematics, lists of labels and what "the answer is" leave \text; of `5 apples` the number does."""
    content = re.sub(rf"^\s*{PREFIX}", "", match[1])
    if MATHEMATICS.fullmatch(content) or LABELS.fullmatch(content):
        return f" {content} "
    if number := re.fullmatch(r"\s*(-?\d[\d.,:]*)\s+([a-zA-Z][^{}]*)", content):
        return rf"{number[1]}\text{{{number[2]}}}"
    return rf"\text{{{content}}}"


BASE_NAMES = [
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
]
BASES = {name: str(base) for base, name in enumerate(BASE_NAMES, 2)} | {"sixteen": "16"}
BASE = rf"(\d+|(?i:{'|'.join(BASES)}))(?![a-zA-Z])"
SUBSCRIPT = r"_\s*(\{(?:[^{}]|\{[^{}]*\})*\}|\\text\s*\{[^{}]*\})"


def _base(match: re.Match[str]) -> str:
    """`_8` for a base in whatever brackets and words; other subscripts as they are."""
    name = re.sub(r"\\text|\bbase\b|[\s{}()\[\]-]", "", match[1])
    return _subscript(name) if BASES.get(name.lower(), name).isdigit() else match[0]


def _subscript(name: str) -> str:
    return f"_{{{BASES.get(name.lower(), name)}}}"


BASED = Rules(
    (SUBSCRIPT, _base),
    (
        rf"(?<=[\dA-F])\s*(?:\\text\s*\{{\s*\(?\s*(?:in\s+)?base(?:\s*\}}\s*{BASE}|[\s-]+{BASE}\s*\)?\s*\}})"
        rf"|\(\s*\\text\s*\{{\s*base\s*\}}\s*{BASE}\s*\)|\(\s*base\s+{BASE}\s*\)|(?:in\s+)?base\s+{BASE})",
        lambda m: _subscript(next(filter(None, m.groups()))),
    ),
)
"""Bases, in words or brackets, as subscripts."""

ABOUT = r"(?i:approximately|approx\.?|about|roughly)"
OR = r"or(?: equivalently| simply| just| rather)?|i\.?e\.?|that is|which (?:is|equals)"
EXCEPT = "(?:except|but not|excluding)(?: for| when| where)?"
SENTENCES = Rules(
    (rf"\\text\s*\{{\s*\(\s*(?:{OR})[\s:,]*\}}([^()]*)\)", r"\\text{or}\1"),
    (rf"\(\s*\\text\s*\{{\s*(?:{OR})[\s:,]*\}}([^()]*)\)", r"\\text{or}\1"),
    (rf"\\text\s*\{{\s*[,;]?\s*(?:{OR}),?\s*\}}", r"\\text{or}"),
    (rf"\\text\s*\{{\s*\(\s*{ABOUT}\s+([-\d.]+)\s*\)\s*\}}", r"\\approx \1"),
    (rf"(?:\(\s*\\text\s*\{{\s*|\\text\s*\{{\s*\(\s*){ABOUT}\s*\}}([^()]*)\)", r"\\approx \1"),
    (rf"(?<=\S)\s*\\text\s*\{{\s*,?\s*(?:or\s+)?{ABOUT}\s*\}}", r"\\approx "),
    (r"\\text\s*\{\s*[(,]?\s*(?i:since|because|as)\b.*$", ""),
    (r"\\text\s*\{\s*(?:such that|s\.t\.)\s*\}", r"\\mid "),
    (rf"\\text\s*\{{\s*,?\s*{EXCEPT}\s*\}}\s*([a-zA-Z])\s*=", r"\\text{and}\1\\ne "),
    (r"\\text\s*\{\s*,?\s*(?:with|where)\s*\}(?=\s*[a-zA-Z] ?\\n)", r"\\text{and}"),
    (
        rf"(?i:\\text\s*\{{\s*all (?:reals|real numbers)(?:\s+({EXCEPT}))?\s*\}})\s*(?:[a-zA-Z]\s*=)?(.*)$",
        lambda m: rf"\mathbb{{R}}\setminus\{{{m[2]}\}}" if m[1] else rf"\mathbb{{R}}{m[2]}",
    ),
    (
        r"\\text\s*\{\s*(-|negative )?(?:positive )?(?i:infinity)\s*\}",
        lambda m: r"-\infty " if m[1] else r"\infty ",
    ),
    (
        r"\\frac\s*\{\s*\\text\s*\{([^{}]*)\}\s*\}\s*\{\s*(\\text\s*\{[^{}]*\}(?:\^\{?\d\}?)?)\s*\}",
        r"\\text{\1}/\2",
    ),
    needs=r"\text",
)
r"""What is said in \text: alternatives, approximations, reasons, exceptions, infinity, fractions of units."""

STOPS = (
    r"\\text\s*\{[^{}]*\b(?i:answer|is|about|approximately)[ :.]*\}(?!\s*=)|\\text\s*\{[^{}]*:\s*\}"
)
PREAMBLE = rf"\\approx|{STOPS}|=|{PREFIX}"
DEGREES = r"\\circ(?![a-zA-Z])|o(?![a-zA-Z])|\\text\s*\{\s*o\s*\}"
WORDS = Rules(
    (r"(?<=\d)\s*([aApP])\.\s?[mM]\.?(?![a-zA-Z])", r"\\text{\1m}"),
    (r"(?<=:\d\d)\s*([aApP])[mM](?![a-zA-Z])|(?<=\d)\s*([AP])M(?![a-zA-Z])", r"\\text{\1\2m}"),
    (r"\(\s*or\s([^()]*)\)", r"\\text{or}\1"),
    (r"\(\s*(\\approx|=)([^()]*)\)$", r"\1\2"),
    (rf"^\s*(?:{PREAMBLE})", ""),
    (r"\^?\s*\\text\s*\{\s*\^?\s*\\circ\s*\}", r"^\\circ "),
    (r"\^\s*(?:\{\s*\^\s*\\circ\s*\}|\^\s*\\circ(?![a-zA-Z]))", r"^\\circ "),
    (
        rf"\^\s*\{{\s*\\circ\s*\}}|\^\s*\\circ(?![a-zA-Z])|(?<=[\d)}}])\s*\^\s*(?:{DEGREES}"
        rf"|\{{\s*(?:{DEGREES})\s*\}})|(?<=\d)\s*\\circ(?![a-zA-Z])",
        r"\\text{degrees}",
    ),
    (r"(\\text\{degrees\})\s*(?:[CF]|\\text\s*\{\s*[CF]\s*\})(?![a-zA-Z])", r"\1"),
    (r"\\?%", r"\\text{percent}"),
    (r"(?<=[\d}]) ?\(([a-zA-Z] ?\\neq?(?![a-zA-Z])[^()]*)\)$", r"\\text{and}\1"),
    (r"(?<![\\a-zA-Z])(?i:infinity)(?![a-zA-Z])", r"\\infty "),
    (r"(?<=[\d)}]) ([a-zA-Z][a-zA-Z./ ]*)((?:\^\d)?)(?=\s*(?:$|[,;)=]))", as_unit),
    (r"(?<=[\d)}]) ?\(([a-zA-Z][a-zA-Z ]*)\)()$", as_unit),
)
r"""The answer alone; degrees, percent, halves of the day, and units as words in \text{...}."""

SPELLINGS = Rules(
    (r"([\^_])\{(\w)\}(?!\w)", r"\1\2"),
    (r"(?<![\\a-zA-Z])pi(?![a-zA-Z])", r"\\pi "),
    (r"\\\{\s*\\\}", r"\\emptyset "),
    (r"(?<=[)\]])\s*U\s*(?=[(\[])", r"\\cup "),
    (r"(?<=[})\]])\s*-\s*(?=\\\{)", r"\\setminus "),
    (r"\s+", " "),
)
TEXTS = Rules((r"\s+", " "), (TEXT, _text))
STAGES = (*COMMANDS, SIUNITX, MARKS, TEXTS, BASED, SENTENCES, WORDS, SPELLINGS)
"""The whole table, in its order."""

CLEANED = 1024
"""Answers kept cleaned in a process, gold answers among them."""
NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")
THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?!\d|,\d)")
THREES = re.compile(r"\d{3}(?:,\d{3})+")
"""A number, or a list of numbers of three digits each: only the other answer tells."""


def clean(answer: str) -> str:
    r"""The answer without what a careful reader overlooks.

    Gone are math delimiters, spacing, sizes, fonts and colours, separators between thousands other
    than a bare comma, "the answer is" and "about", and one final period or other stop. Words are in
    \text{...}, whichever command held them; degree and percent signs are words.
    """
    text = separated(answer)
    if not re.search(r"[(\[][^()\[\]]*,|\\\{", text):
        text = THOUSANDS.sub(lambda number: number[0].replace(",", ""), text)
    return re.sub(r"(?<![a-zA-Z0-9]) | (?![a-zA-Z0-9])", "", text)


@lru_cache(CLEANED)
def separated(answer: str) -> str:
    """The answer cleaned, but with the commas between thousands, or between the items of a list."""
    if NUMBER.fullmatch(answer):
        return answer
    text = typeset(answer)
    if r"\begin" not in text:
        text = re.sub(r"\\\\(?=[a-zA-Z]{2})", r"\\", text)
    for rules in STAGES:
        text = rules.applied(text)
    text = re.sub(r"(?<![.,;:])[.,;:]$", "", text.strip("*` ").rstrip("\\ ")).rstrip("\\ ")
    while text.startswith("{") and enclosed(text):
        text = text[1:-1].strip()
    return text


def words(text: str) -> str:
    r"""The text in lower case and in the singular, without \text, brackets, punctuation and spaces."""
    text = re.sub(r"\\text(?=\{)|[{}()\[\].,;:!?'\"`]", "", text).lower()
    text = re.sub(r"^ ?there (?:is|are) ", "", text)
    return re.sub(r"\s+", "", PLURALS.applied(text))


PLURALS = Rules(
    (r"(?<=[a-z]{2})ies\b", "y"),
    (r"(?<=[a-z]{2}[a-rt-z])s\b", ""),
    (r"([sxz]|[cs]h)e\b", r"\1"),
)


def is_text(text: str) -> bool:
    r"""Whether it is words alone, in \text{...}."""
    return re.fullmatch(r"[(\[]?(?:\\text\{[^{}]*\}[ ,.]?)+[)\]]?", text) is not None


# -- brackets -------------------------------------------------------------------------------------

TOKEN = re.compile(
    r"(?P<open>[(\[{]|\\\{|\\(?:lbrace|langle|lfloor|lceil|begin)(?![a-zA-Z]))"
    r"|(?P<close>[)\]}]|\\\}|\\(?:rbrace|rangle|rfloor|rceil|end)(?![a-zA-Z]))"
    r"|(?P<between>[,;]? ?(?:\\text\{ ?,?(?:and|or) ?\}|(?<![\\a-zA-Z])(?:and|or)(?![a-zA-Z]))|[,;])"
    r"|(?P<relation>(?<![<>:])=|\\approx(?![a-zA-Z]))"
    r"|\\[a-zA-Z]+|\\?."
)


def enclosed(text: str) -> bool:
    """Whether one pair of brackets, of any kind, holds it all."""
    depth = 0
    for token in TOKEN.finditer(text):
        depth += bool(token["open"]) - bool(token["close"])
        if depth == 0:
            return bool(token["close"]) and token.end() == len(text)
    return False
