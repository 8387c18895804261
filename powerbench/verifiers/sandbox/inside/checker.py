"""The process that runs the tests, which call the program in the other process. It alone can report."""

from __future__ import annotations

import builtins
import os

from .channel import FAILED, GONE, PASSED, READY, UNDECIDED, describe, receive, send
from .program import FAILURE
from .values import Reader, Writer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .values import Container


REPORTED = 300
"""Characters of a failure's description that are reported."""


class Broken(BaseException):
    """The tests cannot go on. Not an Exception, lest a test that expects one is content."""


class Remote:
    """A value that stayed with the program. It equals itself only, whatever its own class says."""

    def __init__(self, number: int, ask: Callable[..., object]) -> None:
        self._number = number
        self._ask = ask

    def __call__(self, *args: object, **kwargs: object) -> object:
        return self._ask("call", self, args, kwargs)

    def __iter__(self) -> object:
        return self._ask("iter", self)

    def __next__(self) -> object:
        return self._ask("next", self)

    def __len__(self) -> object:
        return self._ask("len", self)

    def __bool__(self) -> object:
        return self._ask("bool", self)

    def __getitem__(self, key: object) -> object:
        return self._ask("getitem", self, key)


class Connection:
    """To the program's process."""

    def __init__(self, requests: int, replies: int) -> None:
        self._requests = requests
        self._replies = replies
        self._remotes: dict[int, Remote] = {}
        self.broken: bytes = b""
        """The report, if the tests could not go on."""

    def entry_point(self) -> object:
        """The program's function, once its module has run. Raises what the module raised."""
        return self._reply([])

    def ask(self, operation: str, *arguments: object) -> object:
        request = Writer([], self._number)
        request.write((operation, arguments))
        try:
            send(self._requests, request.message())
        except OSError:
            raise self._break(GONE) from None
        return self._reply(request.containers)

    def _reply(self, shared: list[Container]) -> object:
        try:
            message = receive(self._replies)
        except EOFError:
            raise self._break(GONE) from None
        reply = Reader(message[1:], shared, self._remote)
        for container in shared:
            reply.refill(container)
        result = reply.read()
        if message[:1] == FAILURE:
            raise _exception(*result)
        return result

    def _number(self, value: object) -> int:
        if not isinstance(value, Remote):
            reason = f"the tests pass on a value of type {type(value).__name__}, which cannot cross"
            raise self._break(UNDECIDED + reason.encode())
        return value._number

    def _remote(self, number: int) -> Remote:
        return self._remotes.setdefault(number, Remote(number, self.ask))

    def _break(self, report: bytes) -> Broken:
        self.broken = self.broken or report
        return Broken()


def _exception(names: list[str], args: tuple[object, ...], description: str) -> BaseException:
    """What the program raised, as the closest builtin exception."""
    for name in names:
        kind = getattr(builtins, name, None)
        if isinstance(kind, type) and issubclass(kind, BaseException):
            try:
                error = kind(*args)
            except TypeError:  # a builtin that demands other arguments than its subclass
                continue
            error.description = description  # type: ignore[attr-defined]
            return error
    raise ValueError("not the name of an exception")


def judge(
    namespace: dict[str, object],
    test: str,
    entry_point: str,
    requests: int,
    replies: int,
    report: int,
) -> None:
    """Report READY once the program's process is confined; then how the tests ended, in one line."""
    receive(replies)
    os.write(report, READY)
    os.write(report, _report_of(namespace, test, entry_point, Connection(requests, replies)))


def _report_of(
    namespace: dict[str, object], test: str, entry_point: str, program: Connection
) -> bytes:
    try:
        tests = compile(test, "<tests>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        return UNDECIDED + f"the tests: {describe(error)}".encode(errors="replace")
    try:
        candidate = program.entry_point()
        namespace[entry_point] = candidate
        exec(tests, namespace)
        namespace["check"](candidate)  # type: ignore[operator]
    except BaseException as error:
        description = str(getattr(error, "description", None) or describe(error))
        line = " ".join(description.split())[:REPORTED]
        return program.broken or FAILED + line.encode(errors="replace")
    return program.broken or PASSED
