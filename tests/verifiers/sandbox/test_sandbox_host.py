"""A program runs as in a Python of its own: nothing of the process that judges it shows in how it runs.

Run: pytest tests/verifiers/sandbox/test_sandbox_host.py
"""

import sys
from pathlib import Path

import pytest

from powerbench.verifiers import sandbox
from powerbench.verifiers.sandbox import Execution, Limits, Program

LIMITS = Limits(seconds=30.0, memory_mb=1024, file_mb=16)
TEST = "def check(candidate):\n    assert candidate(1) == 2\n"


def run(source: str, test: str = TEST, preamble: str = "") -> Execution:
    return sandbox.run(Program(preamble, preamble + source, "f", test), LIMITS)


# -- how it is compiled ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source",
    [
        "def f(x: Sequence[int]) -> int:\n    return x + 1\n",
        "def f(x) -> Missing:\n    return x + 1\n",
        "def f(x, *rest: Missing):\n    return x + 1\n",
        "def f(x):\n    def g(y: Missing):\n        return y + 1\n    return g(x)\n",
        "class A:\n    size: Missing\n\ndef f(x):\n    return x + 1\n",
        "size: Missing = 1\n\ndef f(x):\n    return x + size\n",
        "def f(x):\n    exec('def g(y: Missing): pass')\n    return x + 1\n",
    ],
)
def test_an_annotation_whose_name_is_missing_fails(source: str) -> None:
    execution = run(source)
    assert execution.passed is False
    assert execution.reason.startswith("NameError: name ")
    assert run(f"from __future__ import annotations\n{source}").passed is True


@pytest.mark.parametrize(
    "source",
    [
        "def f(x: int) -> str:\n    assert f.__annotations__ == {'x': int, 'return': str}\n    return x + 1\n",
        "from typing import NamedTuple\n\nclass P(NamedTuple):\n    x: int = 2\n\n"
        "def f(x):\n    assert P.__annotations__['x'] is int\n    return P().x\n",
        "import inspect\n\ndef f(x: float):\n"
        "    assert inspect.signature(f).parameters['x'].annotation is float\n    return x + 1\n",
    ],
)
def test_annotations_are_values(source: str) -> None:
    assert run(source).reason == "passed"


def test_the_tests_and_the_prompts_helpers_are_compiled_alike() -> None:
    preamble = "def helper(x: int): return x\nassert helper.__annotations__['x'] is int\n"
    test = "def check(candidate: type):\n    assert check.__annotations__['candidate'] is type\n"
    assert run("def f(x):\n    return 2\n", test, preamble).reason == "passed"


# -- what surrounds it ----------------------------------------------------------------------------

SEEN = {
    "argv": "sys.argv == ['program'] == sys.orig_argv",
    "main": "not hasattr(sys.modules['__main__'], 'main')",
    "modules": "not [m for m in sys.modules if m.partition('.')[0] in ('inside', 'powerbench', 'numpy')]",
    "import": "importlib.util.find_spec('inside') is None",
    "path": "not [p for p in sys.path if 'verifiers' in p or 'OUTSIDE' in p]",
    "folder": "not os.path.samefile('.', '/') and os.listdir('.') == []",
    "environment": "not {'SECRET', 'HOME', 'PYTHONPATH', 'LC_ALL'} & set(os.environ)",
    "input": "sys.stdin.read() == ''",
    "recursion": "sys.getrecursionlimit() == 1000",
    "digits": "sys.get_int_max_str_digits() == 4300",
    "warnings": "not [w for w in warnings.filters if w[0] == 'error']",
    "assertions": "__debug__ and sys.flags.optimize == 0",
    "encoding": "sys.stdout.encoding == sys.getfilesystemencoding() == 'utf-8'",
    "files": "open('f', 'w').encoding.lower() == 'utf-8'",
    "time zone": "time.tzname[0] == 'UTC'",
    "name": "__name__ == 'program'",
    "names": "set(names) - NAMES <= {'__builtins__', '__annotations__'}",
    "builtins": "not hasattr(builtins, '_') and builtins.open is io.open",
    "frame": "sys.gettrace() is None and sys.getprofile() is None",
}


@pytest.mark.parametrize("what", SEEN)
def test_nothing_of_the_host_is_seen(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {
        "SECRET": "1",
        "PYTHONPATH": str(tmp_path),
        "PYTHONOPTIMIZE": "2",
        "PYTHONWARNINGS": "error",
        "PYTHONIOENCODING": "latin-1",
        "PYTHONINTMAXSTRDIGITS": "1000",
        "LC_ALL": "POSIX",
        "TZ": "Asia/Tokyo",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(5 * limit)
    source = f"""
names = dict(globals())
NAMES = {{"__name__", "__doc__", "__package__", "__loader__", "__spec__"}}
import builtins, importlib.util, io, os, sys, time, warnings

def f(x):
    return {SEEN[what].replace("OUTSIDE", str(tmp_path))}
"""
    try:
        execution = run(source, "def check(candidate):\n    assert candidate(1) is True\n")
    finally:
        sys.setrecursionlimit(limit)
    assert execution.reason == "passed"
