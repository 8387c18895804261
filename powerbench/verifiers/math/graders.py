"""The graders of mathematical answers: what runs in the worker processes.

They may take forever or all memory, and may print: they are for a process that can be killed.
"""

import re
from functools import cache, lru_cache
from importlib.metadata import version
from typing import Any

from powerbench.types import Score
from powerbench.verifiers.math.notation import (
    Collection,
    Rules,
    clean,
    collection,
    is_text,
    numeral,
    without_names,
    words,
)
from powerbench.verifiers.math.units import conflict, quantity

TEXT = "text"
"""What decides where no grader is needed: the answers as text."""

PARSED = 4096
"""Expressions kept parsed in a process, gold answers among them."""

UNBOUNDED = re.compile(r"\[-?\\infty|\\infty\]")
"""An interval closed at infinity, which is none."""

DIGITS = 50
"""Decimal digits to which expressions must agree where they are only evaluated."""


def official(gold: str, answer: str) -> Score:
    """As the PRM800K grader scores (Lightman et al. 2023, arXiv 2305.20050), answers untouched."""
    from tinker_cookbook.recipes.math_rl.math_grading import grade_answer

    same = bool(grade_answer(answer, gold))
    return _score(same, by=f"{_package('tinker-cookbook')} (PRM800K grader)")


def default(gold: str, answer: str) -> Score:
    """Whether two answers are the same for a careful reader: as text, or else as math-verify sees it."""
    return equal(clean(gold), clean(answer))


def equal(gold: str, answer: str) -> Score:
    """The same for cleaned answers, and for the items of tuples, sets and lists."""
    if gold == answer:
        return _score(True, "same text")
    if UNBOUNDED.search(answer) and not UNBOUNDED.search(gold):
        return _score(False, "closed at infinity")
    gold, answer = without_names(gold, answer)
    golds, answers = collection(gold), collection(answer)
    if len(golds.items) > 1 and len(answers.items) > 1:
        return _collections(golds, answers)
    if len(golds.items) > 1 or len(answers.items) > 1:
        return _expressions(_whole(gold, golds), _whole(answer, answers))
    return _single(golds.items[0], answers.items[0])


def _score(same: bool, reason: str = "", by: str = TEXT) -> Score:
    return Score(correct=same, reason=reason or ("equal" if same else "not equal"), by=by)


@cache
def _package(name: str) -> str:
    return f"{name} {version(name)}"


# -- text -----------------------------------------------------------------------------------------


def _collections(gold: Collection, answer: Collection) -> Score:
    """Item by item: in their order within ( ) and [ ], in any order in sets and bare lists."""
    if gold.brackets != answer.brackets:
        return _score(False, "different brackets")
    if len(gold.items) != len(answer.items):
        return _score(False, "not as many items")
    left, by = list(answer.items), TEXT
    for item in gold.items:
        for candidate in left[:1] if gold.brackets else tuple(left):
            score = equal(item, candidate)
            by = score.by if by == TEXT else by
            if score.correct:
                left.remove(candidate)
                break
        else:
            return _score(False, by=by)
    return _score(True, by=by)


def _single(gold: str, answer: str) -> Score:
    golds, answers = quantity(gold), quantity(answer)
    units = (golds.unit, answers.unit)
    if conflict(*units):
        return _score(False, "different units")
    gold, answer = golds.value, answers.value
    if gold == answer:
        return _score(True, "same text")
    numerals = numeral(gold), numeral(answer)
    if any(numerals):  # math-verify reads 445_6 as 445
        return _score((numerals[0] or (gold, "10")) == (numerals[1] or (answer, "10")))
    if is_text(gold) or is_text(answer) or {"am^1", "pm^1"} & set(units):
        return _words(gold, answer)
    if parsed(gold) is None:
        return _words(gold, answer)
    score = _expressions(parsed(gold), parsed(answer))
    if score.correct is False and units.count("percent^1") == 1:
        gold, answer = (
            rf"\frac{{{q.value}}}{{100}}" if q.unit else q.value for q in (golds, answers)
        )
        return _expressions(parsed(gold), parsed(answer))
    return score


def _words(gold: str, answer: str) -> Score:
    same = words(gold) == words(answer)
    return _score(same, "same words" if same else "different words")


# -- expressions ----------------------------------------------------------------------------------

SPELLING = Rules(
    (
        r"(\d*)\.(\d*)\\(?:overline|bar|dot)\{?(\d+)\}?",
        lambda match: _repeating(*match.groups()),
    ),
    (r"(\d\.\d+)[eE]([+-]?\d+)", r"\1\\cdot10^{\2}"),
    (r"\*\*", "^"),
    (r"\w+(?:\^\w+){2,}", lambda match: _tower(*match[0].split("^"))),
    (r"(\^?)(\d*)\.(\d+)", lambda match: _decimal(*match.groups())),
    (r"(\d) (\d+)/(\d+)(?!\d)", r"\1\\frac{\2}{\3}"),
    (r"\^-(\d+)", r"^{-\1}"),
    (r"\\frac ?(\d) ?(\d)", r"\\frac{\1}{\2}"),
    (r"\{?(\w+) ?\\choose(?![a-zA-Z]) ?(\w+)\}?", r"\\binom{\1}{\2}"),
    # products that would be read as mixed numbers, and added up
    (r"(?<![\d_^])(\d+) ?(?=\(|\\binom)", r"\1\\cdot"),
    (r"(\\frac\{[^{}]*\}\{[^{}]*\}) ?(?=\d|\\frac)", r"\1\\cdot "),
    (r"\)(?=[\d(])", r")\\cdot"),
    (r"\\text\{degrees\}", r"\\cdot\\frac{\\pi}{180}"),
    (r"(?<![\\a-zA-Z_])i(?![a-zA-Z])", r"\\sqrt{-1}"),
)


@lru_cache(PARSED)
def parsed(text: str) -> Any:
    """The sympy object that a cleaned answer spells, decimals as fractions; None if it spells none."""
    from latex2sympy2_extended import NormalizationConfig, latex2sympy

    text = SPELLING.applied(text)
    if re.search(r"(?<![\d_^])\d+ \d", text):  # would be added up too
        return None
    config = NormalizationConfig(units=False, malformed_operators=True, boxed="none")
    try:
        return latex2sympy(text, is_real=True, normalization_config=config)
    except (MemoryError, RecursionError):
        raise
    except Exception:  # what it raises for a text that it cannot read
        return None


def _whole(text: str, parts: Collection) -> Any:
    """The object that several items stand for: conditions and intervals in a list are a union."""
    from sympy import Set, Union
    from sympy.logic.boolalg import Boolean

    if parts.brackets or len(parts.items) == 1:
        return parsed(text)
    objects = [parsed(item) for item in parts.items]
    symbols = set().union(*(part.free_symbols for part in objects if part is not None))
    if not all(isinstance(part, Set | Boolean) for part in objects) or len(symbols) > 1:
        return None
    return Union(*(part.as_set() if isinstance(part, Boolean) else part for part in objects))


def _expressions(gold: Any, answer: Any) -> Score:
    """As math-verify sees two sympy objects; whatever it raises is for the caller."""
    from math_verify import verify

    by = _package("math-verify")
    if gold is None or answer is None:
        return _score(False, "not an expression", by)
    same = verify(
        gold,
        answer,
        numeric_precision=DIGITS,
        allow_set_relation_comp=True,
        timeout_seconds=None,
        raise_on_error=True,
    )
    return _score(same, by=by)


def _tower(*levels: str) -> str:
    return "^{".join(levels) + "}" * (len(levels) - 1)


def _decimal(power: str, whole: str, part: str) -> str:
    fraction = rf"\frac{{{int(whole + part)}}}{{{10 ** len(part)}}}"
    return f"^{{{fraction}}}" if power else fraction


def _repeating(whole: str, part: str, period: str) -> str:
    less = int(whole + part or "0")
    ninths = 10 ** len(part) * (10 ** len(period) - 1)
    return rf"\frac{{{int(whole + part + period) - less}}}{{{ninths}}}"
