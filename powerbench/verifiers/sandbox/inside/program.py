"""The process that runs the completion, and then calls it as often as the tests ask."""

from __future__ import annotations

import sys

from .channel import describe, receive, send
from .values import Reader, Writer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .values import Container

PACKAGE = __name__.partition(".")[0]
ANSWER, FAILURE = b"=", b"!"
OPERATIONS: dict[str, Callable[..., object]] = {
    "call": lambda target, args, kwargs: target(*args, **kwargs),
    "iter": iter,
    "next": next,
    "len": len,
    "bool": bool,
    "getitem": lambda target, key: target[key],
}


class HeldValues:
    """The values that stay in this process, by their numbers."""

    def __init__(self) -> None:
        self._values: list[object] = []
        self._numbers: dict[int, int] = {}

    def number(self, value: object) -> int:
        if id(value) not in self._numbers:
            self._numbers[id(value)] = len(self._values)
            self._values.append(value)
        return self._numbers[id(value)]

    def value(self, number: int) -> object:
        return self._values[number]


def serve(source: str, entry_point: str, requests: int, replies: int) -> None:
    """Run `source` as a module; reply with its entry point, then to each request until they end.

    A reply: ANSWER or FAILURE, what is now in the request's containers, then the result or
    (the names of the exception's classes, its arguments, its description).
    """
    held = HeldValues()
    send(replies, _reply(held, [], _load, [source, entry_point]))
    while True:
        try:
            message = receive(requests)
        except EOFError:
            return
        request = Reader(message, [], held.value)
        operation, arguments = request.read()
        act = OPERATIONS[operation]
        send(replies, _reply(held, request.containers, act, arguments))


def _load(source: str, entry_point: str) -> object:
    """Run it as Python alone would: what this package is made of must not show in how it runs."""
    module = type(sys)("program")
    for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
        del sys.modules[name]
    sys.modules["__main__"] = module
    sys.modules["program"] = module  # where dataclasses and pickle look for the module of a class
    sys.argv[:] = sys.orig_argv[:] = ["program"]
    # Else this file's own `annotations` would hold there, and no annotation would be evaluated.
    exec(compile(source, "<program>", "exec", dont_inherit=True), module.__dict__)
    if not hasattr(module, entry_point):
        raise NameError(f"name {entry_point!r} is not defined")
    return getattr(module, entry_point)


def _reply(
    held: HeldValues,
    shared: list[Container],
    act: Callable[..., object],
    arguments: Sequence[object],
) -> bytes:
    try:
        return ANSWER + _message(held, shared, act(*arguments))
    except BaseException as error:
        error.__traceback__ = None  # lets go of what the program hoarded
        names = [kind.__name__ for kind in type(error).__mro__]
        return FAILURE + _message(held, shared, (names, error.args, describe(error)))


def _message(held: HeldValues, shared: list[Container], value: object) -> bytes:
    writer = Writer(shared, held.number)
    for container in shared:
        writer.contents(container)
    writer.write(value)
    return writer.message()
