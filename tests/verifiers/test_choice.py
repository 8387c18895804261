r"""The verifier of multiple choice: which contents of the last box name an option, and which do not.

Run: pytest tests/verifiers/test_choice.py
"""

import pytest

from powerbench.config import compose
from powerbench.errors import UserError
from powerbench.types import Problem, Prompt, Score
from powerbench.verifiers.choice import ChoiceVerifier

OPTIONS = ["5.2 eV", "C. elegans", "vitamin D and $x_1$", "c"]


def judge(text: str, gold: str = "A", options: list[str] = OPTIONS) -> Score:
    return ChoiceVerifier().score(Problem("1", Prompt(""), gold, {"options": options}), text)


def read(content: str, options: list[str] = OPTIONS) -> str | None:
    """The letter that is read in a box with this content."""
    score = judge(rf"Thus \boxed{{{content}}}.", options=options)
    return None if score.reason == "no letter boxed" else score.answer


@pytest.mark.parametrize(
    "content",
    [
        "A",
        "(A)",
        "[A]",
        "A)",
        "A.",
        " A ",
        r"\text{A}",
        r"\text{ (A) }",
        r"\textbf{A}",
        r"\mathrm{(A)}",
        r"\mathbf A",
        r"\rm{A}",
        r"\mbox{A}.",
        "{A}",
        "$A$",
        "$A",  # as the prompt's own example reads, word for word
        r"\(A\)",
        r"A\,",
        "**A**",
        "a",
        "(a)",
        "Option A",
        r"\text{answer: (A)}",
        "The correct answer is A",
        "A) 5.2 eV",
        r"A) 5.2\text{ eV}",
        r"\text{(A) } 5.2 \text{ eV}",
        "A: 5.2 electron volts",
        "A. 5.2 eV",
        "A)5.2",
        "a) 5.2 eV",
        "A) of 5.2 eV, so (A)",
        r"\Large\text{A}",
        r"\huge A",
        r"\displaystyle A",
        r"\color{red}{A}",
        r"\textcolor{blue}{A}",
        r"\colorbox{yellow}{A}",
        r"\underline{A}",
        r"\operatorname{A}",
        r"\mathtt{A}",
        "Ａ",
        "（Ａ）",
        "𝐀",
        "A - 5.2 eV",
        "A – 5.2 eV",
        "A, 5.2 eV",
        r"A \quad 5.2 eV",
        r"\text{Option A: }5.2",
    ],
)
def test_a_letter_is_read_in_any_dress(content: str) -> None:
    assert read(content) == "A"


@pytest.mark.parametrize(
    "content",
    [
        "",
        " ",
        "E",
        "AB",
        "A, B",
        "A or B",
        "A) or B)",
        "(A) and (C)",
        "A/B",
        "A'",
        r"\hat{A}",
        r"\mathbb{C}",
        "A-form",
        "A beam",
        "A - B",
        "A 5.3 eV",
        r"\overline{A}",
        "not A",
        "1",
        "LETTER",
        "$LETTER",
        "5.2 eV",
        "\u0410",  # a Cyrillic letter
    ],
)
def test_anything_else_names_no_option(content: str) -> None:
    assert read(content) is None


def test_an_options_text_is_not_taken_for_a_letter() -> None:
    assert read("C. elegans") is None
    assert read("c") is None
    assert read("b") == "B"
    assert read("C") == "C"
    assert [read(letter, ["B", "A", "D", "C"]) for letter in "ABCD"] == list("ABCD")


def test_another_letter_is_allowed_in_the_named_options_own_text() -> None:
    assert read("C) vitamin D and $x_1$") == "C"
    assert read("c) Vitamin D and $x_{1}$.") == "C"
    assert read("B) vitamin D and $x_1$") is None


def test_as_many_letters_as_options() -> None:
    assert read("C", ["no", "yes"]) is None
    assert read("B", ["no", "yes"]) == "B"
    assert read("J", [str(i) for i in range(10)]) == "J"


@pytest.mark.parametrize(
    ("text", "score"),
    [
        (r"\boxed{B}, no: \boxed{A}", Score(True, None, "A", "the right letter", "letter")),
        (r"\boxed{A}, no: \fbox{(b)}", Score(False, None, "B", "another letter", "letter")),
        (r"A: \boxed{A}, or \boxed{5}", Score(False, None, "5", "no letter boxed", "letter")),
        (r"\boxed{A} and \boxed{B", Score(True, None, "A", "the right letter", "letter")),
        (r"\boxed{A} as asked, in \boxed{}", Score(True, None, "A", "the right letter", "letter")),
        (
            r"\boxed{A}: a \boxed{\text{LETTER}}",
            Score(True, None, "A", "the right letter", "letter"),
        ),
        (r"$\\boxed{A}$", Score(True, None, "A", "the right letter", "letter")),
        ("The answer is A.", Score(False, None, None, "no boxed answer", "letter")),
        ("", Score(False, None, None, "no boxed answer", "letter")),
    ],
)
def test_the_last_box_decides(text: str, score: Score) -> None:
    assert judge(text) == score


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("So it is A.", Score(True, None, "A", "the right letter", "letter")),
        (r"\boxed{A}", Score(True, None, "A", "the right letter", "letter")),
        (r"\boxed{A}, as B is not.", Score(False, None, "B", "another letter", "letter")),
        (
            r"\boxed{\text{B}}. This is a guess.",
            Score(True, None, "A", "the right letter", "letter"),
        ),
        ("(b) with vitamin-D", Score(False, None, "D", "another letter", "letter")),
        ("A\u043a\u0438", Score(True, None, "A", "the right letter", "letter")),
        ("AB, A1, A_1 and Ä", Score(False, None, None, "no letter stands free", "letter")),
        ("", Score(False, None, None, "no letter stands free", "letter")),
    ],
)
def test_the_official_code_takes_the_last_letter_that_stands_free(text: str, score: Score) -> None:
    verifier = ChoiceVerifier(mode="official")
    problem = Problem("1", Prompt(""), "A", {"options": OPTIONS})
    assert verifier.score(problem, text) == score
    assert verifier.answer(problem, text) == score.answer


def test_a_mode_is_chosen_by_the_name_of_its_yaml_and_scores_under_that_name() -> None:
    for name in ("choice", "choice_official"):
        assert compose([f"verifier={name}"]).build("verifier").name == name
    with pytest.raises(UserError, match=r"unknown verifier\.mode 'offical' \(did you mean 'off"):
        ChoiceVerifier(mode="offical")


def test_no_response_makes_it_hang() -> None:
    for content in (
        "A) " + "(" * 100_000,
        "answer " + " " * 100_000,
        "A" * 100_000,
        "\\" * 99_999,
        "²" * 99_999,
    ):
        assert judge(rf"\boxed{{{content}}}").correct is not None
        official = ChoiceVerifier(mode="official")
        problem = Problem("1", Prompt(""), "A", {"options": OPTIONS})
        assert official.score(problem, content).correct is not None


def test_a_problem_without_options_is_refused() -> None:
    with pytest.raises(UserError, match="verifier 'choice' needs 'options', which problem 7 lacks"):
        ChoiceVerifier().score(Problem("7", Prompt(""), "2", {"subject": "Algebra"}), r"\boxed{A}")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"\boxed{A}, no: \fbox{(b)}", "B"),
        (r"\boxed{Option B}", "B"),
        (r"A: \boxed{A}, or \boxed{5}", None),
        ("The answer is A.", None),
    ],
)
def test_the_answer_is_the_letter_that_is_judged(text: str, answer: str | None) -> None:
    assert (
        ChoiceVerifier().answer(Problem("1", Prompt(""), "A", {"options": OPTIONS}), text) == answer
    )
    assert ChoiceVerifier().answer(Problem("7", Prompt(""), "2"), text) is None


@pytest.mark.parametrize("mode", ["default", "official"])
def test_an_answer_that_was_read_is_graded_as_its_response_is(mode: str) -> None:
    verifier = ChoiceVerifier(mode)
    problem = Problem("1", Prompt(""), "A", {"options": OPTIONS})
    for text in (r"\boxed{A}", r"\boxed{B) C. elegans}, not A", r"\boxed{5.2 eV}", "it is a", "?"):
        said, score = verifier.read(text), verifier.score(problem, text)
        assert (said is None) == (score.correct is False and score.answer is None)
        assert said is None or verifier.grade(problem, said) == score
