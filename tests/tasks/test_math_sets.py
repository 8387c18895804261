r"""Sets of mathematical problems: GSM8K, AIME, AMC, MATH and any other, by the names of their columns.

Run: pytest tests/tasks/test_math_sets.py
"""

import json
from pathlib import Path
from typing import Any

import pytest

from powerbench.config import compose
from powerbench.errors import UserError
from powerbench.run.prepare import prepare
from powerbench.tasks.math_set import MathSet
from powerbench.tasks.reading import read_file
from powerbench.types import Prompt
from powerbench.verifiers.math import MathVerifier

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared/data"
ROWS = [{"q": "What is 2 + 2?", "a": "4"}, {"q": "What is 2 · 3?", "a": "6"}]


def saved(folder: Path, *rows: dict[str, Any] | str, name: str = "set.jsonl") -> str:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (folder / name).write_text("".join(f"{line}\n" for line in lines))
    return str(folder / name)


def shared(name: str) -> str:
    if not (SHARED / name).exists():
        pytest.skip(f"the real data set {name} is not here")
    return str(SHARED / name)


def task_of(*overrides: str) -> Any:
    return compose(list(overrides)).build("task")


# -- the real sets --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "size", "some"),
    [
        ("gsm8k", 1319, {"1": "18", "2": "3", "3": "70000"}),
        ("aime24", 30, {"aime24/60": "204", "aime24/61": "113"}),
        ("amc23", 40, {"amc23/0": "27", "amc23/1": "36"}),
    ],
)
def test_the_real_sets_have_their_size_and_answers(
    name: str, size: int, some: dict[str, str]
) -> None:
    task = task_of(f"task={name}", f"task.path={shared(f'{name}.jsonl')}")
    gold = {problem.id: problem.gold for problem in task.problems("base")}
    assert len(gold) == size
    assert some.items() <= gold.items()
    assert task.source()["rows"] == size


@pytest.mark.parametrize("name", ["gsm8k", "aime24", "amc23"])
def test_every_gold_answer_is_right_and_its_neighbour_wrong(name: str) -> None:
    """As it stands in the data set, and as the task has it; AIME's also with three digits."""
    task = task_of(f"task={name}", f"task.path={shared(f'{name}.jsonl')}")
    verifier = MathVerifier()
    problems = {problem.gold: problem for problem in task.problems("base")}
    try:
        for gold, problem in problems.items():
            said = {gold, f"{int(gold):,}", f"{gold}.0"} | (
                {f"{gold:0>3}"} if "aime" in name else set()
            )
            for answer in said:
                assert verifier.score(problem, rf"So \boxed{{{answer}}}.").correct is True, answer
            wrong = str(int(gold) + 1)
            assert verifier.score(problem, rf"So \boxed{{{wrong}}}.").correct is False, gold
    finally:
        verifier.close()


def test_math_takes_answer_subject_and_level_from_a_solution() -> None:
    """MATH-500's own answers are those in the last box of its solutions."""
    path = shared("math500.jsonl")
    problems = task_of("task=math", f"task.path={path}", "task.subject=subject").problems("base")
    rows = [row.record for row in read_file(path)]
    assert [problem.gold for problem in problems] == [row["answer"] for row in rows]
    subjects = [(problem.meta["subject"], problem.meta["level"]) for problem in problems]
    assert subjects == [(row["subject"], row["level"]) for row in rows]


# -- forms of answers -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "stored", "gold"),
    [
        ("as_is", r"\frac{1}{2}", r"\frac{1}{2}"),
        ("as_is", 27.0, "27"),
        ("as_is", 0.5, "0.5"),
        ("number", 27.0, "27"),
        ("number", "27.0", "27"),
        ("number", " $1,450,000 ", "1450000"),
        ("number", "-0.50", "-0.50"),
        ("aime", "025", "25"),
        ("aime", 0, "0"),
        ("aime", "000", "0"),
        ("aime", 999, "999"),
        ("gsm8k", "She has 1,000 + 80 = <<1000+80=1080>>1080.\n#### 1,080", "1080"),
        ("gsm8k", "It falls.\n#### -3", "-3"),
        ("boxed", r"First $\boxed{3}$, so $x = \boxed{\frac{1}{2}}$.", r"\frac{1}{2}"),
        ("boxed", r"So $x = \boxed 4$ at last.", "4"),
        ("boxed", r"So $x = \boxed{5}$, not $\boxed4$.", "4"),
    ],
)
def test_a_gold_answer_is_read_in_its_form(
    tmp_path: Path, form: str, stored: Any, gold: str
) -> None:
    path = saved(tmp_path, {"question": "?", "answer": stored})
    (problem,) = MathSet(path=path, answer_form=form).problems("base")
    assert problem.gold == gold


@pytest.mark.parametrize(
    ("form", "stored", "said"),
    [
        ("number", "about 5", "must be a number, got 'about 5'"),
        ("number", "1e9999999", "must be a number"),
        ("number", "nan", "must be a number"),
        ("aime", 1000, "must be an integer from 000 to 999, got '1000'"),
        ("aime", "-1", "must be an integer from 000 to 999"),
        ("aime", "2.5", "must be an integer from 000 to 999"),
        ("gsm8k", "The answer is 5.", "must end in #### and a number"),
        ("gsm8k", "#### five", "must end in #### and a number"),
        ("boxed", "no box", r"must hold a \boxed{} answer, got 'no box'"),
        ("boxed", r"$\boxed{}$", "'answer' is blank"),
    ],
)
def test_an_answer_that_is_not_in_its_form_is_named_with_its_row(
    tmp_path: Path, form: str, stored: Any, said: str
) -> None:
    path = saved(
        tmp_path,
        {"question": "?", "answer": "7" if form != "boxed" else r"\boxed{7}"}
        | ({"answer": "#### 7"} if form == "gsm8k" else {}),
        {"question": "?", "answer": stored},
    )
    with pytest.raises(UserError) as caught:
        MathSet(path=path, answer_form=form).problems("base")
    assert str(caught.value).startswith(f"{path} line 2: ")
    assert said in str(caught.value)


# -- prompts --------------------------------------------------------------------------------------


def test_the_styles_are_those_of_math500_and_of_the_models_own_evaluations(tmp_path: Path) -> None:
    path = saved(tmp_path, {"question": "What is {question}?", "answer": "4"})

    def shown(kind: str = "base", **settings: Any) -> Prompt:
        return MathSet(path=path, **settings).problems(kind)[0].prompt

    plain = (
        "Can you solve the following math problem? What is {question}? Please reason step by step, "
        "and put your final answer within \\boxed{}."
    )
    assert shown() == Prompt(plain, chat=False)
    assert shown("instruct") == Prompt(plain, chat=True)
    assert shown(prompt_style="official").text == plain.replace("{}", "{{}}")
    assert shown(prompt_style="question_first").text == (
        "What is {question}?\nPlease reason step by step, and put your final answer within \\boxed{}."
    )
    own = shown("rl", prompt="Q: {question} A:", prompt_style="few_shot")
    assert own == Prompt("Q: What is {question}? A:", chat=True)
    assert shown("rl", prompt="Q: {question} A:", chat="never").chat is False


def test_few_shot_shows_examples_and_ends_with_a_line(tmp_path: Path) -> None:
    path = saved(tmp_path, {"question": "What is 2 + 2?", "answer": "4"})
    examples = saved(
        tmp_path,
        {"question": "One?", "solution": r"It is $\boxed{1}$."},
        {"question": "Two?", "solution": r"It is $\boxed{2}$."},
        name="examples.jsonl",
    )
    few = MathSet(path=path, prompt_style="few_shot", examples=examples, shots=1)
    (problem,) = few.problems("instruct")
    assert problem.prompt == Prompt(
        "Problem: One?\nSolution: It is $\\boxed{1}$.\n\nProblem: What is 2 + 2?\nSolution:",
        chat=False,
    )
    assert few.ends_with_line
    assert not MathSet(path=path).ends_with_line
    assert not MathSet(path=path, prompt_style="few_shot", one_line=False).ends_with_line
    assert MathSet(path=path, one_line=True).ends_with_line
    both = MathSet(path=path, prompt_style="few_shot", examples=examples)
    assert "Two?" in both.problems("base")[0].prompt.text
    several = saved(tmp_path, {"question": "One?", "solution": "a\nb"}, name="examples.jsonl")
    assert MathSet(path=path, prompt_style="few_shot", examples=several).ends_with_line is False


@pytest.mark.parametrize("name", ["gsm8k", "math_set"])
def test_the_bundled_examples_are_solved_rightly(tmp_path: Path, name: str) -> None:
    """Each ends in one box; and its number is what its last calculation gives."""
    path = saved(tmp_path, {"question": "?", "answer": "#### 4"})
    task = task_of(
        f"task={name}", f"task.path={path}", "task.answer_form=gsm8k", "task.prompt_style=few_shot"
    )
    text = task.problems("base")[0].prompt.text
    assert text.count("\\boxed{") == 4
    for example in read_file(task.examples):
        solution = example.record["solution"]
        assert solution.count("\\boxed{") == 1
        assert solution.endswith("}$.")
        if name == "gsm8k":
            *_, last = [
                part for part in solution.split() if part.endswith("kilometres") or part.isdigit()
            ]
            boxed = solution.partition("\\boxed{")[2].removesuffix("}$.")
            assert last == boxed


# -- columns and files ----------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_any_columns_of_any_file(tmp_path: Path, ending: str) -> None:
    import pandas as pd

    table, path = pd.DataFrame(ROWS), tmp_path / f"my.set.{ending}"
    if ending == "jsonl":
        table.to_json(path, orient="records", lines=True)
    elif ending == "csv":
        table.to_csv(path, index=False)
    else:
        table.to_parquet(path)
    task = task_of("task=math_set", f"task.path={path}", "task.question=q", "task.answer=a")
    assert task.name == "my.set"
    problems = task.problems("base")
    assert [(p.id, p.gold, p.meta) for p in problems] == [
        (str(i), row["a"], {"subject": "", "problem": row["q"]}) for i, row in enumerate(ROWS, 1)
    ]
    plain = MathSet(path=saved(tmp_path, *ROWS), question="q", answer="a")
    assert plain.problems("base") == problems
    if ending != "csv":  # where a number cannot be told from text
        assert plain.source()["sha256"] == task.source()["sha256"]


def test_ids_subjects_and_levels_come_from_columns(tmp_path: Path) -> None:
    rows = [{"question": "?", "answer": 1, "n": 7, "type": "Algebra", "level": "Level 3"}]
    (problem,) = MathSet(
        path=saved(tmp_path, *rows), id="n", subject="type", level="level"
    ).problems("base")
    assert (problem.id, problem.meta) == ("7", {"subject": "Algebra", "level": 3, "problem": "?"})


GOOD = {"question": "?", "answer": "1", "id": "a"}


@pytest.mark.parametrize(
    ("rows", "settings", "said"),
    [
        (
            [GOOD],
            {"question": "qestion"},
            "column task.question = 'qestion' (did you mean 'question'?); known: answer, id, question",
        ),
        (
            [GOOD],
            {"answer": "gold"},
            "unknown column task.answer = 'gold'; known: answer, id, question",
        ),
        ([GOOD], {"id": "key"}, "unknown column task.id = 'key'; known: answer, id, question"),
        ([GOOD], {"level": "lvl"}, "unknown column task.level = 'lvl'"),
        ([GOOD, GOOD], {"id": "id"}, "set.jsonl line 2: the problem id 'a' stands in"),
        ([GOOD, GOOD | {"id": " "}], {"id": "id"}, "set.jsonl line 2: 'id' is blank"),
        ([GOOD, GOOD | {"id": None}], {"id": "id"}, "set.jsonl line 2: 'id' is missing"),
        ([GOOD, GOOD | {"answer": None}], {}, "set.jsonl line 2: 'answer' is missing"),
        ([GOOD, GOOD | {"answer": "$$"}], {}, "set.jsonl line 2: 'answer' is blank"),
        (
            [GOOD, GOOD | {"answer": ["1"]}],
            {},
            "set.jsonl line 2: 'answer' must be a string, got ['1']",
        ),
        (
            [GOOD, GOOD | {"answer": True}],
            {},
            "set.jsonl line 2: 'answer' must be a string, got True",
        ),
        ([GOOD, GOOD | {"question": ""}], {}, "set.jsonl line 2: 'question' is blank"),
        ([GOOD, {"question": "?"}], {}, "set.jsonl line 2 lacks the field 'answer'"),
        ([GOOD, '{"question": "?", '], {}, "set.jsonl line 2 is not JSON"),
        (
            [GOOD],
            {"prompt_style": "oficial"},
            "unknown task.prompt_style 'oficial' (did you mean 'official'?)",
        ),
        ([GOOD], {"prompt": "Solve."}, "task.prompt must hold {question}"),
        (
            [GOOD],
            {"answer_form": "nmber"},
            "unknown task.answer_form 'nmber' (did you mean 'number'?)",
        ),
        ([GOOD], {"shots": 0}, "task.shots must be an integer >= 1, got 0"),
        (
            [GOOD],
            {"prompt_style": "few_shot", "shots": 9},
            "shots=9, but bundled:examples/math.jsonl has 4 rows",
        ),
        ([GOOD], {"prompt_style": "few_shot", "examples": None}, "needs task.examples"),
        (
            [GOOD],
            {"prompt_style": "few_shot", "examples": "no.jsonl"},
            "examples=no.jsonl: there is no such file",
        ),
        ([GOOD], {"chat": "sometimes"}, "unknown task.chat 'sometimes'"),
        ([GOOD], {"name": "a/b"}, "task.name='a/b' cannot name a folder"),
    ],
)
def test_bad_input_is_one_line_that_names_it(
    tmp_path: Path, rows: list[Any], settings: dict[str, Any], said: str
) -> None:
    path = saved(tmp_path, *rows)
    with pytest.raises(UserError) as caught:
        MathSet(path=path, **settings).problems("base")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_csv_row_that_lacks_a_value_is_named(tmp_path: Path) -> None:
    path = tmp_path / "set.csv"
    path.write_text("question,answer\nOne?,1\nTwo?,\n")
    with pytest.raises(UserError, match=r"set\.csv row 2: 'answer' is blank"):
        MathSet(path=str(path)).problems("base")


# -- the hub --------------------------------------------------------------------------------------


def test_a_hub_id_is_read_with_its_subset_split_and_revision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def load(hub: str, subset: str | None, *, split: str, revision: str | None) -> list[Any]:
        asked.append((hub, subset, split, revision))
        return [{"question": "What is 1 + 1?", "answer": "#### 2"}]

    monkeypatch.setattr("datasets.load_dataset", load)
    gsm8k = task_of("task=gsm8k")
    own = task_of("task=math_set", "task.path=some/Set", "task.split=train", "task.revision=abc",
                  "task.answer_form=gsm8k")  # fmt: skip
    assert [p.gold for p in gsm8k.problems("base")] == [p.gold for p in own.problems("base")]
    assert asked == [
        ("openai/gsm8k", "main", "test", "740312add88f781978c0658806c59bc2815b9866"),
        ("some/Set", None, "train", "abc"),
    ]
    assert own.name == "Set"
    source = own.source()
    assert (source["hub"], source["split"], source["revision"]) == ("some/Set", "train", "abc")
    local = MathSet(path=saved(tmp_path, {"question": "What is 1 + 1?", "answer": "#### 2"}))
    assert local.source()["sha256"] == source["sha256"] == gsm8k.source()["sha256"]


def test_the_library_that_reads_the_hub_is_called_as_it_wants(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder stands for a data set of the hub: `datasets` reads both."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "hub"
    folder.mkdir()
    saved(folder, {"question": "What?", "answer": 27.0}, name="test.jsonl")
    (problem,) = MathSet(hub=str(folder), name="a").problems("base")
    assert (problem.id, problem.gold) == ("1", "27")
    with pytest.raises(UserError, match=r'Unknown split "train".*test'):
        MathSet(hub=str(folder), name="a", split="train").problems("base")


def test_what_is_neither_a_file_nor_on_the_hub_is_said_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def load(*_: Any, **__: Any) -> Any:
        raise ConnectionError("no network\nat all")

    monkeypatch.setattr("datasets.load_dataset", load)
    for path, said in [
        (
            "no/set",
            "cannot load no/set at main from the hub (ConnectionError: no network); there is no local",
        ),
        ("no/such/set.jsonl", "task.path=no/such/set.jsonl: there is no such file"),
        ("set.jsonl", "task.path=set.jsonl: there is no such file"),
    ]:
        with pytest.raises(UserError) as caught:
            MathSet(path=path).problems("base")
        assert said in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(
        UserError, match=r"cannot load openai/gsm8k at 740312a .*set task\.path=<local"
    ):
        task_of("task=gsm8k").problems("base")


# -- the run --------------------------------------------------------------------------------------


def run_of(path: str, *more: str) -> Any:
    toy = ["model=toy", "engine=toy", "max_tokens=8", "blocks=2", "sampler=base", "tracker=none"]
    return prepare(compose([*toy, "task=math_set", f"task.path={path}", *more]))


def test_a_runs_identity_covers_the_content_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also what no prompt shows: another gold answer is another run."""
    monkeypatch.chdir(tmp_path)
    row = {"question": "?", "answer": "1"}
    first = run_of(saved(tmp_path, row))
    copy = tmp_path / "elsewhere"
    copy.mkdir()
    assert run_of(saved(copy, row)).run == first.run
    assert run_of(saved(tmp_path, row | {"answer": "2"})).run != first.run
    assert first.run.path.parts[:2] == ("runs", "set")
    assert first.settings["task"]["name"] == "set"


def test_a_few_shot_response_ends_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At every token with a line's end in it, whatever else is."""
    monkeypatch.chdir(tmp_path)
    path = saved(tmp_path, {"question": "?", "answer": "1"})
    model = ["model=smollm2-135m", "engine=hf", "tracker=none", "sampler=base", "max_tokens=64"]
    few = prepare(
        compose([*model, "task=math_set", f"task.path={path}", "task.prompt_style=few_shot"])
    )
    own = few.task_stop_tokens
    text = "the end.\n\nProblem: what?\n"
    ids = few.tokenizer.continuation(text)
    with_line = [i for i in ids if "\n" in few.tokenizer.decode([i])]
    assert len(with_line) > 1
    assert set(with_line) <= set(own)
    assert set(own).isdisjoint(few.tokenizer.continuation("the end. Problem: what? Ċ <0x0A>"))
    plain = prepare(compose([*model, "task=math_set", f"task.path={path}"]))
    assert plain.task_stop_tokens == ()


# -- a part of a set ------------------------------------------------------------------------------

LEVELS = [{"q": f"What is {i} + 1?", "a": str(i + 1), "level": 1 + i % 3} for i in range(9)]


def test_rows_are_chosen_by_their_columns_and_by_a_stride(tmp_path: Path) -> None:
    given = ("task=math_set", f"task.path={saved(tmp_path, *LEVELS)}", "task.question=q")
    columns = (*given, "task.answer=a", "task.level=level")

    def ids(*overrides: str) -> list[str]:
        return [problem.id for problem in task_of(*columns, *overrides).problems("base")]

    assert ids("task.where={level:[1,2]}") == ["1", "2", "4", "5", "7", "8"]
    assert ids("task.where={level:[1,2]}", "task.every=2") == ["1", "4", "7"]
    assert ids("task.where={level:2}") == ["2", "5", "8"]
    assert ids("task.every=4") == ["1", "5", "9"]
    with pytest.raises(UserError, match=r"task\.where=.*leaves none of 9 rows"):
        ids("task.where={level:4}")
    with pytest.raises(UserError, match=r"column task\.where"):
        ids("task.where={stage:4}")
    with pytest.raises(UserError, match=r"task\.every"):
        ids("task.every=0")
