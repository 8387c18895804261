"""python -m pytest -q tests/tasks/test_bundled_data.py

The two bundled data sets, read from their files without importing the package.

`math_mini.jsonl`: every answer is computed again, by sympy or by enumeration, from the givens of
its problem or, where it asks for a fact, from a definition (the table `ANSWERS`), and compared
with the stored one; the fields are those of MATH-500; ids and problems are unique; every solution
ends in its boxed answer; and subjects and levels are balanced, in the whole file and in its
prefixes, because a run with `limit` takes a prefix.

`instructions_mini.jsonl`: the fields are those of AlpacaEval, the instructions are unique, and
every reference answer has 30 to 90 words. Whether a reference is a good one is not checked.
"""

import itertools
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sympy as sp
from math_verify import parse, verify
from sympy.vector import CoordSys3D

DATA = Path(__file__).parents[2] / "powerbench/tasks/data"
SUBJECTS = {
    "Algebra": "algebra",
    "Counting & Probability": "counting_and_probability",
    "Geometry": "geometry",
    "Intermediate Algebra": "intermediate_algebra",
    "Number Theory": "number_theory",
    "Prealgebra": "prealgebra",
    "Precalculus": "precalculus",
}
MATH_FIELDS = {
    "problem": str,
    "solution": str,
    "answer": str,
    "subject": str,
    "level": int,
    "unique_id": str,
}
INSTRUCTION_FIELDS = ["dataset", "instruction", "output", "generator"]

Row = dict[str, Any]
Computed = Any
"""A computed answer: an int, a sympy object, or a str that the stored LaTeX must equal."""


def read_rows(name: str) -> list[Row]:
    text = (DATA / name).read_text(encoding="utf-8")
    assert text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


MATH = read_rows("math_mini.jsonl")
INSTRUCTIONS = read_rows("instructions_mini.jsonl")

x = sp.symbols("x", real=True)
index = sp.symbols("index", integer=True, positive=True)
R = sp.Rational


def only(values: Iterable[Computed]) -> Computed:
    """The single element of `values`; raises ValueError unless there is exactly one."""
    (value,) = values
    return value


def share(outcomes: Iterable[Any], event: Callable[[Any], bool]) -> sp.Rational:
    """The probability of `event` when all outcomes are equally likely."""
    hits = [event(outcome) for outcome in outcomes]
    return R(sum(hits), len(hits))


# Prealgebra


def omar_is_fastest() -> str:
    laps_per_minute = {"Lena": R(12, 30), "Omar": R(9, 20), "Ruth": R(14, 40)}
    return rf"\text{{{max(laps_per_minute, key=laps_per_minute.__getitem__)}}}"


def two_painted_faces() -> sp.Rational:
    sides = (4, 5, 6)
    cubes = itertools.product(*(range(side) for side in sides))
    return share(
        cubes,
        lambda cube: sum((c == 0) + (c == s - 1) for c, s in zip(cube, sides, strict=True)) == 2,
    )


# Algebra


def linear_square_root_of_a_map() -> sp.Expr:
    a, b = sp.symbols("a b", real=True)
    twice = sp.Poly(a * (a * x + b) + b - (9 * x - 8), x)
    return only(s[a] * x + s[b] for s in sp.solve(twice.coeffs(), [a, b], dict=True) if s[a] < 0)


def vertex() -> sp.Tuple:
    parabola = 2 * x**2 - 12 * x + 11
    lowest = only(sp.solve(sp.diff(parabola, x), x))
    return sp.Tuple(lowest, parabola.subs(x, lowest))


def nested_radical() -> sp.Expr:
    target = sp.sqrt(19 + 8 * sp.sqrt(3))
    pairs = itertools.product(range(1, 20), repeat=2)
    return only(
        a + sp.sqrt(b) for a, b in pairs if sp.expand((a + sp.sqrt(b)) ** 2 - target**2) == 0
    )


# Number theory


def greatest_common_divisor(a: int, b: int) -> int:
    return max(n for n in range(1, min(a, b) + 1) if a % n == b % n == 0)


def least_common_multiple(*numbers: int) -> int:
    return next(n for n in itertools.count(1) if all(n % number == 0 for number in numbers))


def base_six(number: int) -> str:
    digits = only(
        d for d in itertools.product(range(6), repeat=3) if d[0] * 36 + d[1] * 6 + d[2] == number
    )
    return "".join(map(str, digits)) + "_6"


def coprime_sum(modulus: int) -> int:
    return sum(n for n in range(1, modulus) if math.gcd(n, modulus) == 1)


def sum_with_square_shift(shift: int) -> int:
    """Above n = shift / 2 the next square after n^2 is too far, so the range is complete."""
    return sum(n for n in range(1, shift) if math.isqrt(n * n + shift) ** 2 == n * n + shift)


# Counting and probability


def faces_of_a_cube() -> int:
    """From Euler's V - E + F = 2; the edges join the vertices that differ in one coordinate."""
    vertices = list(itertools.product((0, 1), repeat=3))
    edges = sum(math.dist(a, b) == 1 for a, b in itertools.combinations(vertices, 2))
    return 2 - len(vertices) + edges


def committees() -> int:
    people = [f"teacher {i}" for i in range(5)] + [f"student {i}" for i in range(4)]
    groups = itertools.combinations(people, 4)
    return sum(sum(person.startswith("teacher") for person in group) >= 2 for group in groups)


def both_odd_given_even_sum() -> sp.Rational:
    pairs = [pair for pair in itertools.combinations(range(1, 10), 2) if sum(pair) % 2 == 0]
    return share(pairs, lambda pair: pair[0] % 2 == pair[1] % 2 == 1)


def frog_lands_on(target: int) -> sp.Rational:
    """`target` jumps are always enough to reach or pass `target`."""
    paths = itertools.product((1, 2), repeat=target)
    return share(paths, lambda jumps: target in itertools.accumulate(jumps))


def two_letters_right() -> sp.Rational:
    return share(
        itertools.permutations(range(6)),
        lambda order: sum(place == letter for place, letter in enumerate(order)) == 2,
    )


# Geometry


def sides_of_an_octagon() -> int:
    """An octagon is what remains of a square when its four corners are cut off."""
    corners = itertools.product((-1, 1), repeat=2)
    cuts = [cut for a, b in corners for cut in ((a, 2 * b), (2 * a, b))]
    return len(sp.convex_hull(*cuts).sides)


def diameter(radius: int) -> sp.Expr:
    """The distance of the two points where a line through the centre meets the circle."""
    near, far = sp.Circle((0, 0), radius).intersection(sp.Line((0, 0), (1, 0)))
    return near.distance(far)


def inradius() -> sp.Expr:
    """From coordinates: the side of length 9 lies on the x-axis, the third vertex above it."""
    meeting_points = sp.Circle((0, 0), 7).intersection(sp.Circle((9, 0), 8))
    above = only(point for point in meeting_points if point.y > 0)
    return sp.Triangle((0, 0), (9, 0), above).inradius


def inscribed_circle_area() -> sp.Expr:
    """The square with diagonal 8 has its vertices on the axes, 4 away from the origin."""
    side = sp.Line((4, 0), (0, 4))
    return sp.pi * side.distance(sp.Point(0, 0)) ** 2


def circumference_from_area(area: sp.Expr) -> sp.Expr:
    radius = sp.symbols("radius", positive=True)
    return 2 * sp.pi * only(sp.solve(sp.pi * radius**2 - area, radius))


def cone_volume(radius: int, slant: int) -> sp.Expr:
    """The integral of the areas of the discs at distance x from the apex."""
    height = sp.sqrt(slant**2 - radius**2)
    return sp.integrate(sp.pi * (radius * x / height) ** 2, (x, 0, height))


def cut_cube_surface() -> sp.Expr:
    """Six squares of which three lose a corner, and the triangle that the cut opens."""
    a, b, c = (sp.Matrix(p) for p in ((3, 0, 0), (0, 3, 0), (0, 0, 3)))
    corner = sp.Polygon((0, 0), (3, 0), (0, 3)).area
    return 6 * 6**2 - 3 * corner + (b - a).cross(c - a).norm() / 2


# Intermediate algebra


def branches_of_a_hyperbola() -> int:
    """The branches of x^2 - y^2 = 1 lie over the separate intervals where x^2 - 1 >= 0."""
    return len(sp.solveset(x**2 - 1 >= 0, x, sp.S.Reals).args)


def pairwise_squares_of_roots() -> int:
    a, b, c = sp.Poly(x**3 - 7 * x**2 + 4 * x - 3).nroots(n=30)
    total = a**2 * b**2 + b**2 * c**2 + c**2 * a**2
    nearest = round(sp.re(total))
    assert abs(total - nearest) < 1e-20
    return int(nearest)


def quotient() -> sp.Expr:
    result, remainder = sp.div(2 * x**3 - 3 * x**2 - 11 * x + 6, x - 3)
    assert remainder == 0
    return result


# Precalculus


def rectangular(r: int, angle: sp.Expr) -> sp.Tuple:
    return sp.Tuple(*(sp.exp(sp.I * angle) * r).as_real_imag())


def singular_parameter() -> sp.Expr:
    matrix = sp.Matrix([[x, 3], [4, x - 1]])
    return only(k for k in sp.solve(matrix.det(), x) if k > 0)


def sine_of_double_angle() -> sp.Expr:
    return sp.simplify(sp.sin(2 * (sp.pi - sp.asin(R(1, 3)))))


def count_angles() -> int:
    """With s = sin(theta) the equation is 3s - 4s^3 = 1 - 2s^2; |s| < 1 stands for two angles."""
    roots = sp.solve(3 * x - 4 * x**3 - (1 - 2 * x**2), x)
    return sum(1 if abs(s) == 1 else 2 for s in roots if abs(s) <= 1)


ANSWERS: dict[str, Callable[[], Computed]] = {
    "mini/prealgebra/1.json": lambda: 10 + 5,
    "mini/prealgebra/2.json": lambda: timedelta(hours=1) // timedelta(minutes=1),
    "mini/prealgebra/3.json": lambda: R(50, 100) * 10,
    "mini/prealgebra/4.json": lambda: R(1, 2) + R(1, 2),
    "mini/prealgebra/5.json": lambda: only(sp.solve((5 * 18 + x) / 6 - 20, x)),
    "mini/prealgebra/6.json": omar_is_fastest,
    "mini/prealgebra/7.json": lambda: only(sp.solve((1 + x) / 6 + R(1, 4) - 1, x)),
    "mini/prealgebra/8.json": two_painted_faces,
    "mini/algebra/1.json": lambda: only(sp.solve(x - 3 - 6, x)),
    "mini/algebra/2.json": lambda: only(n for n in range(26) if n * n == 25),
    "mini/algebra/3.json": lambda: (x + 1).subs(x, 5),
    "mini/algebra/4.json": lambda: sp.solveset(sp.Abs(2 * x - 5) < 9, x, sp.S.Reals),
    "mini/algebra/5.json": lambda: sp.Line((-2, 7), (4, -1)).slope,
    "mini/algebra/6.json": linear_square_root_of_a_map,
    "mini/algebra/7.json": vertex,
    "mini/algebra/8.json": lambda: sp.solve_univariate_inequality(
        1 / (x - 1) + 1 / (x - 4) >= 0, x, relational=False
    ),
    "mini/algebra/9.json": nested_radical,
    "mini/number_theory/1.json": lambda: greatest_common_divisor(4, 8),
    "mini/number_theory/2.json": lambda: least_common_multiple(2, 5),
    "mini/number_theory/3.json": lambda: (3**50 + 8**10) % 10,
    "mini/number_theory/4.json": lambda: least_common_multiple(12, 18, 20),
    "mini/number_theory/5.json": lambda: least_common_multiple(3, 4),
    "mini/number_theory/6.json": lambda: next(
        n for n in itertools.count(1) if (n % 5, n % 7, n % 9) == (3, 4, 5)
    ),
    "mini/number_theory/7.json": lambda: base_six(173),
    "mini/number_theory/8.json": lambda: sum_with_square_shift(45),
    "mini/number_theory/9.json": lambda: coprime_sum(60),
    "mini/counting_and_probability/1.json": faces_of_a_cube,
    "mini/counting_and_probability/2.json": lambda: len({"heads", "tails"}),
    "mini/counting_and_probability/3.json": lambda: len(list(itertools.permutations(range(3)))),
    "mini/counting_and_probability/4.json": lambda: share(
        itertools.product(range(1, 7), repeat=2), lambda dice: max(dice) == 2 * min(dice)
    ),
    "mini/counting_and_probability/5.json": lambda: len(set(itertools.permutations("GIGGLE"))),
    "mini/counting_and_probability/6.json": committees,
    "mini/counting_and_probability/7.json": lambda: frog_lands_on(6),
    "mini/counting_and_probability/8.json": both_odd_given_even_sum,
    "mini/counting_and_probability/9.json": two_letters_right,
    "mini/geometry/1.json": sides_of_an_octagon,
    "mini/geometry/2.json": lambda: diameter(3),
    "mini/geometry/3.json": lambda: sp.deg(2 * sp.pi),
    "mini/geometry/4.json": inscribed_circle_area,
    "mini/geometry/5.json": inradius,
    "mini/geometry/6.json": lambda: cone_volume(6, 10),
    "mini/geometry/7.json": cut_cube_surface,
    "mini/geometry/8.json": lambda: circumference_from_area(49 * sp.pi),
    "mini/intermediate_algebra/1.json": lambda: sp.Lambda(x, x + 1)(2),
    "mini/intermediate_algebra/2.json": lambda: len(sp.Poly(x**3 - 2 * x + 5).nroots()),
    "mini/intermediate_algebra/3.json": lambda: only(sp.solve(sp.sqrt(2 * x + 7) - (x - 4), x)),
    "mini/intermediate_algebra/4.json": lambda: only(sp.solve(sp.sqrt(x) - 3, x)),
    "mini/intermediate_algebra/5.json": pairwise_squares_of_roots,
    "mini/intermediate_algebra/6.json": branches_of_a_hyperbola,
    "mini/intermediate_algebra/7.json": lambda: sp.maximum((6 * x + 8) / (x**2 + 1), x),
    "mini/intermediate_algebra/8.json": quotient,
    "mini/intermediate_algebra/9.json": lambda: sp.summation(
        1 / (index * (index + 3)), (index, 1, sp.oo)
    ),
    "mini/precalculus/1.json": lambda: sp.sin(sp.rad(90)),
    "mini/precalculus/2.json": lambda: len(CoordSys3D("space").base_vectors()),
    "mini/precalculus/3.json": lambda: rectangular(6, 2 * sp.pi / 3),
    "mini/precalculus/4.json": lambda: sp.Abs(sp.expand((1 + 2 * sp.I) * (3 - 4 * sp.I))),
    "mini/precalculus/5.json": singular_parameter,
    "mini/precalculus/6.json": sine_of_double_angle,
    "mini/precalculus/7.json": lambda: sp.zeros(3, 3).rows,
    "mini/precalculus/8.json": count_angles,
}


def agrees(computed: Computed, stored: str) -> bool:
    if isinstance(computed, str):
        return computed == stored
    return bool(verify(parse(f"${sp.latex(sp.sympify(computed))}$"), parse(f"${stored}$")))


def last_boxed(solution: str) -> tuple[str, str]:
    r"""The content of the last \boxed{...}, matching braces, and the text that follows it."""
    _, _, tail = solution.rpartition(r"\boxed{")
    depth = 1
    for position, character in enumerate(tail):
        depth += {"{": 1, "}": -1}.get(character, 0)
        if depth == 0:
            return tail[:position], tail[position + 1 :]
    raise ValueError(f"no complete \\boxed{{...}} in {solution!r}")


def test_every_problem_has_a_computed_answer() -> None:
    assert sorted(ANSWERS) == sorted(row["unique_id"] for row in MATH)


@pytest.mark.parametrize("row", MATH, ids=lambda row: row["unique_id"])
def test_stored_answer_is_the_computed_one(row: Row) -> None:
    computed = ANSWERS[row["unique_id"]]()
    assert agrees(computed, row["answer"]), f"computed {computed}, stored {row['answer']}"


@pytest.mark.parametrize("row", MATH, ids=lambda row: row["unique_id"])
def test_solution_ends_in_the_boxed_answer(row: Row) -> None:
    assert last_boxed(row["solution"])[0] == row["answer"]
    assert row["solution"].count(r"\boxed{") == 1
    assert len(last_boxed(row["solution"])[1].split()) <= 3, "only a unit may follow the box"


@pytest.mark.parametrize("row", MATH, ids=lambda row: row["unique_id"])
def test_math_row_has_the_fields_of_math_500(row: Row) -> None:
    assert {field: type(value) for field, value in row.items()} == MATH_FIELDS
    assert list(row) == list(MATH_FIELDS)
    assert row["unique_id"].split("/")[:2] == ["mini", SUBJECTS[row["subject"]]]
    assert row["level"] in range(1, 6)
    for field in ("problem", "solution", "answer"):
        assert row[field] == row[field].strip() != ""
        assert "[asy]" not in row[field]
    assert row["problem"].count("$") % 2 == row["solution"].count("$") % 2 == 0


def test_math_problems_are_sixty_and_unique() -> None:
    assert len(MATH) == 60
    for field in ("unique_id", "problem"):
        assert len({row[field] for row in MATH}) == 60


def test_subjects_and_levels_are_balanced() -> None:
    subjects = Counter(row["subject"] for row in MATH)
    levels = Counter(row["level"] for row in MATH)
    assert set(subjects) == set(SUBJECTS)
    assert set(subjects.values()) == {8, 9}
    assert [levels[level] for level in range(1, 6)] == [15, 14, 13, 10, 8]


@pytest.mark.parametrize("size", range(7, 61))
def test_prefixes_mix_the_subjects_evenly(size: int) -> None:
    counts = Counter(row["subject"] for row in MATH[:size])
    assert set(counts) == set(SUBJECTS)
    assert max(counts.values()) - min(counts.values()) <= 1


def test_problems_get_harder_along_the_file() -> None:
    levels = [row["level"] for row in MATH]
    assert max(levels[:14]) <= 2
    assert max(levels[:28]) <= 3
    thirds = [sum(levels[start : start + 20]) for start in (0, 20, 40)]
    assert thirds == sorted(set(thirds))


def test_instructions_are_forty_and_unique() -> None:
    assert len(INSTRUCTIONS) == 40
    for field in ("instruction", "output"):
        assert len({row[field] for row in INSTRUCTIONS}) == 40


@pytest.mark.parametrize("row", INSTRUCTIONS, ids=lambda row: row["instruction"][:40])
def test_instruction_row_has_the_fields_of_alpaca_eval(row: Row) -> None:
    assert list(row) == INSTRUCTION_FIELDS
    assert row["dataset"] == "powerbench-mini"
    assert row["generator"] == "powerbench-reference"
    assert row["instruction"] == row["instruction"].strip() != ""
    assert row["output"] == row["output"].strip()
    assert 30 <= len(row["output"].split()) <= 90
