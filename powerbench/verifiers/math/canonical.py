r"""One spelling for equal answers: cheap enough for any process, where graders need one that can be killed."""

import re
from fractions import Fraction

from powerbench.verifiers.math.cleaning import clean, is_text, words
from powerbench.verifiers.math.notation import NAMED, collection
from powerbench.verifiers.math.units import quantity

LONG = 400
"""Characters beyond which an answer is taken as it is: what is cheap stays so."""
SHORT_FRACTION = re.compile(r"\\frac(\d)(\d)")
NUMBER = re.compile(
    r"(?P<minus>-?)(?:(?P<decimal>\d+\.?\d*|\.\d+)|(?:\\frac)?\{?(?P<over>\d+)(?:/|\}\{)(?P<under>\d+)\}?)"
)


def canonical(answer: str) -> str:
    r"""One spelling for most of the answers that a careful reader takes for equal.

    As `cleaning.clean`, without `x =` and without units; integers, decimals and fractions as fractions in
    lowest terms; words and bare letters in lower case; the items of sets and bare lists in order. Nothing is
    calculated: `\sqrt{4}` stays what it is. Answers that differ in their units alone become equal.
    """
    if len(answer) > LONG:
        return " ".join(answer.split())
    text = clean(answer)
    named = NAMED.fullmatch(text)
    parts = collection(named["value"] if named else text)
    items = [_spelt(item) for item in parts.items]
    if not parts.brackets:
        items.sort()
    return f"{parts.opening}{','.join(items)}{parts.closing}"


def _spelt(item: str) -> str:
    if is_text(item) or item.isalpha():
        return words(item)
    item = quantity(item).value or item
    number = NUMBER.fullmatch(SHORT_FRACTION.sub(r"\\frac{\1}{\2}", item))
    if number is None:
        return item
    value, under = Fraction(number["decimal"] or number["over"]), int(number["under"] or 1)
    if under == 0:
        return item
    return str(-value / under if number["minus"] else value / under)
