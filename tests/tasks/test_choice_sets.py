r"""Sets of multiple-choice questions by the names of their columns: options, answers, bad input.

Run: pytest tests/tasks/test_choice_sets.py
"""

import json
from pathlib import Path
from typing import Any

import pytest

from powerbench.config import compose
from powerbench.errors import UserError
from powerbench.tasks.choice_set import ChoiceSet
from powerbench.tasks.gpqa_diamond import GPQADiamond
from powerbench.tasks.reading import read_file
from powerbench.types import Problem
from powerbench.verifiers.choice import ChoiceVerifier

COLOURS = {"question": "Which?", "choices": ["red", "green", "blue"], "answer": "B"}
COLUMNS = {"question": "Which?", "A": "red", "B": "green", "C": "blue", "D": "", "answer": "B"}
LETTERS = ["A", "B", "C", "D"]


def saved(folder: Path, *rows: Any) -> str:
    (folder / "set.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return str(folder / "set.jsonl")


def only(folder: Path, row: dict[str, Any], **settings: Any) -> Problem:
    (problem,) = ChoiceSet(path=saved(folder, row), **settings).problems("base")
    return problem


@pytest.mark.parametrize(
    ("row", "settings"),
    [
        (COLOURS, {}),
        (COLOURS | {"answer": "b"}, {}),
        (COLOURS | {"answer": "(B)"}, {}),
        (COLOURS | {"answer": 1}, {"answer_form": "index"}),
        (COLOURS | {"answer": 2}, {"answer_form": "number"}),
        (COLOURS | {"answer": "green"}, {"answer_form": "text"}),
        (COLUMNS, {"choices": LETTERS}),
        (COLUMNS | {"answer": 1}, {"choices": LETTERS, "answer_form": "index"}),
        (COLUMNS | {"answer": "B"}, {"choices": LETTERS, "answer_form": "text"}),
        ({"question": "Which?", "choices": {"text": ["red", "green", "blue"], "label": ["1", "2", "3"]},
          "answer": "2"}, {}),
        ({"question": "Which?", "x": "red", "y": "green", "z": "blue", "answer": "B"},
         {"choices": ["x", "y", "z"]}),
    ],
)  # fmt: skip
def test_options_and_the_right_one_are_read_in_every_form(
    tmp_path: Path, row: dict[str, Any], settings: dict[str, Any]
) -> None:
    problem = only(tmp_path, row, **settings)
    assert problem.gold == "B"
    assert problem.meta["options"] == ["red", "green", "blue"]
    scores = {x: ChoiceVerifier().score(problem, rf"So \boxed{{{x}}}.").correct for x in "ABC"}
    assert scores == {"A": False, "B": True, "C": False}


def test_letters_count_options_that_are_missing(tmp_path: Path) -> None:
    row = {"question": "Which?", "x": "red", "y": None, "z": "blue", "answer": "C"}
    problem = only(tmp_path, row, choices=["x", "y", "z"])
    assert (problem.meta["options"], problem.gold) == (["red", "blue"], "B")


def test_the_official_prompt_is_that_of_gpqa(tmp_path: Path) -> None:
    row = {
        "Question": "Which?",
        "Correct Answer": "red",
        "Incorrect Answer 1": "green",
        "Incorrect Answer 2": "blue",
        "Incorrect Answer 3": "grey",
        "Record ID": "r1",
    }
    path = saved(tmp_path, row)
    (gpqa,) = GPQADiamond(path=path).problems("base")
    columns = [name for name in row if "Answer" in name]
    own = only(
        tmp_path,
        row | {"right": "Correct Answer"},
        question="Question",
        choices=columns,
        answer="right",
        answer_form="text",
        id="Record ID",
        shuffle=True,
    )
    assert (own.id, own.gold, own.prompt) == (gpqa.id, gpqa.gold, gpqa.prompt)
    three = only(tmp_path, COLOURS).prompt.text
    assert "where LETTER is one of ABC (ex." in three
    assert three.endswith("Which?\n\nA) red\nB) green\nC) blue")


def test_shuffling_follows_from_the_id_alone(tmp_path: Path) -> None:
    rows = [COLOURS | {"id": i} for i in range(40)]
    path = saved(tmp_path, *rows)
    shuffled = ChoiceSet(path=path, id="id", shuffle=True).problems("base")
    for problem in shuffled:
        place = "ABC".index(problem.gold)
        assert problem.meta["options"][place] == "green"
    assert {problem.gold for problem in shuffled} == set("ABC")
    alone = only(tmp_path, rows[7], id="id", shuffle=True)
    assert alone == shuffled[7]


def test_prompts_of_other_styles(tmp_path: Path) -> None:
    assert only(tmp_path, COLOURS, prompt_style="plain").prompt.text.startswith("Which?\n\nA) red")
    own = only(tmp_path, COLOURS, prompt="{letters}: {question}").prompt.text
    assert own == "ABC: Which?\n\nA) red\nB) green\nC) blue"
    braces = COLOURS | {"question": "Which of {letters}?"}
    assert "Which of {letters}?" in only(tmp_path, braces).prompt.text
    few = only(tmp_path, COLOURS, prompt_style="few_shot").prompt.text
    assert few.count("Answer:") == 3
    assert few.endswith("Which?\n\nA) red\nB) green\nC) blue\n\nAnswer:")
    (turn,) = ChoiceSet(path=saved(tmp_path, COLOURS)).problems("instruct")
    assert turn.prompt.chat


def test_the_bundled_examples_box_a_letter_of_theirs() -> None:
    for row in read_file("bundled:examples/choice.jsonl"):
        letter = row.record["solution"].partition("\\boxed{")[2][0]
        assert letter in "ABCD"[: len(row.record["choices"])]


def test_the_columns_are_set_on_the_command_line(tmp_path: Path) -> None:
    path = saved(tmp_path, COLUMNS)
    config = compose(["task=choice_set", f"task.path={path}", "task.choices=[A,B,C,D]"])
    assert config.choices["verifier"] == "choice"
    (problem,) = config.build("task").problems("base")
    assert problem.gold == "B"


@pytest.mark.parametrize(
    ("row", "settings", "said"),
    [
        (
            {"answer": "D"},
            {},
            "line 2: 'answer' must name one of the 3 options by its letter, got 'D'",
        ),
        ({"answer": 3}, {"answer_form": "index"}, "by its index, got '3'"),
        ({"answer": 0}, {"answer_form": "number"}, "by its number, got '0'"),
        ({"answer": "grey"}, {"answer_form": "text"}, "by its text, got 'grey'"),
        ({"answer": None}, {}, "line 2: 'answer' is missing"),
        (
            {"choices": "red, green"},
            {},
            "line 2: 'choices' must be a list of options, got 'red, green'",
        ),
        ({"choices": ["red"]}, {}, "line 2: a question must have 2 to 26 options, got 1"),
        ({"choices": ["red", ""]}, {}, "line 2: 'choices[1]' is blank"),
        ({"choices": ["red", None]}, {}, "line 2: 'choices[1]' is missing"),
        (
            {},
            {"choices": ["A", "B"]},
            "unknown column task.choices = 'A'; known: answer, choices, question",
        ),
        ({}, {"choices": ["question", "B"]}, "unknown column task.choices[1] = 'B'"),
        ({}, {"answer_form": "leter"}, "unknown task.answer_form 'leter' (did you mean 'letter'?)"),
    ],
)
def test_bad_input_is_one_line_that_names_it(
    tmp_path: Path, row: dict[str, Any], settings: dict[str, Any], said: str
) -> None:
    form = settings.get("answer_form")
    good = COLOURS | {"answer": {"index": 1, "number": 2, "text": "green"}.get(form, "B")}
    with pytest.raises(UserError) as caught:
        ChoiceSet(path=saved(tmp_path, good, good | row), **settings).problems("base")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
