r"""What a page looks like and what it says, told apart: Unicode as LaTeX, and typesetting commands dropped."""

import re
import unicodedata
from collections.abc import Callable
from functools import cache
from itertools import groupby


class Rules:
    """Substitutions of regular expressions, made one after the other.

    needs: a part without which a text is left alone, at once.
    """

    def __init__(
        self, *rules: tuple[str, str | Callable[[re.Match[str]], str]], needs: str = ""
    ) -> None:
        self._rules = [(re.compile(pattern), replacement) for pattern, replacement in rules]
        self._needs = needs

    def applied(self, text: str) -> str:
        if self._needs not in text:
            return text
        for pattern, replacement in self._rules:
            text = pattern.sub(replacement, text)
        return text


# -- Unicode --------------------------------------------------------------------------------------

COMMANDS = {
    command: characters
    for command, characters in (
        (r"\pm \mp \times \cdot \div \cup \cap \setminus", "± ∓ × ·⋅∙• ÷ ∪⋃ ∩⋂ ∖"),
        (r"\ne \approx \equiv \in \notin \mid \infty \emptyset", "≠ ≈≃ ≡ ∈ ∉ ∣ ∞ ∅"),
        (r"\subset \subseteq \to \implies \sum \prod \int \partial", "⊂ ⊆ →⟶ ⇒⟹ ∑ ∏ ∫ ∂"),
        (r"\angle \triangle \perp \parallel \langle \rangle", "∠ △ ⊥ ∥ ⟨〈 ⟩〉"),
        (r"\lfloor \rfloor \lceil \rceil \circ \varphi \vartheta", "⌊ ⌋ ⌈ ⌉ ∘ ϕ ϑ"),
    )
    for command, characters in zip(command.split(), characters.split(), strict=True)
}
SYMBOLS = {
    character: f"{command} " for command, characters in COMMANDS.items() for character in characters
}
SYMBOLS |= dict.fromkeys("°º˚", r"^\circ ")
SYMBOLS |= {"−": "-", "／": "/", "∶": ":", "、": ",", "。": ".", "′": "'", "’": "'"}
SYMBOLS |= {"【": "", "】": "", "＄": r"\$", "％": r"\%", "｛": r"\{", "｝": r"\}"}
"""What Unicode's own data does not say: the command for a symbol."""
RELATIONS = {"LESS-THAN OR": r"\le ", "LESS-THAN OVER EQUAL": r"\le "}
RELATIONS |= {"GREATER-THAN OR": r"\ge ", "GREATER-THAN OVER EQUAL": r"\ge "}
CATEGORIES = {"Pd": "-", "Zs": " ", "Cf": ""}
"""Dashes, spaces, and what is not seen."""
SCRIPTS = {"<super": "^", "<sub": "_"}
ROOTS = {"√": r"\sqrt", "∛": r"\sqrt[3]", "∜": r"\sqrt[4]"}
FRACTION = "\N{FRACTION SLASH}"
UNICODE = Rules(
    (rf"\^\{{(\d+)\}}{FRACTION}_\{{(\d+)\}}|(?<!\d)(\d+){FRACTION}(\d+)", lambda m: _fraction(m)),
    (FRACTION, "/"),
    (r"([√∛∜])\s*([-+]?\d+(?:\.\d+)?|[a-zA-Z])", lambda m: f"{ROOTS[m[1]]}{{{m[2]}}}"),
    (r"[√∛∜]", lambda m: f"{ROOTS[m[0]]} "),
    (r"([\^_])\{(\w)\}", r"\1\2"),
)


def as_latex(text: str) -> str:
    r"""The text in ASCII and LaTeX commands as far as Unicode's own data tells.

    Superscripts and subscripts by their decomposition (`x⁻²` is `x^{-2}`), vulgar fractions as \frac, Greek and
    double-struck letters by their names, dashes and spaces by their category, a root's sign with the number or
    letter behind it; all else by NFKC (full-width forms, letters of mathematical alphabets).
    """
    if text.isascii():
        return text
    runs = groupby(text, _script)
    return UNICODE.applied("".join(_run(script, "".join(run)) for script, run in runs))


def _run(script: str, run: str) -> str:
    characters = "".join(map(_character, run))
    return f"{script}{{{characters}}}" if script else characters


@cache
def _script(character: str) -> str:
    """^ or _ for a superscript or subscript; the ordinal indicator º is a degree sign."""
    tag = unicodedata.decomposition(character).partition(">")[0]
    return "" if character in SYMBOLS else SCRIPTS.get(tag, "")


@cache
def _character(character: str) -> str:
    if character in SYMBOLS:
        return SYMBOLS[character]
    if unicodedata.decomposition(character).startswith("<fraction>"):
        over, _, under = unicodedata.normalize("NFKC", character).partition(FRACTION)
        return rf"\frac{{{over}}}{{{under}}}" if over and under else character
    name = unicodedata.name(character, "")
    if match := re.fullmatch(r"DOUBLE-STRUCK CAPITAL ([A-Z])", name):
        return rf"\mathbb{{{match[1]}}}"
    plain = unicodedata.normalize("NFKC", character)
    if plain != character:
        return "".join(map(_character, plain))
    if match := re.fullmatch(r"GREEK (SMALL|CAPITAL) LETTER ([A-Z]+)", name):
        letter = match[2].replace("LAMDA", "LAMBDA").lower()
        return rf"\{letter.capitalize() if match[1] == 'CAPITAL' else letter} "
    relation = (command for start, command in RELATIONS.items() if name.startswith(start))
    return next(relation, CATEGORIES.get(unicodedata.category(character), character))


def _fraction(match: re.Match[str]) -> str:
    return rf"\frac{{{match[1] or match[3]}}}{{{match[2] or match[4]}}}"


# -- LaTeX ----------------------------------------------------------------------------------------

SIZES = "tiny|scriptsize|footnotesize|small|normalsize|large|Large|LARGE|huge|Huge"
STYLES = r"(?:display|text|script|scriptscript)style|(?:no)?limits|bfseries|itshape|(?:un)?boldmath"
INVISIBLE = (
    "(?:math)?strut|null|relax|allowbreak|nobreak|noindent|centering|hfill|(?:big|med|small)skip|selectfont"
    "|nonumber|notag|qed(?:here)?|blacksquare|checkmark|therefore"
)
WRAPPERS = (
    "math(?:normal|ord|op|open|close|rel|bin|inner|larger|smaller)|ensuremath|smash|uline|underline|fbox"
    "|framebox"
)
CELL = (
    "(?:array|aligned|align|gathered|gather|split|equation|displaymath|math|center|multline|cases|matrix"
    "|tabular)"
)
TYPESETTING = Rules(
    (rf"\\(?:{SIZES}|{STYLES}|{INVISIBLE}|{WRAPPERS})(?![a-zA-Z])\*?\s*", ""),
    (r"\\(?:(?:text|page|math)?color|colorbox)\s*(?:\[[^\]]*\])?\s*\{[^{}]*\}\s*", ""),
    (
        r"\\fcolorbox\s*\{[^{}]*\}\s*\{[^{}]*\}\s*|\\rule\s*(?:\[[^\]]*\])?\{[^{}]*\}\s*\{[^{}]*\}",
        "",
    ),
    (r"\\(?:tag\*?|label|raisebox|scalebox)\s*\{[^{}]*\}\s*|\\bbox\s*\[[^\]]*\]\s*", ""),
    (r"\\fontsize\s*\{[^{}]*\}\s*\{[^{}]*\}\s*", ""),
    (r"\\(?:m?kern|[hvm]skip)\s*-?[\d.]+\s*(?:pt|em|ex|mu|cm|mm|in)(?![a-zA-Z])", " "),
    (r"\\(?:[hv]space\*?|[hv]?phantom)\s*\{[^{}]*\}", " "),
    needs="\\",
)
"""Sizes, styles, colours, struts and spaces: what they hold stays."""
ENVIRONMENTS = Rules(
    (
        rf"\\begin\s*\{{({CELL}\*?)\}}(?:\s*\{{[^{{}}]*\}})?((?:(?!\\\\|\\cr\b|\\begin|\\end).)*)"
        r"\\end\s*\{\1\}",
        lambda m: m[2].strip(" &") if m[1] == "array" else m[2].replace("&", ""),
    ),
    needs=r"\begin",
)
"""An environment of one cell is its content."""


def typeset(text: str) -> str:
    """The text without what only changes how it looks, its characters as LaTeX."""
    text = re.sub(r"\s+", " ", as_latex(text))
    return ENVIRONMENTS.applied(TYPESETTING.applied(text))
