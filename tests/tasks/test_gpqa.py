"""GPQA Diamond: what a model is shown, in which order of options, from which files.

The questions here are invented: those of the data set must not be published.

Run: pytest tests/tasks/test_gpqa.py
"""

import csv
import json
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from powerbench.cli import main
from powerbench.config import compose
from powerbench.errors import UserError
from powerbench.store import find_runs
from powerbench.tasks.gpqa_diamond import GPQADiamond
from powerbench.types import Problem

ROOT = Path(__file__).parents[2]
ANSWERS = ("Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3")


def row(number: int, **changed: str) -> dict[str, str]:
    """An invented question: the sum of two numbers, with three wrong answers."""
    record = {
        "Explanation": "An unused column.",
        "Question": f"What is {number} + {number}?",
        **{column: str(2 * number + i) for i, column in enumerate(ANSWERS)},
        "Record ID": f"rec{number}",
        "High-level domain": "Arithmetic",
        "Subdomain": "Sums",
    }
    return record | changed


def write(file: Path, rows: list[dict[str, str]], encoding: str = "utf-8", end: str = "\n") -> str:
    with file.open("w", encoding=encoding, newline="") as stream:
        table = csv.DictWriter(stream, list(rows[0]), lineterminator=end)
        table.writeheader()
        table.writerows(rows)
    return str(file)


def problems(path: str, **settings: Any) -> list[Problem]:
    return GPQADiamond(path=path, **settings).problems("base")


@pytest.fixture
def sums(tmp_path: Path) -> str:
    return write(tmp_path / "sums.csv", [row(n) for n in range(400)])


# -- what is shown --------------------------------------------------------------------------------


def test_the_prompt_is_the_papers_to_the_letter(tmp_path: Path) -> None:
    question = 'Which {A} of $LETTER is even?\n\nSay "why", too. '
    options = ["two", "one,\nor so", " three", "five {B}"]
    record = row(1, Question=question, **dict(zip(ANSWERS, options, strict=True)))
    (problem,) = problems(write(tmp_path / "one.csv", [record]))
    shown = problem.meta["options"]
    assert problem.prompt.text == (
        "Answer the following multiple choice question. The last line of your response should be "
        "of the following format: '\\boxed{$LETTER}' (without quotes) where LETTER is one of ABCD "
        "(ex. '\\boxed{A}'). Think step by step before answering.\n"
        "\n"
        f"{question}\n"
        "\n"
        f"A) {shown[0]}\nB) {shown[1]}\nC) {shown[2]}\nD) {shown[3]}"
    )
    assert sorted(shown) == sorted(options)
    assert problem.id == "rec1"
    assert shown["ABCD".index(problem.gold)] == "two"
    assert {**problem.meta, "options": 0} == {
        "options": 0,
        "domain": "Arithmetic",
        "subdomain": "Sums",
    }


def test_it_is_raw_text_for_every_model_unless_told_otherwise(sums: str) -> None:
    for kind in ("base", "rl", "instruct"):
        for chat in ("model", "always", "never"):
            first, *_ = GPQADiamond(path=sums, chat=chat).problems(kind)
            assert first.prompt.chat == (chat == "always")


# -- the order of options -------------------------------------------------------------------------


def test_the_order_is_the_problems_alone(sums: str, tmp_path: Path) -> None:
    """Neither the rows beside it nor any setting of a run plays a part."""
    expected = {problem.id: problem for problem in problems(sums)}
    for seed, sampler in ((0, "base"), (1, "power")):
        overrides = ["task=gpqa_diamond", f"task.path={sums}", f"seed={seed}", f"sampler={sampler}"]
        task = compose([*overrides, "task.name=other"]).build("task")
        assert {p.id: p for p in task.problems("instruct")} == expected
    fewer = write(tmp_path / "fewer.csv", [row(n) for n in reversed(range(0, 400, 3))])
    assert [expected[p.id] for p in problems(fewer)] == problems(fewer)


def test_each_seed_has_its_own_order_where_it_is_asked_for(sums: str) -> None:
    """Departure 7 of the official code: task.order_seed=${seed}."""

    def of(*overrides: str) -> dict[str, Problem]:
        task = compose(["task=gpqa_diamond", f"task.path={sums}", *overrides]).build("task")
        return {p.id: p for p in task.problems("base")}

    first, second = of("task.order_seed=${seed}"), of("task.order_seed=${seed}", "seed=1")
    assert first == of() == of("seed=1")
    assert second == of("task.order_seed=1")
    same = [p.meta["options"] == second[id].meta["options"] for id, p in first.items()]
    assert 0 < sum(same) < 40  # of 400: 1 in 24, sd 4
    for id, problem in second.items():
        assert sorted(problem.meta["options"]) == sorted(first[id].meta["options"])
        right = [p.meta["options"]["ABCD".index(p.gold)] for p in (problem, first[id])]
        assert right[0] == right[1]


def test_the_order_is_the_same_on_every_machine(sums: str) -> None:
    first = list(enumerate(problems(sums)[:8]))
    orders = ["".join(str(int(o) - 2 * n) for o in p.meta["options"]) for n, p in first]
    assert orders == ["1302", "2103", "3201", "1203", "1230", "1302", "0132", "2013"]
    assert [p.gold for _, p in first] == list("CCCCDCAB")


def test_every_order_gets_its_share(sums: str) -> None:
    """400 problems, 100 a letter: sd 8.7; 24 orders with 16.7 each: sd 4."""
    found = problems(sums)
    golds = Counter(p.gold for p in found)
    assert set(golds) == set("ABCD")
    assert all(65 <= count <= 135 for count in golds.values())
    orders = Counter(tuple(sorted(range(4), key=p.meta["options"].__getitem__)) for p in found)
    assert len(orders) == 24
    assert all(
        {int(option) for option in p.meta["options"]} == {2 * n + i for i in range(4)}
        for n, p in enumerate(found)
    )


def test_without_a_record_id_the_question_decides_and_the_row_names(tmp_path: Path) -> None:
    rows = [{k: v for k, v in row(n).items() if k != "Record ID"} for n in range(40)]
    found = problems(write(tmp_path / "a.csv", rows))
    assert [p.id for p in found] == [str(n) for n in range(1, 41)]
    turned = problems(write(tmp_path / "b.csv", rows[::-1]))
    assert [p.prompt for p in turned] == [p.prompt for p in found[::-1]]
    assert len({p.gold for p in found}) == 4


def test_equal_options_are_all_shown(tmp_path: Path) -> None:
    twice = row(1, **{"Incorrect Answer 1": "9", "Incorrect Answer 2": "9"})
    (problem,) = problems(write(tmp_path / "twice.csv", [twice]))
    assert sorted(problem.meta["options"]) == ["2", "5", "9", "9"]


# -- files ----------------------------------------------------------------------------------------


def test_copies_of_a_file_are_the_same_data_set(tmp_path: Path) -> None:
    rows = [row(n, Question=f'"{n}",\n\nsays é\u2028 None.') for n in range(5)]
    plain = write(tmp_path / "plain.csv", rows)
    saved = [{k: v.replace("\n", "\r\n") for k, v in record.items()} for record in rows]
    windows = write(tmp_path / "windows.CSV", saved, "utf-8-sig", "\r\n")
    Path(windows).write_bytes(Path(windows).read_bytes() + b",,,,,,,,\r\n\r\n")
    lines = tmp_path / "set.jsonl"
    lines.write_text("".join(f"{json.dumps(record)}\n" for record in rows))
    assert problems(plain) == problems(windows) == problems(str(lines))
    digests = {GPQADiamond(path=p).source()["sha256"] for p in (plain, windows, str(lines))}
    assert len(digests) == 1
    assert [p.prompt.text.splitlines()[2] for p in problems(plain)] == [f'"{n}",' for n in range(5)]


@pytest.mark.parametrize("answer", ["None", "NA", "nan", "1.0", "007", "TRUE"])
def test_an_answer_is_the_text_that_it_is(tmp_path: Path, answer: str) -> None:
    path = write(tmp_path / "set.csv", [row(1, **{"Correct Answer": answer})])
    assert answer in problems(path)[0].meta["options"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "set.csv is empty"),
        ("Question,Correct Answer\n", "set.csv is empty"),
        ("Question\n?\n", "set.csv row 1 lacks the field 'Correct Answer'"),
        ("{head}?,1,2,3,4,a\n?,1,2, ,4,b\n", "set.csv row 2: 'Incorrect Answer 2' is blank"),
        ("{head}?,1,2,3,4,a\n,1,2,3,4,b\n", "set.csv row 2: 'Question' is blank"),
        ("{head}?,1,2,3,4,\n", "set.csv row 1: 'Record ID' is blank"),
        ("{head}?,1,2,3\n", "set.csv row 1 has 4 cells where the header has 6"),
        ("{head}?,1,2,3,4,a,5\n", "set.csv row 1 has 7 cells where the header has 6"),
        ('{head}?,1,2,3,4,a\n"?,1,2,3,4,b\n', "set.csv line 3 is not CSV (unexpected end of data)"),
        ("{head}?,1,2,3,4,a\n!,1,2,3,4,a\n", "the problem id 'a' occurs twice"),
    ],
)
def test_a_damaged_csv_is_named_with_row_and_column(
    tmp_path: Path, content: str, said: str
) -> None:
    file = tmp_path / "set.csv"
    file.write_text(content.replace("{head}", ",".join(["Question", *ANSWERS, "Record ID"]) + "\n"))
    with pytest.raises(UserError) as caught:
        problems(str(file))
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_bytes_that_are_not_text_and_no_file_are_named(tmp_path: Path) -> None:
    file = tmp_path / "set.csv"
    file.write_bytes(b"Question\n\xff\xfe\n")
    with pytest.raises(UserError, match=r"cannot read task\.path=.*set\.csv: 'utf-8'"):
        problems(str(file))
    with pytest.raises(UserError, match=r"no/such\.csv: there is no such file"):
        problems("no/such.csv")


def test_an_impossible_setting_is_named() -> None:
    with pytest.raises(UserError, match=r"unknown task\.chat 'sometimes'"):
        GPQADiamond(chat="sometimes")
    with pytest.raises(UserError, match=r"task\.order_seed must be an integer >= 0, got -1"):
        GPQADiamond(order_seed=-1)
    with pytest.raises(UserError, match=r"unknown model\.kind 'tuned'"):
        GPQADiamond().problems("tuned")


class Gate(BaseHTTPRequestHandler):
    """A hub that refuses, as the real one does: the status is the first part of the path."""

    tokens: ClassVar[list[str | None]] = []

    def do_HEAD(self) -> None:
        if "gpqa" in self.path:
            self.tokens.append(self.headers["Authorization"])
        self.send_response(int(self.path.split("/")[1]))
        self.send_header("X-Error-Code", "GatedRepo")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_GET(self) -> None:
        self.do_HEAD()

    def log_message(self, *_: object) -> None:
        """Silent."""


@pytest.fixture(scope="module")
def gate() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Gate) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("refusal", ["offline", "401", "403"])
def test_without_access_one_line_says_where_to_ask(refusal: str, gate: str, tmp_path: Path) -> None:
    """In a process of its own: the hub's library reads its environment when imported."""
    script = """
from powerbench.errors import UserError
from powerbench.tasks.gpqa_diamond import GPQADiamond
try:
    GPQADiamond().problems("base")
except UserError as error:
    print(error)
"""
    hub = {
        "HF_HUB_OFFLINE": str(int(refusal == "offline")),
        "HF_ENDPOINT": f"{gate}/{refusal}",
        "HF_HOME": str(tmp_path),
        "HF_TOKEN": f"hf_{refusal}",
        "NO_PROXY": "127.0.0.1",
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=os.environ | hub, capture_output=True, text=True, check=True)
    (line,) = done.stdout.splitlines()
    assert line.startswith("cannot load Idavidrein/gpqa at 633f5ee from the hub (")
    assert line.endswith(
        "; ask for access at https://huggingface.co/datasets/Idavidrein/gpqa and set HF_TOKEN, "
        "or set task.path=<local csv>"
    )
    assert (f"Bearer hf_{refusal}" in Gate.tokens) == (refusal != "offline")


def test_the_hubs_file_and_a_copy_of_it_are_the_same(
    sums: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub is a stand-in: it gives the file that the task's settings name."""
    asked = []

    def download(hub: str, file: str, *, revision: str, repo_type: str) -> str:
        asked.append((hub, file, revision, repo_type))
        return sums

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    task = GPQADiamond()
    assert task.problems("base") == problems(sums)
    assert asked == [(task.hub, "gpqa_diamond.csv", task.revision, "dataset")]
    source = task.source()
    assert source["sha256"] == GPQADiamond(path=sums).source()["sha256"]
    assert (source["hub"], source["revision"], source["rows"]) == (task.hub, task.revision, 400)


# -- runs -----------------------------------------------------------------------------------------


def test_a_run_is_scored_by_its_letters(sums: str, tmp_path: Path) -> None:
    toy = ["model=toy", "engine=toy", "max_tokens=8", "blocks=2", "tracker=none", "limit=3"]
    main(["run", *toy, "task=gpqa_diamond", f"task.path={sums}", f"runs={tmp_path / 'runs'}"])
    (run,) = find_runs([tmp_path / "runs"])
    assert run.path.parts[-3] == "gpqa_diamond"
    scores = run.scores("choice")
    assert {key.problem for key in scores} == {"rec0", "rec1", "rec2"}
    assert {(s.correct, s.reason) for s in scores.values()} == {(False, "no boxed answer")}
    main(["score", str(tmp_path / "runs"), "--verifier", "choice_official"])
    assert run.scores("choice_official").keys() == scores.keys()
    assert run.verifiers() == ["choice", "choice_official"]
