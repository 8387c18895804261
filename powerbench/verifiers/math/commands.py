r"""LaTeX's commands in one spelling: the first stages of the table of what a careful reader overlooks."""

import re

from powerbench.verifiers.typesetting import Rules

SPACE = r"\\[,;: ]|\\(?:q?quad|thinspace|enspace)\b|~"
GROUP = r"(?:\s*(?:\\[,;: ]|~|\{,\}(?:\\!)?|,?\s*\\!)\s*\d{3}|\s\d{3})"
ALIASES = {
    alias: command
    for line in (
        r"\frac dfrac tfrac cfrac sfrac xfrac nicefrac flatfrac",
        r"\cup bigcup",
        r"\cap bigcap",
        r"\setminus backslash smallsetminus",
        r"\{ lbrace",
        r"\} rbrace",
        r"[ lbrack",
        r"] rbrack",
        r"\| Vert lVert rVert",
        r"\\ cr newline tabularnewline",
        r"\mathbb Bbb",
        r"\text{and} land wedge",
        r"\text{or} lor vee",
        r"\$ textdollar mathdollar",
        "£ pounds textsterling",
        "€ euro texteuro",
        r"\approx simeq sim",
        r"\emptyset varnothing",
        r"^\circ textdegree degree degrees",
        ": colon",
        "^ textsuperscript",
        "_ textsubscript",
        "i imath",
    )
    for command, *aliases in (line.split(),)
    for alias in aliases
}
MARKUP = Rules(
    (r"^\s*\\\[|(?<!\\)\\\]\s*$|(?<!\\)\\[()]", ""),
    (r"(?<!\\)\\([a-zA-Z]+)", lambda command: ALIASES.get(command[1], command[0])),
    (r"\\\\\\\\", r"\\\\"),
    (r"\\\\\s*\[[^\]]*\]", r"\\\\"),
    (r"\\(begin|end)\s*\{[pb]?smallmatrix\*?\}", r"\\\1{pmatrix}"),
    (r"\\(begin|end)\s*\{([pb]?matrix)\*\}(?:\s*\[[^\]]*\])?", r"\\\1{\2}"),
    (r"\\pmatrix\s*\{((?:[^{}]|\{[^{}]*\})*)\}", r"\\begin{pmatrix}\1\\end{pmatrix}"),
    (r"\\(?:left|right|middle|[bB]igg?[lrm]?)(?![a-zA-Z])\.?", ""),
    (r"\\mathbb\s*([A-Z])", r"\\mathbb{\1}"),
    (r"\\not ?=", r"\\ne "),
    (r"\\&", r"\\text{and}"),
    needs="\\",
)
"""One command for each thing; no delimiters of mathematics, and no sizes of brackets."""
SEPARATORS = Rules(
    (r"(?<!\\)\$", ""),
    (rf"(?<![\d.])\d{{1,3}}{GROUP}+(?!\d)", lambda number: re.sub(r"\D", "", number[0])),
    (r"\d+(?:(?:\\[,;: ]|[ ~])\d+)+(?=\s*_)", lambda digits: re.sub(r"\D", "", digits[0])),
    (r"\\!", ""),
    (r"(?<=\d)\{,\}(?=\d)", "."),
    (r"(?<!\\text)\{:\}", ":"),
    (r"\{\}(?=\s*\^)", ""),
    (rf"(?<!\\)(?:{SPACE})", " "),
    (r"\^\{?(\d+)\}? ?/ ?_\{?(\d+)\}?", r"\\frac{\1}{\2}"),
)
"""Separators of thousands go."""

FUNCTIONS = r"(?:arc)?(?:sin|cos|tan|cot|sec|csc)h?|ln|log|exp|max|min|gcd"
ARGUMENT = r"(?=\s*(?:[\^_({\d\\]|[a-zA-Z](?![a-zA-Z])))"
NAMES = Rules(
    (rf"(?<![\\a-zA-Z])(Sin|Cos|Tan|Cot|Sec|Csc|Ln|Log|Exp){ARGUMENT}", lambda m: m[1].lower()),
    (rf"(?<![\\a-zA-Z])({FUNCTIONS}){ARGUMENT}", r"\\\1 "),
    (r"(?<![\\a-zA-Z])sqrt(?=\s*[\[({])", r"\\sqrt"),
    (r"(?<![\\a-zA-Z])sqrt\s*(\d+)", r"\\sqrt{\1}"),
    (r"(?<![\\a-zA-Z])cbrt\s*\(([^()]*)\)", r"\\sqrt[3]{\1}"),
)
"""Functions without a backslash."""
FONTS = Rules(
    (r"\{\s*\\rm\s+([a-zA-Z][^{}]+)\}|\\rm\s*\{\s*([a-zA-Z]{2,})\s*\}", r"\\text{\1\2}"),
    (r"\\mathop\s*\{\s*(\\text\{[^{}]*\})\s*\}", r"\1"),
    (
        rf"\\(?:operatorname\*?|math(?:rm|op|sf)|text(?:rm|up)?)\s*\{{\s*({FUNCTIONS})\s*\}}{ARGUMENT}",
        r"\\\1 ",
    ),
    (r"\\log\s*_\s*(?:e|\{\s*e\s*\})(?![a-zA-Z])", r"\\ln "),
    (r"\\math(?:rm|bf|it|sf|tt)\s*\{\s*([a-zA-Z])\s*\}", r"\1"),
    (r"\\operatorname\*?\s*(?=\{[^{}]*\}(?!\s*[({\\]))", r"\\text"),
    (
        r"\\(?:math(?:rm|sf|tt)|text(?:bf|it|rm|sf|sc|sl|tt|up|md|normal)|[mh]box|emph)\s*(?=\{)",
        r"\\text",
    ),
    (
        r"\\(?:mathbf|mathit|boldsymbol|bold|bm|pmb|bf|rm|it|sf|tt|sc|sl|em|underline)(?![a-zA-Z])\s*",
        "",
    ),
    needs="\\",
)
r"""Functions as commands, words in \text{...}, letters as they are."""
NESTED = r"((?:[^()]|\((?:[^()]|\([^()]*\))*\))*)"
ROOTS = Rules(
    (r"\\surd\s*(\d+|[a-zA-Z])", r"\\sqrt{\1}"),
    (r"\\root\s*(\d|\{\w+\})\s*\\of\s*(\{[^{}]*\}|\w)", r"\\sqrt[\1]\2"),
    (r"\\sqrt\s*(\[[^\]]*\])\s*(\w)", r"\\sqrt\1{\2}"),
    (rf"\\sqrt\s*(\[[^\]]*\])?\s*\({NESTED}\)", r"\\sqrt\1{\2}"),
    (rf"\\sqrt\s*(\[[^\]]*\])?\s*\({NESTED}\)", r"\\sqrt\1{\2}"),  # a root below a root
    needs="\\",
)
"""What is below a root, in braces."""
COMMANDS = (MARKUP, SEPARATORS, NAMES, FONTS, ROOTS)
"""In their order."""
