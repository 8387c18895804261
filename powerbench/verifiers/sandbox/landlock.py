"""Which files a process may open, by landlock (Linux 5.13 and later): all others are out of its reach.

Numbers and structures are those of linux/landlock.h. What landlock leaves open: names, sizes and times
of files outside can be asked for.
"""

import ctypes
import os
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

CREATE_RULESET, ADD_RULE = 444, 445
"""System calls, under the same numbers on every architecture."""
VERSION, PATH_BENEATH = 1, 1

WRITE_FILE, READ_FILE, READ_DIR = 1 << 1, 1 << 2, 1 << 3
RIGHTS = {1: 13, 2: 14, 3: 15, 5: 16}
"""How many rights on files there are, from each version of the interface on."""
NO_DEVICES = ~(1 << 6 | 1 << 9 | 1 << 10 | 1 << 11)
"""Without the rights to make device files, sockets and pipes."""
NETWORK_SINCE, TCP = 4, 3
SCOPES_SINCE, SIGNALS_AND_ABSTRACT_SOCKETS = 6, 3

libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def ruleset(
    readable: Iterable[Path], listed: Iterable[Path], scratch: Path, writable: Iterable[Path]
) -> Iterator[int]:
    """The descriptor of a ruleset: reading below `readable`, names only below `listed`, everything below
    `scratch`, and reading and writing the devices `writable`; no network, no signals to processes
    outside, where it can.

    Raises OSError if this kernel has no landlock.
    """
    version = _call(CREATE_RULESET, None, 0, VERSION)
    every = (1 << max(count for since, count in RIGHTS.items() if since <= version)) - 1
    attributes = struct.pack(
        "=QQQ",
        every,
        TCP if version >= NETWORK_SINCE else 0,
        SIGNALS_AND_ABSTRACT_SOCKETS if version >= SCOPES_SINCE else 0,
    )
    size = 24 if version >= SCOPES_SINCE else 16 if version >= NETWORK_SINCE else 8
    descriptor = _call(CREATE_RULESET, attributes, size, 0)
    try:
        for path in readable:
            _allow(descriptor, path, READ_FILE | READ_DIR if path.is_dir() else READ_FILE)
        for path in listed:
            _allow(descriptor, path, READ_DIR)
        for path in writable:
            _allow(descriptor, path, READ_FILE | WRITE_FILE)
        _allow(descriptor, scratch, every & NO_DEVICES)
        yield descriptor
    finally:
        os.close(descriptor)


def _allow(descriptor: int, path: Path, rights: int) -> None:
    beneath = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        rule = struct.pack("=Qi", rights, beneath)
        _call(ADD_RULE, descriptor, PATH_BENEATH, rule, 0)
    finally:
        os.close(beneath)


def _call(number: int, *arguments: object) -> int:
    result: int = libc.syscall(number, *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), f"landlock: {os.strerror(ctypes.get_errno())}")
    return result
