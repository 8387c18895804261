r"""One spelling for equal answers: cheap enough for any process, where graders need one that can be killed."""

import re
from fractions import Fraction
from math import gcd

from powerbench.verifiers.math.cleaning import clean, is_text, words
from powerbench.verifiers.math.notation import (
    NAMED,
    chain,
    clock,
    collection,
    conditions,
    has_names,
    ratio,
    scientific,
    unpacked,
)
from powerbench.verifiers.math.units import quantity

LONG = 400
"""Characters beyond which an answer is taken as it is: what is cheap stays so."""
POWER = 100
"""The largest power of ten that is calculated."""
SHORT_FRACTION = re.compile(r"\\frac(\d)(\d)")
FRACTION = r"(?:\\frac)?\{?(?P<over>\d+)(?:/|\}\{)(?P<under>\d+)\}?"
NUMBER = re.compile(
    rf"(?P<minus>-?)(?:(?P<decimal>\d+\.?\d*|\.\d+)|(?P<whole>\d+ ?(?=\\)|\d+ )?{FRACTION})"
    r"(?:\\(?:cdot|times) ?10\^(?:\{(?P<power>-?\d+)\}|(?P<digit>\d)))?"
)


def canonical(answer: str) -> str:
    r"""One spelling for most of the answers that a careful reader takes for equal.

    As `cleaning.clean`, without `x =` and without units; integers, decimals, fractions, mixed numbers and
    powers of ten as fractions in lowest terms, ratios in lowest terms; words and bare letters in lower case;
    the items of sets and bare lists in order; of equal parts (`7/4 = 1.75`) one. Nothing else is calculated:
    `\sqrt{4}` stays what it is. Answers that differ in their units alone become equal.
    """
    if len(answer) > LONG:
        return " ".join(answer.split())
    text = unpacked(scientific(clean(answer), ""))
    named = NAMED.fullmatch(text)
    if named and not has_names(collection(text).items):
        text = named["value"]
    text = conditions(text)
    if said := chain(text):
        parts = {canonical(part) for part in said.exact}
        if len(parts) == 1:
            return parts.pop()
    items = collection(text)
    spelt = [_spelt(_unnamed(item, items.items)) for item in items.items]
    if not items.brackets:
        spelt.sort()
    return f"{items.opening}{','.join(spelt)}{items.closing}"


def _unnamed(item: str, items: tuple[str, ...]) -> str:
    """The item without a name, if that does not tell it from the others."""
    named = None if has_names(items) else NAMED.fullmatch(item)
    return named["value"] if named else item


def _spelt(item: str) -> str:
    if is_text(item):
        return words(item)
    if item.isalpha():  # of two capitals, as AB, both count
        return item if len(item) == 2 and item[1].isupper() else words(item)
    item = quantity(item).value or item
    terms = ratio(item)
    if len(terms) > 1 and all(term.isdecimal() for term in terms) and not clock(item):
        divisor = gcd(*map(int, terms)) or 1
        return ":".join(str(int(term) // divisor) for term in terms)
    return _number(item) or item


def _number(item: str) -> str | None:
    """A number as a fraction in lowest terms; None for anything else."""
    number = NUMBER.fullmatch(SHORT_FRACTION.sub(r"\\frac{\1}{\2}", item))
    if number is None:
        return None
    value, under = Fraction(number["decimal"] or number["over"]), int(number["under"] or 1)
    power = int(number["power"] or number["digit"] or 0)
    if under == 0 or abs(power) > POWER:
        return None
    value = (value / under + int(number["whole"] or 0)) * Fraction(10) ** power
    return str(-value if number["minus"] else value)
