r"""Answers in one spelling, as votes count them: equal ones agree, others do not, in no time.

Run: pytest tests/verifiers/math/test_canonical.py
"""

import json
import random
import time

import pytest
from test_math import PAIRS

from powerbench.types import Problem, Prompt
from powerbench.verifiers.common import Answering
from powerbench.verifiers.math import MathVerifier
from powerbench.verifiers.math.canonical import LONG, canonical

ALIKE = [
    [r"\frac12", r"\dfrac{1}{2}", "0.5", ".50", "1/2", r"$\frac{2}{4}$", "½", r"x=\frac12"],
    ["-0.5", r"-\frac{1}{2}", "-1/2", "−0.5"],
    ["0", "0.0", "-0"],
    ["12,345", "12345", "12345.", "12 345", r"12{,}345", r"\$12,345"],
    [r"\text{Monday}", r"\textbf{monday}", "Monday", r"\text{ Monday.}"],
    ["(1,2)", "(1, 2)", r"\left(1,2\right)", r"(1,\frac{4}{2})"],
    [r"\{2,1\}", r"\{1, 2\}", r"\left\{1,2\right\}"],
    ["1,2", "2, 1", "1 \\text{ and } 2"],
    [r"\pm 2", "2,-2", "-2, 2"],
    ["[0,1)", r"x \in [0,1)"],
    ["5", "5\\%", r"5\text{ cm}", r"5^\circ", r"5\text{ apples}"],
    [r"\text{(C)}", "(C)", "C", "c"],
    [r"3\sqrt{3}", r"3\sqrt{3} "],
    ["1/0"],
    [r"\sqrt{4}"],
    ["(2,1)"],
    [r"\frac{a}{b}"],
    [
        "7/4",
        r"1\frac{3}{4}",
        r"\frac{14}{8} = \frac{7}{4} = 1.75",
        r"1.75 \text{ or } \frac74",
        "1¾",
    ],
    ["6.72e-5", r"6.72 \times 10^{-5}", "0.0000672", "6.72×10⁻⁵"],
    ["3e8", "300000000", r"3 \cdot 10^8", "3e+8"],
    ["1:2:3", "2 : 4 : 6"],
    ["4:30", "４:30"],
    ["a=1, b=2", "b=2,a=1", "(a,b)=(1,2)"],
    ["a=2, b=1"],
    ["x=3, x=4", "3,4", "4, 3", r"x=4 \text{ or } x=3"],
    ["x>2", r"\{x \mid x > 2\}", "x＞2"],
    ["52_8", "52₈", r"52_{\text{eight}}", r"52\text{ base }8"],
    ["AB"],
    ["ab"],
    [r"\sqrt{51}", "√51", "sqrt(51)", r"\sqrt(51)"],
    [r"\sin x", "sin x", r"\operatorname{sin} x"],
    ["12", "12 square units", "12th", r"\text{The answer is 12.}", "12 km/h"],
]


@pytest.mark.parametrize("alike", ALIKE, ids=lambda a: a[0])
def test_equal_answers_have_one_spelling(alike: list[str]) -> None:
    assert len({canonical(answer) for answer in alike}) == 1


def test_other_answers_have_another() -> None:
    spellings = [canonical(alike[0]) for alike in ALIKE]
    assert len(set(spellings)) == len(ALIKE)


def test_real_answers_agree_with_a_careful_reader() -> None:
    if not PAIRS.exists():
        pytest.skip(f"the real answer pairs are not here: {PAIRS}")
    pairs = [json.loads(line) for line in PAIRS.read_text().splitlines()]
    same = [canonical(pair["gold"]) == canonical(pair["answer"]) for pair in pairs]
    assert not [pair for pair, one in zip(pairs, same, strict=True) if one and not pair["equal"]]
    equal = [one for pair, one in zip(pairs, same, strict=True) if pair["equal"]]
    assert sum(equal) >= 0.99 * len(equal)


def test_noise_is_spelt_somehow_and_soon() -> None:
    pieces = [
        r"\text{",
        "1,",
        "{",
        "}",
        r"\{",
        "(",
        ")",
        " ",
        "1 ",
        "a",
        r"\,",
        "$",
        "1,000",
        "_",
        r"\frac",
    ]
    pieces += [
        "=",
        "or ",
        "-",
        ".",
        "\\",
        "^",
        r"\pm ",
        "x_",
        "~",
        "[1,",
        r"\left",
        r"\boxed{",
        "0/",
        "%",
        "²",
    ]
    dice = random.Random(0)
    noises = ["".join(dice.choices(pieces, k=dice.randint(1, 150))) for _ in range(300)]
    noises += [(a + b) * 100 for a in pieces for b in ("1,", ")", "{")]
    verifier = MathVerifier(workers=1)
    for noise in noises:
        began = time.process_time()
        verifier.answer(Problem("1", Prompt(""), ""), rf"\boxed{{{noise}}}")
        canonical(noise[:LONG])
        assert time.process_time() - began < 1


def test_the_last_box_is_the_answer() -> None:
    verifier = MathVerifier(workers=1)
    problem = Problem("1", Prompt(""), "")
    assert isinstance(verifier, Answering)
    assert verifier.answer(problem, r"\boxed{1}, or \boxed{0.50}.") == "1/2"
    for nothing in ("the answer is 9", r"\boxed{}", r"\boxed{8"):
        assert verifier.answer(problem, nothing) is None
