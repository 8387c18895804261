r"""The math verifier: which box is read, what counts as equal, and that nothing makes it hang.

Run: pytest tests/verifiers/test_math.py
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from powerbench.errors import UserError
from powerbench.types import Problem, Prompt, Score
from powerbench.verifiers.math import MathVerifier, last_boxed

PAIRS = Path(__file__).parents[2].parent / "shared/data/math_answers.jsonl"


@pytest.fixture(scope="module")
def verifier() -> Iterator[MathVerifier]:
    verifier = MathVerifier()
    yield verifier
    verifier.close()


def judge(verifier: MathVerifier, gold: str, answer: str) -> Score:
    text = rf"We see that the answer is $\boxed{{{answer}}}$. Done."
    return verifier.score(Problem("1", Prompt(""), gold, {"subject": "Algebra"}), text)


@pytest.mark.parametrize(
    ("text", "content"),
    [
        (r"\boxed{1} and then \boxed{2}", "2"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"so \fbox{7}.", "7"),
        (r"\boxed {7}", "7"),
        (r"\boxed{\left\{ 1 \right.}", r"\left\{ 1 \right."),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{3} is not \boxed{4", "3"),
        (r"a stray { and \boxed{5} and a stray }", "5"),
        (r"\boxed{\boxed{6}}", "6"),
        (r"\boxed{}", ""),
        (r"\boxed{8", None),
        ("the answer is 9", None),
        ("", None),
    ],
)
def test_the_last_balanced_box_is_read(text: str, content: str | None) -> None:
    assert last_boxed(text) == content


def test_without_a_box_the_response_is_wrong(verifier: MathVerifier) -> None:
    score = verifier.score(Problem("1", Prompt(""), "5", {"subject": "Algebra"}), "It is 5.")
    assert score == Score(correct=False, reason="no boxed answer")


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("5", "5"),
        (r"\frac{1}{2}", "0.5"),
        (r"\frac{1}{2}", r"\dfrac12"),
        (r"\frac{9}{256}", r"\frac{9}{256}."),
        ("10,080", "10080"),
        (r"10,\!080", "10080"),
        ("2000", r"2\,000"),
        ("1000000", r"1\,000\,000"),
        ("5", r"5\text{ cm}"),
        ("76^\\circ", "76"),
        ("10", r"10\%"),
        (r"\$36", "36"),
        ("5", r"\(5\)"),
        ("2516_8", "2516_{8}"),
        ("3, 5, 7", "7,5,3"),
        (r"\text{Evelyn}", "Evelyn"),
        (r"3\sqrt{13}", r"\sqrt{117}"),
        ("x=5", "5"),
    ],
)
def test_equal(verifier: MathVerifier, gold: str, answer: str) -> None:
    score = judge(verifier, gold, answer)
    assert score.correct is True
    assert score.extracted == answer


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("5", "6"),
        ("5", ""),
        ("5", "{}"),
        ("(1,2)", "(2,1)"),
        ("(2,12)", "[2,12)"),
        ("445_6", "445"),
        ("445_6", "445_7"),
        (r"\text{even}", r"\text{odd}"),
        ("5", "5 or 6"),
        ("5", r"\frac{" * 400),
        ("5", "9**9**9**9"),
    ],
)
def test_not_equal(verifier: MathVerifier, gold: str, answer: str) -> None:
    assert judge(verifier, gold, answer).correct is False


@pytest.mark.parametrize("answer", ["99999999!", "9^{9^{9^9}}"])
def test_an_answer_that_takes_too_long_is_undecided(answer: str) -> None:
    verifier = MathVerifier(timeout=0.5)
    score = judge(verifier, "5", answer)
    assert score == Score(extracted=answer, reason="timed out")
    assert score.value is None
    assert judge(verifier, r"\frac{1}{2}", "0.5").correct is not False
    verifier.close()


def test_it_scores_again_after_close(verifier: MathVerifier) -> None:
    verifier.close()
    assert judge(verifier, "0.5", r"\frac{1}{2}").correct is True


def test_an_impossible_timeout_is_refused() -> None:
    with pytest.raises(UserError, match="timeout must be > 0"):
        MathVerifier(timeout=0)


def test_agrees_with_a_careful_reader_on_real_answers(verifier: MathVerifier) -> None:
    if not PAIRS.exists():
        pytest.skip("the real answer pairs are not here")
    pairs = [json.loads(line) for line in PAIRS.read_text().splitlines()[::3]]
    agree = [
        judge(verifier, pair["gold"], pair["answer"]).correct == pair["equal"] for pair in pairs
    ]
    assert sum(agree) / len(agree) >= 0.998
