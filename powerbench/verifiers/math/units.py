r"""Quantities: an answer's value and its unit, told apart. Only text is split; values are for the graders."""

import re
from typing import NamedTuple

SYNONYMS = (
    "mm millimeter millimetre",
    "cm centimeter centimetre",
    "m meter metre",
    "km kilometer kilometre",
    "in inch inche",
    "ft foot feet",
    "yd yard",
    "mi mile",
    "s sec second",
    "min minute",
    "h hr hour",
    "day",
    "week",
    "month",
    "yr year",
    "am",
    "pm",
    "mg milligram",
    "g gram",
    "kg kilogram",
    "lb pound",
    "oz ounce",
    "ml milliliter millilitre",
    "l liter litre",
    "gal gallon",
    "¢ cent",
    "$ dollar usd",
    "€ euro eur",
    "£",
    "degree deg",
    "radian rad",
    "n newton",
    "j joule",
    "w watt",
    "hz hertz",
    "mol mole",
    "percent",
)
UNITS = {synonym: line.split()[0] for line in SYNONYMS for synonym in line.split()}
POWERS = {"square": 2, "sq": 2, "squared": 2, "cubic": 3, "cu": 3, "cubed": 3}
SCALES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
UNNAMED = "thing"
"""The unit of what is counted: apples, students, units."""

PLAIN = "mm cm km kg mg ml mph ft hr cent dollar percent degree meter inche feet mile hour minute second"
"""Units that are told from variables without \\text."""

UNIT = re.compile(
    r"(?P<unit>(?:(?:/|\\cdot)?\\text\{[^{}]*\}(?:\^\{?-?\d\}?)?)+"
    r"|(?:(?<=[\d)}])| )(?:(?:square|sq|cubic|cu)\.? )?"
    rf"(?:{'|'.join((*PLAIN.split(), *SCALES))})s?\.?(?:\^[23])?|¢)$"
)
CURRENCY = re.compile(r"(?P<minus>-?)(?P<sign>\\\$|[£€])(?P<value>.+)")
SENTENCE = re.compile(
    r"\b(?:or|and|if|when|not|no|nor|than|more|less|times|plus|minus|mod|choose|factorial|pi|dozen)\b"
    r"|\b(?:half|halves|third|quarter|fourth|fifth|sixth|eighth|tenth|hundredth)s?\b"
    r"|^\W*(?:squared\b|cubed\b|\d)|[,;=<>+]|(?<![a-z^{-])\d"
)
"""What may change the value."""


NEUTRAL = {"per", "of", "a", "an", "each", "in", "old", "long", "high", "men", "way", "us"}
"""Short words that a unit may hold."""
NO_UNIT = re.compile(
    r"am|pm|infinity|alpha|beta|gamma|delta|epsilon|theta|lambda|sigma|omega"
    r"|(?:arc)?(?:sin|cos|tan|cot|sec|csc|log|exp|sqrt)\w{0,2}"
)
"""Words that are mathematics, some without a space before their argument."""


def as_unit(match: re.Match[str]) -> str:
    r"""Plain words after a value as \text, if they read as a unit: known units, and words of four letters on.

    Single letters only in a fraction, as in `km/h`: others are variables. The match has the words and a power.
    """
    names = re.findall(r"[a-z]+", match[1].lower())
    fraction = "/" in match[1] or "per" in names
    for name in names:
        known = name in NEUTRAL or name in POWERS or name in SCALES or _known(name) is not None
        read = known and (len(name) > 1 or fraction)
        if (not read and (len(name) < 4 or NO_UNIT.fullmatch(name))) or name in ("am", "pm"):
            return match[0]
    return rf"\text{{{match[1].strip()}}}{match[2]}"


def _known(name: str) -> str | None:
    return UNITS.get(name) or UNITS.get(name.removesuffix("s"))


class Quantity(NamedTuple):
    value: str
    unit: str | None
    """In one spelling, as `cm^2` or `km^1 s^-1`; UNNAMED for what is counted; None for no unit."""


def quantity(text: str) -> Quantity:
    r"""The value and the unit of a cleaned answer: words after a value, or a currency's sign before it.

    A remark in parentheses is no unit, and is dropped. Words that may change the value ("or", "dozen", a
    number) and letters that may be variables (all outside \text) are none, and stay with the value.
    """
    if money := CURRENCY.fullmatch(text):
        text = f"{money['minus']}{money['value']}\\text{{{money['sign'][-1]}}}"
    match = UNIT.search(text)
    if match is None:
        return Quantity(text, None)
    value, unit = text[: match.start()], match["unit"].replace("\\text", " ").lower()
    unit = re.sub(r"\b(sq|cu)\.", r"\1 ", unit).replace(".", "").replace("mph", "mi/h")
    degrees_of = re.search(r"\\(?:sin|cos|tan|cot|sec|csc)(?![a-zA-Z])", value)
    if SENTENCE.search(unit) or degrees_of or re.search(r"[\w)}\]|!]$", value) is None:
        return Quantity(text, None)
    unit = re.sub(r"\([^()]*\)", "", unit)
    atoms = re.findall(r"[a-z]+|[$£€¢/]|\^\{?-?\d|\d", unit)
    if any(len(atom) == 1 and atom.isalpha() and atom not in UNITS for atom in atoms):
        return Quantity(text, None)
    for scale in set(atoms) & set(SCALES):
        atoms.remove(scale)
        value += rf"\cdot10^{{{SCALES[scale]}}}"
    return Quantity(value, _canonical(atoms))


def _canonical(atoms: list[str]) -> str | None:
    """The unit that these words, signs and powers spell."""
    powers: dict[str, int] = {}
    sign, power, last = 1, 1, ""
    for atom in atoms:
        if atom in ("per", "/"):
            sign = -1
        elif atom in ("squared", "cubed") and last:
            powers[last] *= POWERS[atom]
        elif atom in POWERS:
            power = POWERS[atom]
        elif atom[-1].isdigit() and last:
            powers[last] = sign * int(atom.strip("^{"))
        else:
            last = _known(atom) or UNNAMED
            powers[last] = sign * power
            power = 1
    if len(powers) > 1:
        powers.pop(UNNAMED, None)
    return " ".join(f"{name}^{powers[name]}" for name in sorted(powers)) or None


def conflict(gold: str | None, answer: str | None) -> bool:
    """Whether both units are given, and differ."""
    return None not in (gold, answer) and gold != answer
