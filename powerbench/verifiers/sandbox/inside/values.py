"""Values as bytes: all that passes between the tests and the program.

Plain values are written out and arrive equal to what they were: None, booleans, numbers (those of
numpy, `fractions` and `decimal` too), text, bytes, lists, tuples, sets, dictionaries and their views,
ranges, and subclasses of these as their base. Anything else stays where it is, and a number names it.
A list, set or dictionary is written once and then referred to: identity and cycles last, and what a
call did to its arguments can be written back.

The bytes may be an attacker's: reading them makes values of the types above, and runs nothing.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # `typing` would take as long to import as the interpreter to start
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any, TypeAlias

    Container: TypeAlias = list[object] | set[object] | dict[object, object]

SINGLETONS = {None: b"N", True: b"T", False: b"F", ...: b"E"}
CONTAINERS: dict[type, bytes] = {list: b"[", set: b"<", dict: b"{"}
BASES: tuple[Any, ...] = (int, float, complex, bytes, bytearray, tuple, list, frozenset, set, dict)
KEYS: type[Iterable[Any]] = type({}.keys())
ITEMS: type[Iterable[tuple[Any, Any]]] = type({}.items())


class Writer:
    """A message in the making."""

    def __init__(self, shared: list[Container], number: Callable[[object], int]) -> None:
        """`shared`: containers that the reader has. `number` names a value that cannot be written."""
        self.containers = list(shared)
        self._known = {id(container): k for k, container in enumerate(shared)}
        self._number = number
        self._parts: list[bytes] = []

    def message(self) -> bytes:
        return b"".join(self._parts)

    def write(self, x: object) -> None:
        kind = type(x)
        if x is None or x is True or x is False or x is ...:
            self._atom(SINGLETONS[x], b"")
        elif isinstance(x, int) and kind is int:
            self._atom(b"i", b"%x" % x)
        elif isinstance(x, float) and kind is float:
            self._atom(b"f", x.hex().encode())
        elif isinstance(x, str):
            self._atom(b"s", str.__str__(x).encode("utf-8", "surrogatepass"))
        elif isinstance(x, list | set | dict) and kind in CONTAINERS:
            if id(x) in self._known:
                self._atom(b"@", b"%x" % self._known[id(x)])
            else:
                self._known[id(x)] = len(self.containers)
                self.containers.append(x)  # which keeps it, and so its id, alive
                self.contents(x)
        elif isinstance(x, tuple) and kind is tuple:
            self._compound(b"(", x)
        elif isinstance(x, frozenset) and kind is frozenset:
            self._compound(b"z", x)
        else:
            self._rarer(x, kind)

    def contents(self, container: Container) -> None:
        """What is in a container, for a reader who has the container itself."""
        items = _flat(container.items()) if isinstance(container, dict) else container
        self._compound(CONTAINERS[type(container)], items)

    def _rarer(self, x: object, kind: type) -> None:
        if isinstance(x, complex) and kind is complex:
            self._compound(b"c", (x.real, x.imag))
        elif isinstance(x, bytes | bytearray) and kind in (bytes, bytearray):
            self._atom(b"b" if kind is bytes else b"a", bytes(x))
        elif isinstance(x, range):
            self._compound(b"r", (x.start, x.stop, x.step))
        elif isinstance(x, KEYS):
            self._compound(b"k", x)
        elif isinstance(x, ITEMS):
            self._compound(b"m", _flat(x))
        elif (rational := _rational(x)) is not None:
            self._compound(b"q", rational)
        elif (decimal := sys.modules.get("decimal")) and isinstance(x, decimal.Decimal):
            self._atom(b"d", str(x).encode())
        elif (base := _base(x)) is not x:
            self.write(base)
        else:
            self._atom(b"o", b"%x" % self._number(x))

    def _atom(self, tag: bytes, content: bytes) -> None:
        self._parts.append(b"%b%x;%b" % (tag, len(content), content))

    def _compound(self, tag: bytes, items: Iterable[object]) -> None:
        parts = list(items)
        self._parts.append(b"%b%x;" % (tag, len(parts)))
        for part in parts:
            self.write(part)


class Reader:
    """A message, read from its beginning. A malformed one raises an ordinary exception."""

    def __init__(
        self, message: bytes, shared: list[Container], named: Callable[[int], object]
    ) -> None:
        """`shared`: the containers that the writer began with. `named`: the value of a number."""
        self.containers = list(shared)
        self._message = message
        self._position = 0
        self._named = named

    def read(self) -> Any:
        tag, size = self._head()
        if tag in EMPTY:
            container = EMPTY[tag]()
            self.containers.append(container)
            self._fill(container, size)
            return container
        if tag in COMPOUNDS:
            return COMPOUNDS[tag]([self.read() for _ in range(size)])
        content = self._take(size)
        if tag == b"@":
            return self.containers[int(content, 16)]
        if tag == b"o":
            return self._named(int(content, 16))
        return ATOMS[tag](content)

    def refill(self, container: Container) -> None:
        """Put into a container, instead of what is there, the contents that come next."""
        tag, size = self._head()
        if tag != CONTAINERS[type(container)]:
            raise ValueError(f"the contents of another type than {type(container).__name__}")
        self._fill(container, size)

    def _fill(self, container: Container, size: int) -> None:
        items = [self.read() for _ in range(size)]
        if isinstance(container, list):
            container[:] = items
        elif isinstance(container, set):
            container.clear()
            container.update(items)
        else:
            pairs = dict(_pairs(items))
            container.clear()
            container.update(pairs)

    def _head(self) -> tuple[bytes, int]:
        end = self._message.index(b";", self._position)
        tag = self._message[self._position : self._position + 1]
        size = int(self._message[self._position + 1 : end], 16)
        self._position = end + 1
        return tag, size

    def _take(self, size: int) -> bytes:
        start, end = self._position, self._position + size
        if not start <= end <= len(self._message):
            raise ValueError("cut short")
        self._position = end
        return self._message[start:end]


def _flat(pairs: Iterable[tuple[object, object]]) -> Iterator[object]:
    return (part for pair in pairs for part in pair)


def _pairs(items: list[object]) -> Iterator[tuple[object, object]]:
    return zip(items[::2], items[1::2], strict=True)


def _rational(x: object) -> tuple[object, object] | None:
    """Numerator and denominator of a rational number whose type is not one of integers."""
    numbers = sys.modules.get("numbers")  # where it was never imported, no value is of its types
    if not numbers or not isinstance(x, numbers.Rational) or isinstance(x, numbers.Integral):
        return None
    return int(x.numerator), int(x.denominator)


def _base(x: object) -> object:
    """The value of a base type that equals x, or x if it has none."""
    for base in BASES:
        if isinstance(x, base):
            return base(x)
    if numbers := sys.modules.get("numbers"):
        for kind, plain in (
            (numbers.Integral, int),
            (numbers.Real, float),
            (numbers.Complex, complex),
        ):
            if isinstance(x, kind):
                return plain(x)
    if getattr(x, "shape", None) == () and hasattr(x, "item"):  # of numpy, and not a number type
        item = x.item()
        return int(item) if isinstance(item, bool) else item  # its True `is` not True
    return x


def _decimal(content: bytes) -> object:
    from decimal import Decimal

    return Decimal(content.decode())


def _fraction(parts: list[Any]) -> object:
    from fractions import Fraction

    return Fraction(*parts)


EMPTY: dict[bytes, Callable[[], Container]] = {b"[": list, b"<": set, b"{": dict}
ATOMS: dict[bytes, Callable[[bytes], object]] = {
    b"N": lambda _: None,
    b"T": lambda _: True,
    b"F": lambda _: False,
    b"E": lambda _: ...,
    b"i": lambda content: int(content, 16),
    b"f": lambda content: float.fromhex(content.decode()),
    b"s": lambda content: content.decode("utf-8", "surrogatepass"),
    b"b": bytes,
    b"a": bytearray,
    b"d": _decimal,
}
COMPOUNDS: dict[bytes, Callable[[list[Any]], object]] = {
    b"(": tuple,
    b"z": frozenset,
    b"c": lambda parts: complex(*parts),
    b"r": lambda parts: range(*parts),
    b"k": lambda parts: dict.fromkeys(parts).keys(),
    b"m": lambda parts: dict(_pairs(parts)).items(),
    b"q": _fraction,
}
