r"""Answers as LaTeX text, without what a careful reader overlooks. Every function only rewrites text."""

import re
from functools import lru_cache

from powerbench.verifiers.math.units import as_unit
from powerbench.verifiers.typesetting import Rules, typeset

SPACE = r"\\[,;: ]|\\(?:q?quad|thinspace|enspace)\b|~"
GROUP = r"(?:\s*(?:\\[,;: ]|~|\{,\}(?:\\!)?|,?\s*\\!)\s*\d{3}|\s\d{3})"
MARKUP = Rules(
    (r"(?<!\\)\$|^\s*\\\[|(?<!\\)\\\]\s*$|(?<!\\)\\[()]", ""),
    (r"\\(?:cr|(?:tabular)?newline)(?![a-zA-Z])|\\\\\\\\", r"\\\\"),
    (r"\\\\\s*\[[^\]]*\]", r"\\\\"),
    (r"\\(begin|end)\s*\{[pb]?smallmatrix\}", r"\\\1{pmatrix}"),
    (
        r"\\pmatrix\s*\{((?:[^{}]|\{[^{}]*\})*)\}",
        r"\\begin{pmatrix}\1\\end{pmatrix}",
    ),
    (r"\\[lr]?Vert(?![a-zA-Z])", r"\\|"),
    (rf"(?<![\d.])\d{{1,3}}{GROUP}+(?!\d)", lambda number: re.sub(r"\D", "", number[0])),
    (r"\d+(?:(?:\\[,;: ]|[ ~])\d+)+(?=\s*_)", lambda digits: re.sub(r"\D", "", digits[0])),
    (r"\\!", ""),
    (r"(?<=\d)\{,\}(?=\d)", "."),
    (r"(?<!\\text)\{:\}|\\colon(?![a-zA-Z])", ":"),
    (r"\{\}(?=\s*\^)", ""),
    (rf"(?<!\\)(?:{SPACE})", " "),
    (r"\\(?:left|right|middle|[bB]igg?[lrm]?)(?![a-zA-Z])\.?", ""),
    (r"\\(?:[dtcsx]|nice|flat)frac(?![a-zA-Z])", r"\\frac"),
    (r"\\mathbb\s*([A-Z])", r"\\mathbb{\1}"),
    (r"\\big(cup|cap)(?![a-zA-Z])", r"\\\1"),
    (r"\\backslash(?![a-zA-Z])", r"\\setminus "),
)
"""One command for each thing; no delimiters of mathematics, sizes of brackets, and separators of thousands."""

FUNCTIONS = r"(?:arc)?(?:sin|cos|tan|cot|sec|csc)h?|ln|log|exp|max|min|gcd"
ARGUMENT = r"(?=\s*(?:[\^_({\d\\]|[a-zA-Z](?![a-zA-Z])))"
FONTS = Rules(
    (
        rf"\\(?:operatorname\*?|math(?:rm|op|sf)|text(?:rm|up)?)\s*\{{\s*({FUNCTIONS})\s*\}}{ARGUMENT}",
        r"\\\1 ",
    ),
    (rf"(?<![\\a-zA-Z])({FUNCTIONS}){ARGUMENT}", r"\\\1 "),
    (r"(?<![\\a-zA-Z])sqrt(?=\s*[\[({])", r"\\sqrt"),
    (r"(?<![\\a-zA-Z])sqrt\s*(\d+)", r"\\sqrt{\1}"),
    (r"\\sqrt\s*(\[[^\]]*\])?\s*\(([^()]*)\)", r"\\sqrt\1{\2}"),
    (r"\{\s*\\rm\s+([a-zA-Z][^{}]+)\}", r"\\text{\1}"),
    (r"\\math(?:rm|bf|it|sf|tt)\s*\{\s*([a-zA-Z])\s*\}", r"\1"),
    (r"\\operatorname\*?\s*(?=\{[^{}]*\}(?!\s*[({\\]))", r"\\text"),
    (
        r"\\(?:math(?:rm|sf|tt)|text(?:bf|it|rm|sf|sc|sl|tt|up|md|normal)|[mh]box|emph)\s*(?=\{)",
        r"\\text",
    ),
    (r"\\(?:mathbf|mathit|boldsymbol|bold|bm|pmb|bf|rm|it|sf|tt|underline)(?![a-zA-Z])\s*", ""),
)
r"""Functions as commands, words in \text{...}, letters as they are."""

ORDINAL = "(?:st|nd|rd|th)"
CODES = {"USD": r"\$", "US": r"\$", "EUR": "€", "GBP": "£"}
CODE = rf"({'|'.join(CODES)})\s*(?:\\\$)?"
COMMANDS = {r"\textdollar": r"\$", r"\mathdollar": r"\$", r"\pounds": "£", r"\textsterling": "£"}
COMMANDS |= {r"\euro": "€", r"\texteuro": "€"}
MARKS = Rules(
    (
        rf"(?<=\d)(?:{ORDINAL}(?![a-zA-Z])|\s*\^\s*\{{\s*(?:{ORDINAL}|\\text\s*\{{\s*{ORDINAL}\s*\}})\s*\}}"
        rf"|\s*\^?\s*\\text\s*\{{\s*{ORDINAL}\s*\}})",
        "",
    ),
    (r"\\ang\s*\{([^{};]*)\}", r"\1^\\circ "),
    (r"\\(?:SI|qty)\s*\{([^{}]*)\}\s*\{([^{}]*)\}", r"\1\\text{\2}"),
    (r"\\(?:si|unit)\s*(?=\{)", r"\\text"),
    (r"\\num\s*\{([^{}]*)\}", r"\1"),
    (r"(\\[a-z]+)(?![a-zA-Z])", lambda command: COMMANDS.get(command[0], command[0])),
    (
        rf"(?<![a-zA-Z]){CODE}\s*(?=\d)|\\text\s*\{{\s*{CODE}\s*\}}\s*(?=\d)",
        lambda m: CODES[m[1] or m[2]],
    ),
    (
        r"(?<=\d)\s*(?:[eE]\s*\{([-+]?\d+)\}|\\text\s*\{\s*[eE]\s*(?:\}\s*\{?([-+]?\d+)\}?|([-+]?\d+)\s*\}))",
        lambda m: "e" + next(filter(None, m.groups())),
    ),
    (r"(?<=\d)\s*[xX]\s*10(?=\s*\^)", r"\\times 10"),
    (r"\\imath(?![a-zA-Z])|(?<=[\d+}-])\s*\\text\s*\{\s*i\s*\}", "i"),
)
"""Ordinals are numbers; quantities of siunitx and codes of currencies as they are written by hand."""

PREFIX = (
    r"(?i:(?:(?:so|thus|hence|therefore|the|my|our|final|correct)\W+)*(?:answer|result|solution|value)"
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
    name = re.sub(r"\\text|\bbase\b|[\s{}()]", "", match[1])
    return _subscript(name) if BASES.get(name.lower(), name).isdigit() else match[0]


def _subscript(name: str) -> str:
    return f"_{{{BASES.get(name.lower(), name)}}}"


OR = r"or(?: equivalently| simply| just| rather)?|i\.?e\.?|that is|which (?:is|equals)"
PREAMBLE = r"\\approx|\\text\s*\{[^{}]*\b(?i:answer|is|about|approximately)[ :.]*\}(?!\s*=)"
SUPERSCRIPT_O = r"\\circ(?![a-zA-Z])|o(?![a-zA-Z])|\\text\s*\{\s*o\s*\}"
WORDS = Rules(
    (TEXT, _text),
    (SUBSCRIPT, _base),
    (
        rf"(?<=[\dA-F])\s*(?:\\text\s*\{{\s*\(?\s*(?:in\s+)?base(?:\s*\}}\s*{BASE}|\s+{BASE}\s*\)?\s*\}})"
        rf"|\(\s*base\s+{BASE}\s*\)|(?:in\s+)?base\s+{BASE})",
        lambda m: _subscript(next(filter(None, m.groups()))),
    ),
    (r"(?<=\d)\s*([aApP])\.\s?[mM]\.?(?![a-zA-Z])", r"\\text{\1m}"),
    (r"(?<=:\d\d)\s*([aApP])[mM](?![a-zA-Z])|(?<=\d)\s*([AP])M(?![a-zA-Z])", r"\\text{\1\2m}"),
    (rf"\\text\s*\{{\s*\(\s*(?:{OR})[\s:,]*\}}([^()]*)\)", r"\\text{or}\1"),
    (rf"\(\s*(?:\\text\s*\{{\s*(?:{OR})[\s:,]*\}}|or\s)([^()]*)\)", r"\\text{or}\1"),
    (rf"\\text\s*\{{\s*[,;]?\s*(?:{OR}),?\s*\}}", r"\\text{or}"),
    (r"(?i:\\text\s*\{\s*or\s+(?:approximately|about|roughly)\s*\})", r"\\text{or}\\approx "),
    (r"\\(?:approx|simeq|sim)(?![a-zA-Z])", r"\\approx "),
    (rf"^\s*(?:{PREAMBLE}|{PREFIX})", ""),
    (r"\\text\s*\{\s*[(,]?\s*(?i:since|because|as)\b.*$", ""),
    (
        rf"\^\s*\{{\s*\\circ\s*\}}|\^\s*\\circ(?![a-zA-Z])|(?<=[\d)}}])\s*\^\s*(?:{SUPERSCRIPT_O}"
        rf"|\{{\s*(?:{SUPERSCRIPT_O})\s*\}})|(?<=\d)\s*\\circ(?![a-zA-Z])"
        r"|\\(?:textdegree|degrees?)(?![a-zA-Z])",
        r"\\text{degrees}",
    ),
    (r"(\\text\{degrees\})\s*(?:[CF]|\\text\s*\{\s*[CF]\s*\})(?![a-zA-Z])", r"\1"),
    (r"\\?%", r"\\text{percent}"),
    (
        r"\\frac\s*\{\s*\\text\s*\{([^{}]*)\}\s*\}\s*\{\s*(\\text\s*\{[^{}]*\}(?:\^\{?\d\}?)?)\s*\}",
        r"\\text{\1}/\2",
    ),
    (
        r"\\text\s*\{\s*(-|negative )?(?:positive )?(?i:infinity)\s*\}"
        r"|(?<![\\a-zA-Z])(?i:infinity)(?![a-zA-Z])",
        lambda m: r"-\infty " if m[1] else r"\infty ",
    ),
    (r"(?<=[\d)}]) ([a-zA-Z][a-zA-Z./ ]*)((?:\^\d)?)(?=\s*(?:$|[,;)=]))", as_unit),
)
r"""Words in \text{...}, the answer alone; bases, units, degrees, percent and alternatives in one form."""

SPELLINGS = Rules(
    (r"([\^_])\{(\w)\}(?!\w)", r"\1\2"),
    (r"(?<![\\a-zA-Z])pi(?![a-zA-Z])", r"\\pi "),
    (r"\\varnothing(?![a-zA-Z])|\\\{\s*\\\}", r"\\emptyset "),
    (r"(?<=[)\]])\s*U\s*(?=[(\[])", r"\\cup "),
    (r"(?<=[})\]])\s*-\s*(?=\\\{)", r"\\setminus "),
    (r"\s+", " "),
)
STAGES = (MARKUP, FONTS, MARKS, WORDS, SPELLINGS)
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
