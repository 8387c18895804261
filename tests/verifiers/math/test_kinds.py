r"""What counts as the same answer, kind by kind, and which box is read.

Run: pytest tests/verifiers/math/test_kinds.py
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import powerbench.verifiers
from powerbench.types import Problem, Prompt
from powerbench.verifiers.math import MathVerifier

README = Path(powerbench.verifiers.__file__).with_name("README.md")
TABLE = Path(__file__).with_name("kinds.txt")
EQUAL, DIFFERENT = "  =  ", "  !=  "


def pairs(sign: str) -> list[tuple[str, str]]:
    """(gold, answer), from each line of the table with this sign between them."""
    lines = [line for line in TABLE.read_text(encoding="utf-8").splitlines() if line[:2] != "# "]
    split = (line.partition(sign) for line in lines)
    return [(gold, answer) for gold, found, answer in split if found]


@pytest.fixture(scope="module")
def verifier() -> Iterator[MathVerifier]:
    verifier = MathVerifier(workers=2)
    yield verifier
    verifier.close()


def is_right(verifier: MathVerifier, gold: str, response: str) -> bool | None:
    return verifier.score(Problem("1", Prompt(""), gold, {"subject": "Algebra"}), response).correct


@pytest.mark.parametrize(("gold", "answer"), pairs(EQUAL))
def test_equal(verifier: MathVerifier, gold: str, answer: str) -> None:
    assert is_right(verifier, gold, rf"It is $\boxed{{{answer}}}$.") is True


@pytest.mark.parametrize(("gold", "answer"), pairs(DIFFERENT))
def test_not_equal(verifier: MathVerifier, gold: str, answer: str) -> None:
    assert is_right(verifier, gold, rf"It is $\boxed{{{answer}}}$.") is False


def test_spaces_that_are_not_seen_do_not_count(verifier: MathVerifier) -> None:
    for answer in ("1\N{ZERO WIDTH SPACE}2", "12\N{NO-BREAK SPACE}", "\N{THIN SPACE}12"):
        assert is_right(verifier, "12", rf"\boxed{{{answer}}}") is True


def page() -> list[tuple[str, str, bool]]:
    """(gold, answer, whether they are the same), from the page of examples: groups end with a semicolon."""
    table = README.read_text(encoding="utf-8").partition("## What counts")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| ")]
    cells = [
        (cell, same) for row in rows[1:] for cell, same in zip(row[1:], (True, False), strict=True)
    ]
    groups = [
        (re.findall("`([^`]+)`", group), same) for cell, same in cells for group in cell.split(";")
    ]
    return [(gold, answer, same) for (gold, *others), same in groups for answer in others]


@pytest.mark.parametrize(("gold", "answer", "same"), page())
def test_the_page_of_examples_is_true(
    verifier: MathVerifier, gold: str, answer: str, same: bool
) -> None:
    assert is_right(verifier, gold, rf"\boxed{{{answer}}}") is same


RESPONSES = [
    ("-2,1", r"So the solutions are $x=\boxed{-2}$ and $x=\boxed{1}$.", True),
    ("5", "```\n\\\\boxed{5}\n```", True),
    ("5", r"The answer is $\\boxed{5}$.", True),
    ("42", r"So $\boxed{42}$. As asked, I have put the final answer within \boxed{}.", True),
    ("-2,1", r"\boxed{-2}, \boxed{1}", True),
    (r"\frac{1}{2}", r"The answer is $\\boxed{\\frac{1}{2}}$.", True),
    (r"\text{(C)}", r"\boxed{\textbf{(C)}\ 5}", True),
    (r"\text{(C)}", r"\boxed{C: the third one}", True),
    ("3,4", r"So $\boxed{3}$ and $\boxed{4}$.", True),
    ("3,4", r"$x = \boxed{3}$ or $x = \boxed{4}$", True),
    ("1,2,3", r"\boxed{1}, \boxed{2}, \boxed{3}", True),
    ("1,2,3", r"$\boxed{1}$, $\boxed{2}$, and $\boxed{3}$.", True),
    ("9", r"$\boxed{9}$ I put it in \boxed{}", True),
    ("9", r"$\boxed{9}$. Format: \boxed{answer}", True),
    ("9", r"$\boxed{9}$. Format: \boxed{\text{your answer}}", True),
    ("9", r"$\boxed{9}$ \boxed{ }", True),
    ("9", r"$\boxed{9}$ \boxed{...}", True),
    ("9", r"$\boxed{9}$ \boxed{\ldots}", True),
    ("9", r"\\boxed{9}", True),
    (r"\frac34", r"\\boxed{\\frac{3}{4}}", True),
    (r"\frac34", r"\\boxed{\\dfrac{3}{4}}", True),
    ("9", r"\\fbox{9}", True),
    ("9", r"\boxed{8} so finally \boxed{9}", True),
    ("8", r"\boxed{8} so finally \boxed{9}", False),
    ("9", r"Put the answer in \boxed{}. So \boxed{9}.", True),
    ("9", r"\boxed{}", False),
    ("3,4", r"$\boxed{3}$ and $\boxed{5}$.", False),
    (r"\sqrt{2}", r"\\boxed{\\sqrt{2}}", True),
    ("9", r"\boxed{9} \boxed{\text{Answer}}", True),
    ("9", r"\boxed{9} (as \boxed{\phantom{0}})", True),
    ("9", r"\boxed{9} \boxed{?}", True),
    ("9", r"\boxed{9} \boxed{\square}", True),
    ("-1,5", r"x_1 = \boxed{-1}, x_2 = \boxed{5}", True),
    ("-1,5", r"$$x = \boxed{-1} \quad \text{and} \quad x = \boxed{5}$$", True),
    ("9", r"\boxed{9} \boxed{\boxed{}}", True),
    ("9", r"The answer is $\boxed{9}$, i.e. \boxed{\mbox{final answer}}", True),
    ("9", r"$\boxed{9}$ \boxed{your final answer here}", True),
    ("9", r"$\boxed{9}$ \boxed{<answer>}", True),
    ("9", r"$\boxed{9}$ \boxed{[answer]}", True),
    ("9", r"$\boxed{9}$ \boxed{X}", False),
]
"""Gold answer, response, and whether it is right."""


@pytest.mark.parametrize(("gold", "response", "right"), RESPONSES)
def test_the_box_that_holds_the_answer_is_read(
    verifier: MathVerifier, gold: str, response: str, right: bool
) -> None:
    assert is_right(verifier, gold, response) is right
