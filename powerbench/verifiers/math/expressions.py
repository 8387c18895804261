r"""Answers as sympy objects: what latex2sympy reads, and whether two of them are equal."""

import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import product
from typing import Any

from powerbench.verifiers.math.notation import CONDITION, OR, Collection
from powerbench.verifiers.typesetting import Rules

PARSED = 4096
"""Expressions kept parsed in a process, gold answers among them."""

DIGITS = 50
"""Decimal digits to which expressions with variables must agree where they are only evaluated."""

CERTAIN = 500
"""Decimal digits to which constants are calculated that are no fractions, before they are taken for equal."""

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
    from latex2sympy2_extended.latex2sympy2 import ConversionConfig

    text = SPELLING.applied(text)
    if re.search(r"(?<![\d_^])\d+ \d", text):  # would be added up too
        return None
    config = NormalizationConfig(units=False, malformed_operators=True, boxed="none")
    letters = ConversionConfig(lowercase_symbols=False)
    try:
        return latex2sympy(
            text, is_real=True, normalization_config=config, conversion_config=letters
        )
    except (MemoryError, RecursionError):
        raise
    except Exception:  # what it raises for a text that it cannot read
        return None


def union(text: str, parts: Collection) -> Any:
    """The object that several items stand for.

    Intervals, and conditions with `or`, are a union; other conditions hold together, if they can.
    """
    from sympy import Intersection, Set, Union
    from sympy.logic.boolalg import Boolean

    if parts.brackets or len(parts.items) == 1:
        return parsed(text)
    items = list(parts.items)
    if unequal := UNEQUAL.match(items[0]):  # of each item, in `x \\ne 1, 2`
        items = [item if CONDITION.search(item) else f"{unequal[0]}{item}" for item in items]
    objects = [parsed(item) for item in items]
    symbols = set().union(*(part.free_symbols for part in objects if part is not None))
    if not all(isinstance(part, Set | Boolean) for part in objects) or len(symbols) > 1:
        return None
    sets = [part.as_set() if isinstance(part, Boolean) else part for part in objects]
    if not OR.search(text) and any(isinstance(part, Boolean) for part in objects):
        together = Intersection(*sets)
        if not together.is_empty:
            return together
    return Union(*sets)


UNEQUAL = re.compile(r"[a-zA-Z]\\neq?(?![a-zA-Z]) ?")


def approximates(rough: str, exact: str) -> bool:
    """Whether a decimal is the other's value, to its last digit."""
    decimal = re.fullmatch(r"-?(?=\.?\d)\d*\.?(\d*)", rough)
    value = parsed(exact)
    if decimal is None or not getattr(value, "is_number", False) or not value.is_finite:
        return False
    return bool(abs(parsed(rough) - value).evalf() <= 10.0 ** -len(decimal[1]))


# -- equality -------------------------------------------------------------------------------------


def same(gold: Any, answer: Any) -> bool:
    """Whether two sympy objects are equal.

    Constants are calculated, exactly or to `CERTAIN` digits; roots of variables are compared where both
    sides are defined; everything else is as math-verify sees it, but for the case of names.
    """
    from math_verify import verify
    from sympy import Expr, Symbol

    if isinstance(gold, Symbol) and isinstance(answer, Symbol):
        return bool(gold == answer)
    expressions = isinstance(gold, Expr) and isinstance(answer, Expr)
    if expressions and not gold.free_symbols and not answer.free_symbols:
        decided = _same_constant(gold, answer)
        if decided is not None:
            return decided
    equal: bool = verify(
        gold,
        answer,
        numeric_precision=DIGITS,
        allow_set_relation_comp=True,
        timeout_seconds=None,
        raise_on_error=True,
    )
    if expressions and gold.free_symbols and gold.free_symbols == answer.free_symbols:
        if equal:
            return _agrees(gold, answer)
        return (_has_roots(gold) or _has_roots(answer)) and _same_where_defined(gold, answer)
    return equal


def _same_constant(gold: Any, answer: Any) -> bool | None:
    """For constants of which neither is a number as it stands; None if they cannot be calculated."""
    from sympy import Number

    if isinstance(gold, Number) or isinstance(answer, Number):
        return None
    values = gold.evalf(15), answer.evalf(15)
    if not all(value.is_Float for value in values):
        return None
    if abs(values[0] - values[1]) > 1e-9 * max(map(abs, values)):
        return False
    gold, answer = gold.doit(), answer.doit()
    if gold == answer or (gold.is_Rational and answer.is_Rational):
        return bool(gold == answer)
    difference = (gold - answer).evalf(2, maxn=CERTAIN)
    return bool(difference == 0 or difference._prec == 1) if difference.is_Float else None


def _agrees(gold: Any, answer: Any) -> bool:
    """Whether they are equal at one point, as far as that can be calculated: terms below 1e-50 count there."""
    from sympy import Derivative, Limit
    from sympy.concrete.expr_with_limits import ExprWithLimits

    if any(expression.has(ExprWithLimits, Derivative, Limit) for expression in (gold, answer)):
        return True
    values = [expression.subs(_point(gold)).doit() for expression in (gold, answer)]
    return values[0] == values[1] or _same_constant(*(value + 0 for value in values)) is not False


def _point(expression: Any, signs: Sequence[int] = ()) -> dict[Any, Any]:
    """A positive fraction for each variable, times its sign."""
    from sympy import Rational, prime

    symbols = sorted(expression.free_symbols, key=str)
    signs = signs or (1,) * len(symbols)
    fractions = (Rational(prime(i + 3), 4) for i in range(len(symbols)))
    return {s: sign * f for s, sign, f in zip(symbols, signs, fractions, strict=True)}


def _has_roots(expression: Any) -> bool:
    from sympy import Pow

    powers = expression.atoms(Pow)
    return any(p.base.free_symbols and p.exp.is_Rational and not p.exp.is_Integer for p in powers)


def _same_where_defined(gold: Any, answer: Any) -> bool:
    r"""Whether two expressions are equal for positive variables, and wherever else both are real.

    So `x\sqrt{x}` is `\sqrt{x^3}`, and `\sqrt{x^2}` is not `x`.
    """
    from sympy import Dummy, simplify

    symbols = sorted(gold.free_symbols, key=str)
    positive = {symbol: Dummy(symbol.name, positive=True) for symbol in symbols}
    if simplify(gold.subs(positive) - answer.subs(positive)) != 0:
        return False
    for signs in product((1, -1), repeat=len(symbols)):
        values = [e.subs(_point(gold, signs)).evalf(15) for e in (gold, answer)]
        if all(value.is_real for value in values) and abs(values[0] - values[1]) > 1e-9:
            return False
    return True


def _tower(*levels: str) -> str:
    return "^{".join(levels) + "}" * (len(levels) - 1)


def _decimal(power: str, whole: str, part: str) -> str:
    fraction = rf"\frac{{{int(whole + part)}}}{{{10 ** len(part)}}}"
    return f"^{{{fraction}}}" if power else fraction


def _repeating(whole: str, part: str, period: str) -> str:
    less = int(whole + part or "0")
    ninths = 10 ** len(part) * (10 ** len(period) - 1)
    return rf"\frac{{{int(whole + part + period) - less}}}{{{ninths}}}"
