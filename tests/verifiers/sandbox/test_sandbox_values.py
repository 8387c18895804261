"""The tests see of a program what they would see in its own process, though they run in another.

Run: pytest tests/verifiers/sandbox/test_sandbox_values.py
"""

import math
import random
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from powerbench.verifiers import sandbox
from powerbench.verifiers.sandbox import Execution, Limits, Program
from powerbench.verifiers.sandbox.inside.channel import describe
from powerbench.verifiers.sandbox.inside.values import Reader, Writer

LIMITS = Limits(seconds=30.0, memory_mb=1024, file_mb=16)

PLAIN: list[Any] = [
    *(None, True, False, ...),
    *(0, -1, 10**40, -(2**64), 1.5, -0.0, math.inf, -math.inf, 5e-324, complex(-0.0, math.inf)),
    *("", "é\n;", "\ud800", "\0", b"", b"\xff;", bytearray(b"a")),
    *([], (), {}, set(), frozenset(), [1, [2, (3, {4})]], {(1, "a"): [{"b": None}]}),
    *(frozenset({1, (2, 3)}), range(3), range(10, -5, -3), Fraction(-1, 3), Decimal("1.10")),
    *({"b": 1, "a": 2}.keys(), {"b": 1, "a": 2}.items()),
]


def refused(value: object) -> int:
    raise AssertionError(f"{value!r} is not plain")


def crossed(value: object) -> Any:
    writer = Writer([], refused)
    writer.write(value)
    return Reader(writer.message(), [], refused).read()


@pytest.mark.parametrize("value", PLAIN, ids=repr)
def test_a_plain_value_arrives_as_it_was(value: object) -> None:
    there = crossed(value)
    assert (type(there), repr(there)) == (type(value), repr(value))


def test_what_is_one_list_stays_one_list() -> None:
    inner: list[object] = [1]
    value = [inner, {"a": inner}, inner]
    value.append(value)
    there = crossed(value)
    assert there[0] is there[1]["a"] is there[2]
    assert there[3] is there


def test_changes_are_written_back_into_the_same_objects() -> None:
    def write_back(ours: list[Any], theirs: list[Any]) -> None:
        writer = Writer(theirs, refused)
        for container in theirs:
            writer.contents(container)
        reader = Reader(writer.message(), ours, refused)
        for container in ours:
            reader.refill(container)

    one: list[object] = [1, 2]
    two: dict[object, object] = {"one": one}
    their_one: list[object] = [3]
    their_two: dict[object, object] = {"new": their_one, "all": {5}}
    write_back([one, two], [their_one, their_two])
    assert (one, two) == ([3], {"new": [3], "all": {5}})
    assert two["new"] is one


def test_bytes_of_an_attacker_make_plain_values_or_errors() -> None:
    writer = Writer([], refused)
    writer.write(PLAIN)
    message = writer.message()
    source = random.Random(0)
    for _ in range(3000):
        garbled = bytearray(message)
        for _ in range(source.randrange(1, 8)):
            garbled[source.randrange(len(garbled))] = source.choice(
                b"NTFEifsbad([<{z@orcqkm;0123f-"
            )
        try:
            there = Reader(bytes(garbled), [], lambda number: None).read()
        except (ValueError, LookupError, TypeError, ArithmeticError):
            continue
        assert type(there) in {type(value) for value in PLAIN}


# -- in its process and in ours --------------------------------------------------------------------


def in_one_process(source: str, test: str) -> str:
    names: dict[str, Any] = {"__name__": "program"}
    try:
        exec(source, names)
        exec(test, names)
        names["check"](names["f"])
    except Exception as error:
        return describe(error)
    return "passed"


def in_two(source: str, test: str, limits: Limits = LIMITS) -> Execution:
    return sandbox.run(Program("", source, "f", test), limits)


RESULTS = [
    *("None", "True", "1", "1.0", "0", "[]", "''", "'a'", "b'a'", "float('nan')", "float('inf')"),
    *(
        "1j",
        "(1, 2)",
        "[1, 2]",
        "{1, 2}",
        "frozenset((1, 2))",
        "{1: 2}",
        "range(1, 3)",
        "[[1], [2]]",
    ),
    *(
        "iter([1, 2])",
        "(x for x in (1, 2))",
        "map(int, '12')",
        "zip([1], [2])",
        "{1: 0, 2: 0}.keys()",
    ),
    *("{1: 2}.items()", "{0: 1}.values()", "reversed([2, 1])", "enumerate('a')", "object", "len"),
    *("collections.deque([1, 2])", "collections.Counter('a')", "collections.OrderedDict({1: 2})"),
    *("collections.defaultdict(int, {1: 2})", "collections.namedtuple('P', 'x y')(1, 2)", "10**30"),
    *(
        "fractions.Fraction(1)",
        "fractions.Fraction(1, 2)",
        "decimal.Decimal('0.1')",
        "decimal.Decimal(1)",
    ),
    *(
        "enum.IntEnum('E', 'A').A",
        "enum.StrEnum('E', 'a').a",
        "enum.Enum('E', 'A').A",
        "bytearray(b'a')",
    ),
    *(
        "numpy.int64(1)",
        "numpy.float64(1)",
        "numpy.bool_(True)",
        "numpy.float32(0.5)",
        "numpy.str_('a')",
    ),
    *("[numpy.int64(1), 2.5]", "(numpy.float64(1), 2)", "array.array('i', [1, 2])", "-0.0"),
    *("{'a': {'b': [1, (2,)]}}", "[None, True, 0.1]"),
]
VIEWS = [
    *("r is None", "r is True", "not r", "bool(r)", "r == 1", "1 == r", "r != 1", "r == [1, 2]"),
    *("r == (1, 2)", "r == {1, 2}", "r == {1: 2}", "r == 'a'", "r == b'a'", "r == [[1], [2]]"),
    *(
        "list(r) == [1, 2]",
        "tuple(r) == (1, 2)",
        "sorted(r) == [1, 2]",
        "sum(r) == 3",
        "len(r) == 2",
    ),
    *("r[0] == 1", "1 in r", "abs(r - 1) < 1e-6", "r < 2", "r + 1 == 2", "r == 10**30", "r == 0.1"),
    *(
        "set(r) == {1, 2}",
        "[x for x in r] == [1, 2]",
        "r == 1j",
        "r == 0.5",
        "math.isnan(r)",
        "str(r)",
    ),
    *("r == {'a': {'b': [1, (2,)]}}", "dict(r) == {1: 2}", "'a' in r", "r == [None, True, 0.1]"),
]


def test_a_result_compares_as_in_its_own_process() -> None:
    """All results under all views at once; a view that raises does not hold, in either."""
    source = (
        "import array, collections, decimal, enum, fractions, numpy\n"
        f"def f(i):\n    return [{', '.join(f'lambda: {r}' for r in RESULTS)}][i]()\n"
    )
    views = ", ".join(f"lambda r: {view}" for view in VIEWS)
    test = f"""
import math
VIEWS = [{views}]
def held(candidate, i, view):
    try: return bool(view(candidate(i)))
    except Exception: return False
def check(candidate):
    for i, expected in enumerate(EXPECTED):
        for j, (view, holds) in enumerate(zip(VIEWS, expected)):
            if held(candidate, i, view) != holds:
                raise RuntimeError(f"result {{i}}, view {{j}}: expected {{holds}}")
"""
    names: dict[str, Any] = {}
    exec(source, names)
    exec(test, names)
    held: Callable[..., object] = names["held"]
    expected = [[held(names["f"], i, view) for view in names["VIEWS"]] for i in range(len(RESULTS))]
    assert in_two(source, f"EXPECTED = {expected}\n{test}").reason == "passed"


@pytest.mark.parametrize(
    ("source", "test"),
    [
        ("def f(x): x.sort()", "x = [2, 1]\n    candidate(x)\n    assert x == [1, 2]"),
        ("def f(x): x[0].append(x); return x", "x = [[]]\n    assert candidate(x) is x is x[0][0]"),
        (
            "def f(x, y): return x is y",
            "x = []\n    assert candidate(x, x) and not candidate(x, [])",
        ),
        ("def f(x, *, y=1): return x + y", "assert candidate(1) == 2 and candidate(1, y=3) == 4"),
        ("def f(x): return lambda y: x + y", "assert candidate(1)(2) == 3"),
        ("def f(x): return x", "assert candidate(candidate) is candidate"),
        (
            "import numpy\ndef f(x): return numpy.array(x)",
            "x = candidate([2, 1])\n    assert (sorted(x), len(x), x[0]) == ([1, 2], 2, 2)",
        ),
        (
            "def f():\n    n = 0\n    while True:\n        n += 1\n        yield n",
            "g = candidate()\n    assert (next(g), next(g)) == (1, 2)",
        ),
        (
            "def f(x): raise KeyError(x)",
            "try: candidate(3)\n    except KeyError as error: assert error.args == (3,)",
        ),
        (
            "class Own(ValueError): pass\ndef f(x): x.clear(); raise Own('no')",
            "x = [1]\n    try: candidate(x)\n    except ValueError as e: assert str(e) == 'no' and not x",
        ),
        ("def f(x): 'é'.encode('ascii')", "try: candidate(1)\n    except UnicodeEncodeError: pass"),
        # -- failures
        ("def f(x): return x", "assert candidate(1) == 2, 'a message of the test'"),
        ("def f(x): return undefined", "candidate(1)"),
        ("class Own(ValueError): pass\ndef f(x): raise Own('no')", "candidate(1)"),
        ("def f(x): raise KeyError(x)", "candidate('a')"),
        ("def f(x): assert x, 'own'", "candidate(0)"),
        ("def f(x): 'é'.encode('ascii')", "candidate(0)"),
        ("def f(x): return f(x)", "candidate(0)"),
        ("def f(x): pass", "assert abs(candidate(0) - 1) < 1e-6"),
        ("def f(x): pass", "candidate(0, 1)"),
        ("f = 5", "candidate(0)"),
        ("def f(x): return 1 / x", "assert candidate(2) == 0.5\n    candidate(0)"),
    ],
)
def test_a_call_goes_as_in_its_own_process(source: str, test: str) -> None:
    test = f"def check(candidate):\n    {test}\n"
    assert in_two(source, test).reason == in_one_process(source, test)


def test_what_the_program_says_before_the_first_call_is_a_failure() -> None:
    test = "def check(candidate): pass"
    assert in_two("def g(): pass", test)[:2] == (False, "NameError: name 'f' is not defined")
    assert in_two("f = 1 / 0", test)[:2] == (False, "ZeroDivisionError: division by zero")
    reason = "SyntaxError: no binding for nonlocal 'y' found (<program>, line 2)"
    assert in_two("def f():\n    nonlocal y\n", test)[:2] == (False, reason)


def test_helpers_of_the_prompt_are_the_prompts_even_if_the_program_has_its_own() -> None:
    preamble = "def double(x): return 2 * x\n"
    source = "def double(x): return 0\ndef f(x): return 0\n"
    test = "def check(candidate): assert f(3) == candidate(3) == double(3)"
    assert sandbox.run(Program(preamble, source, "f", test), LIMITS).reason == "AssertionError"
    right = Program(preamble, preamble + "def f(x): return double(x)\n", "f", test)
    assert sandbox.run(right, LIMITS).passed


@pytest.mark.parametrize(
    ("preamble", "test", "reason"),
    [
        ("", "def check(candidate): candidate(lambda: 0)", "pass on a value of type function"),
        (
            "",
            "def check(candidate):\n    try: candidate(object())\n    except: pass",
            "of type object",
        ),
        ("", "def check(candidate", "SyntaxError"),
        ("import no_such_module", "def check(candidate): pass", "No module named 'no_such_module'"),
    ],
)
def test_tests_that_cannot_be_run_decide_nothing(preamble: str, test: str, reason: str) -> None:
    execution = sandbox.run(Program(preamble, "def f(x): pass", "f", test), LIMITS)
    assert execution.passed is None
    assert reason in execution.reason


def test_a_program_that_is_gone_fails_even_tests_that_catch_everything() -> None:
    test = "def check(candidate):\n    try: candidate(1)\n    except: pass"
    reason = "killed by SIGKILL before the checks returned"
    source = "import os\ndef f(x): os.kill(os.getpid(), 9)"
    assert in_two(source, test)[:2] == (False, reason)


def test_hashes_do_not_change_from_run_to_run() -> None:
    executions = {in_two("def f(): raise ValueError(hash('a'))", "def check(c): c()") for _ in "12"}
    assert len(executions) == 1
