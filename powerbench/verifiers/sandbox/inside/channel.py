"""What the processes inside say to each other: messages, and how an attempt failed."""

import os

READY = b"ready\n"
"""Everything is in place; from now on the program's seconds count."""
PASSED, FAILED, UNDECIDED, GONE = b"passed", b"failed ", b"undecided ", b"gone"
"""How a report begins, or all of it. GONE: the program's process no longer answers."""

LENGTH = 8


def send(descriptor: int, message: bytes) -> None:
    """Raises OSError if nobody can receive it any more."""
    rest = memoryview(len(message).to_bytes(LENGTH, "big") + message)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def receive(descriptor: int) -> bytes:
    """Raises EOFError if there is no further message."""
    return _exactly(descriptor, int.from_bytes(_exactly(descriptor, LENGTH), "big"))


def _exactly(descriptor: int, size: int) -> bytes:
    content = bytearray()
    while len(content) < size:
        chunk = os.read(descriptor, min(size - len(content), 2**20))
        if not chunk:
            raise EOFError
        content += chunk
    return bytes(content)


def describe(error: BaseException) -> str:
    """One line; an AssertionError goes without its message, which is the test's and not the program's."""
    name = type(error).__name__
    message = "" if isinstance(error, AssertionError) else " ".join(str(error).split())[:200]
    return f"{name}: {message}" if message else name
