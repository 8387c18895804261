r"""The parts of a cleaned answer that count, told apart: names, bases, times, ratios, items, equal parts.

Every function only splits text; what the parts mean is for the graders.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from math import gcd
from typing import NamedTuple

from powerbench.verifiers.math.cleaning import TOKEN, enclosed

# -- names ----------------------------------------------------------------------------------------

LETTERS = r"\([a-zA-Z](?:,[a-zA-Z])*\)"
NAME = (
    r"\\text\{[^{}]*\}|\\(?:overline|vec)\{\w+\}|\\angle ?[A-Z]+|m\\angle ?[A-Z]+"
    r"|\\\|[^|=]+\\\||\|[^|=]+\||\\?[a-zA-Z]+(?:_(?:\w|\{\w+\}))?'*(?:\([^()]*\)|\[[^\[\]]*\])"
    rf"|\\?[a-zA-Z]+(?:_(?:\w|\{{\w+\}}))?'*|{LETTERS}"
)
NAMED = re.compile(rf"(?P<name>{NAME})(?:=|\\in(?![a-zA-Z]))(?P<value>.+)")


class Pair(NamedTuple):
    gold: str
    answer: str


def without_names(gold: str, answer: str) -> Pair:
    r"""The answers without `x =`, `f(x) =`, `P(A \cap B) =` or `x \in`, if both have the same, or one has none.

    A list in which later items have names too, as `a = 1, b = 2`, keeps them all.
    """
    named = [_named(gold), _named(answer)]
    if named[0] and named[1]:
        if named[0]["name"] == named[1]["name"]:
            return Pair(named[0]["value"], named[1]["value"])
    elif named[0] and "=" not in answer:
        return Pair(named[0]["value"], answer)
    elif named[1] and "=" not in gold:
        return Pair(gold, named[1]["value"])
    return Pair(gold, answer)


def _named(text: str) -> re.Match[str] | None:
    match = NAMED.fullmatch(text)
    if (
        match
        and len(list(_items(text))) > 1
        and ("=" in match["value"] or CONDITION.search(match["value"]))
    ):
        return None
    return match


def unpacked(text: str) -> str:
    """`(a,b)=(1,2)` as `a=1,b=2`; anything else as it is."""
    match = NAMED.fullmatch(text)
    if match is None or not re.fullmatch(LETTERS, match["name"]):
        return text
    names, values = match["name"][1:-1].split(","), collection(match["value"])
    if values.brackets != "()" or len(names) != len(values.items):
        return text
    return ",".join(f"{name}={value}" for name, value in zip(names, values.items, strict=True))


def has_names(items: Sequence[str]) -> bool:
    """Whether each item has a name of its own, so that their order says which value is whose."""
    named = [NAMED.fullmatch(item) for item in items]
    names = {match["name"] for match in named if match}
    return len(names) == len(items) > 1


# -- numbers --------------------------------------------------------------------------------------

BASED = re.compile(r"\(?(?P<digits>-?\d\w*?)\)?_(?:(?P<digit>\d)|\{(?P<base>\d+)\})")
TIME = re.compile(
    r"(?P<hours>\d{1,2})(?=[:\\])(?::(?P<minutes>[0-5]\d))?(?:\\text\{(?P<half>[apAP])\.?[mM]\.?\})?"
)
SCIENTIFIC = re.compile(r"(?<![\w.])(\d+\.?\d*|\.\d+)[eE]\+?(-?\d+)(?![\w.^])")


class Numeral(NamedTuple):
    digits: str
    base: str


def numeral(text: str) -> Numeral | None:
    """A number with an explicit base, as 445_6; None for anything else."""
    match = BASED.fullmatch(text)
    if match is None:
        return None
    return Numeral(match["digits"].lower(), match["digit"] or match["base"])


class Time(NamedTuple):
    minutes: int
    """Since midnight or, without a half of the day, since midnight or noon."""
    half: str
    """a or p, as in a.m. and p.m.; empty for none."""
    certain: bool
    """It is no ratio: it has a half of the day, or minutes below ten."""
    lowest: bool
    """It would be a ratio in lowest terms."""


def clock(text: str) -> Time | None:
    """A time of the day, as `4:30` or `4:30 p.m.`, which may be a ratio; None for anything else."""
    match = TIME.fullmatch(text)
    if match is None or int(match["hours"]) > 24:
        return None
    hours, minutes, half = int(match["hours"]), match["minutes"] or "00", match["half"] or ""
    certain = bool(half) or minutes.startswith("0")
    lowest = gcd(hours, int(minutes)) == 1
    return Time(60 * hours + int(minutes), half.lower(), certain, lowest)


def same_time(gold: str, answer: str) -> bool | None:
    """Whether two times of the day are equal, one without its half to either; None if they may be ratios."""
    times = clock(gold), clock(answer)
    if not (times[0] and (times[0].certain or not times[0].lowest)) and not (
        times[1] and times[1].certain
    ):
        return None
    if times[0] is None or times[1] is None:
        return False
    on_dial = [time.minutes % (12 * 60) for time in times if time]
    halves = {time.half or "ap"[time.minutes >= 12 * 60] for time in times if time and _half(time)}
    return on_dial[0] == on_dial[1] and len(halves) < 2


def _half(time: Time) -> bool:
    """Whether its half of the day is known: by its letter, or past 12:59."""
    return bool(time.half) or time.minutes >= 13 * 60


def ratio(text: str) -> tuple[str, ...]:
    """The terms of a ratio, as 1:2:3; one term for anything else."""
    return tuple(_split(text, lambda token: token[0] == ":"))


def scientific(text: str, other: str) -> str:
    r"""3e8 as 3\cdot10^{8}; not where the other answer has Euler's number: `3e-1` may hold it too."""
    if re.search(r"(?<![a-zA-Z\\])e(?![a-zA-Z])", SCIENTIFIC.sub("", other)):
        return text
    return SCIENTIFIC.sub(r"\1\\cdot10^{\2}", text)


# -- sets and chains ------------------------------------------------------------------------------

BUILDER = re.compile(
    r"\\\{(?P<name>[a-zA-Z])(?:\\in ?(?:\\mathbb\{R\}|(?P<domain>[(\[][^()\[\]]*[)\]])))?"
    r"(?:\\mid(?![a-zA-Z])|\\vert(?![a-zA-Z])|[:|]) ?(?P<condition>.*(?P=name).*)\\\}"
)
AND = r"(?:[,;]|\\text\{and\})"
REAL = r"[a-zA-Z]\\in ?\\mathbb\{R\}"
SAID = re.compile(rf"{AND} ?{REAL}$|^{REAL}{AND}")
"""That a variable is real, which is understood."""
CONDITION = re.compile(r"[<>]|\\(?:[lg]eq?(?:slant)?|[lg]t|neq?)(?![a-zA-Z])")
OR = re.compile(r"\\text\{ ?,?or ?\}|(?<![\\a-zA-Z])or(?![a-zA-Z])")
VARIABLE = re.compile(r"(?<![a-zA-Z])(?![ei](?![a-zA-Z]))[a-zA-Z]")


def conditions(text: str) -> str:
    r"""`\{x \mid x > 2\}` as `x > 2`, for real x; anything else as it is."""
    sets = [BUILDER.fullmatch(each) for each in re.split(r"\\cup ?", text)]
    found = [_condition(match) for match in sets if match]
    text = r"\text{or}".join(found) if len(found) == len(sets) else text
    return SAID.sub("", text) if CONDITION.search(text) else text


def _condition(builder: re.Match[str]) -> str:
    domain = f"{builder['domain']}," if builder["domain"] else ""
    return f"{domain}{builder['condition']}"


def has_conditions(items: Sequence[str]) -> bool:
    return all(CONDITION.search(item) for item in items)


def has_letters(text: str) -> bool:
    return VARIABLE.search(text) is not None


class Chain(NamedTuple):
    """An answer that is said more than once: `14/8 = 7/4 = 1.75`, `7/4 or 1.75`."""

    exact: tuple[str, ...]
    """What has no variables, if anything does not."""
    rough: tuple[str, ...]
    r"""What stands behind \approx."""
    alternatives: bool
    """Some are joined by `or`, and may be several answers."""


def chain(text: str) -> Chain | None:
    r"""The parts between `=`, `\approx` and `or`; None for a list, a single equation, and anything else."""
    relations, start, depth = [""], 0, 0
    parts = []
    for token in TOKEN.finditer(text):
        depth += bool(token["open"]) - bool(token["close"])
        if depth == 0 and (token["relation"] or token["between"]):
            if token["between"] and not OR.search(token["between"]):
                return None
            relations.append(token["relation"] or "or")
            parts.append(text[start : token.start()].strip())
            start = token.end()
    parts.append(text[start:].strip())
    if relations.count("=") == len(relations) - 1 < 2:
        return None
    found = [(r, p) for r, p in zip(relations, parts, strict=True) if p]
    exact = [part for relation, part in found if relation != r"\approx"]
    if "=" in relations or r"\approx" in relations:
        exact = [part for part in exact if not VARIABLE.search(re.sub(WORD, "", part))]
    rough = tuple(part for relation, part in found if relation == r"\approx")
    return Chain(tuple(exact), rough, "or" in relations) if exact else None


WORD = r"\\text\{[^{}]*\}|\\[a-zA-Z]+"


# -- collections ----------------------------------------------------------------------------------

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
    match = BRACKETS.fullmatch(text) if enclosed(text) else None
    inside = match["inside"] if match else text
    items = tuple(signed for item in _items(inside) for signed in _signs(item))
    if match is None or (len(items) < 2 and match["opening"] in "(["):
        return Collection("", items, "")
    return Collection(match["opening"], items, match["closing"])


def _items(text: str) -> Iterator[str]:
    return _split(text, lambda token: bool(token["between"]))


def _split(text: str, separates: Callable[[re.Match[str]], bool]) -> Iterator[str]:
    """The parts between the tokens outside all brackets that separate."""
    depth = start = 0
    for token in TOKEN.finditer(text):
        depth += bool(token["open"]) - bool(token["close"])
        if depth == 0 and separates(token):
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
