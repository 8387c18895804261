r"""Data files as people have them: byte order marks, gzip, Parquet, CSV; and what is no text or no answer.

Run: pytest tests/tasks/test_reading.py
"""

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from powerbench.errors import UserError
from powerbench.tasks.alpaca_eval import AlpacaEval
from powerbench.tasks.gpqa_diamond import GPQADiamond
from powerbench.tasks.humaneval import HumanEval
from powerbench.tasks.math500 import Math500
from powerbench.tasks.reading import read_file

ROWS = [
    {"problem": "What is 7 − 4?", "answer": "3", "subject": "é", "level": 1, "unique_id": "m/1"},
    {"problem": "What is $2^5$?", "answer": "32", "subject": "b", "level": 2, "unique_id": "m/2"},
]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)


def saved(folder: Path, name: str, content: bytes) -> str:
    (folder / name).write_bytes(content)
    return str(folder / name)


def parquet(rows: list[dict[str, Any]]) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return bytes(sink.getvalue())


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("plain.jsonl", LINES.encode()),
        ("notepad.jsonl", LINES.encode("utf-8-sig")),
        ("powershell.jsonl", LINES.encode("utf-16")),
        ("big_endian.jsonl", b"\xfe\xff" + LINES.encode("utf-16-be")),
        ("windows.jsonl", LINES.replace("\n", "\r\n").encode("utf-8-sig")),
        ("array.json", json.dumps(ROWS).encode("utf-8-sig")),
        ("packed.jsonl.gz", gzip.compress(LINES.encode(), mtime=0)),
        ("packed_with_mark.jsonl", gzip.compress(LINES.encode("utf-8-sig"), mtime=0)),
        ("test-00000-of-00001.parquet", parquet(ROWS)),
        ("parquet_by_content", parquet(ROWS)),
    ],
)
def test_every_format_gives_the_same_data_set(tmp_path: Path, name: str, content: bytes) -> None:
    plain = Math500(path=saved(tmp_path, "reference.jsonl", LINES.encode()))
    other = Math500(path=saved(tmp_path, name, content))
    assert other.problems("base") == plain.problems("base")
    assert other.source()["sha256"] == plain.source()["sha256"]


@pytest.mark.parametrize("suffix", [".csv", ".CSV.gz"])
def test_csv_is_read_for_every_task(tmp_path: Path, suffix: str) -> None:
    text = 'unique_id,problem,answer,subject,level\na/1,"One,\r\nor two?",1,Algebra,1\n'
    content = text.encode("utf-8-sig")
    content = gzip.compress(content, mtime=0) if suffix.endswith("gz") else content
    (problem,) = Math500(path=saved(tmp_path, f"set{suffix}", content)).problems("base")
    assert (problem.id, problem.gold, problem.meta["problem"]) == ("a/1", "1", "One,\nor two?")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("cut.parquet", parquet(ROWS)[:200], "is not a whole Parquet file"),
        ("cut.jsonl.gz", gzip.compress(LINES.encode(), mtime=0)[:40], "cannot read task.path="),
        (
            "spoilt.gz",
            gzip.compress(LINES.encode(), mtime=0)[:20] + b"\0" * 60,
            "cannot read task.path=",
        ),
        ("latin.jsonl", LINES.encode("latin-1", "replace"), "JSON lines, a JSON array, CSV"),
        ("set.zip", b"PK\x03\x04\x14\x00\xb4\xff", "Parquet"),
        ("set.yaml", b"- problem: x\n", "JSON lines, a JSON array, CSV"),
        ("empty.parquet", parquet(ROWS)[:0], "is empty"),
    ],
)
def test_what_cannot_be_read_is_told_in_one_line(
    tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    with pytest.raises(UserError) as error:
        read_file(saved(tmp_path, name, content))
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_folder_is_no_data_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a folder; name a file in it"):
        read_file(str(tmp_path))


@pytest.mark.parametrize("half", [r"\ud83d", r"\udc00 and", r"well \ud800\ud800"])
@pytest.mark.parametrize("field", ["problem", "answer", "subject"])
def test_half_a_character_is_refused_where_it_stands(tmp_path: Path, half: str, field: str) -> None:
    spoilt = json.dumps(ROWS[1] | {field: "@"}).replace("@", half)
    path = saved(tmp_path, "set.jsonl", f"{json.dumps(ROWS[0])}\n{spoilt}\n".encode())
    with pytest.raises(UserError, match=rf"set\.jsonl line 2: '{field}' holds '\\ud"):
        Math500(path=path).problems("base")


def test_half_a_character_inside_a_list_is_refused_and_a_pair_is_one_character(
    tmp_path: Path,
) -> None:
    whole = json.dumps(ROWS[0] | {"tags": ["😀"]})
    assert r"\ud83d\ude00" in whole
    read_file(saved(tmp_path, "whole.jsonl", whole.encode()))
    with pytest.raises(UserError, match="'tags' holds"):
        read_file(saved(tmp_path, "cut.jsonl", whole.replace(r"\ude00", "").encode()))


@pytest.mark.parametrize(
    "blank",
    [
        "",
        "  ",
        "$$",
        "$ $",
        r"\boxed{}",
        r"$\boxed{\text{ }}$",
        r"\(\)",
        "\u200b",
        r"\ ",
        "{}",
        ".",
    ],
)
def test_a_gold_answer_of_nothing_is_refused(tmp_path: Path, blank: str) -> None:
    path = saved(tmp_path, "set.jsonl", json.dumps(ROWS[0] | {"answer": blank}).encode())
    with pytest.raises(UserError, match="'answer' is blank"):
        Math500(path=path).problems("base")


@pytest.mark.parametrize(
    "answer", ["0", "-", r"\emptyset", "∅", r"\text{(A)}", "x", r"\mathbb{R}", "<", r"\{\}"]
)
def test_a_gold_answer_of_one_sign_is_one(tmp_path: Path, answer: str) -> None:
    path = saved(tmp_path, "set.jsonl", json.dumps(ROWS[0] | {"answer": answer}).encode())
    (problem,) = Math500(path=path).problems("base")
    assert problem.gold == answer


@pytest.mark.parametrize(
    ("task", "row", "field"),
    [
        (Math500, ROWS[0], "problem"),
        (Math500, ROWS[0], "unique_id"),
        (AlpacaEval, {"instruction": "Say hi.", "output": "Hi.", "generator": "x"}, "output"),
        (AlpacaEval, {"instruction": "Say hi.", "output": "Hi.", "generator": "x"}, "instruction"),
        (
            HumanEval,
            {
                "task_id": "H/0",
                "prompt": "def f():\n",
                "entry_point": "f",
                "canonical_solution": "    return 1\n",
                "test": "def check(f):\n    assert f() == 1\n",
            },
            "test",
        ),
        (
            GPQADiamond,
            {
                "Question": "Which?",
                "Correct Answer": "a",
                "Incorrect Answer 1": "b",
                "Incorrect Answer 2": "c",
                "Incorrect Answer 3": "d",
            },
            "Correct Answer",
        ),
    ],
)
def test_a_blank_field_that_judging_needs_is_refused(
    tmp_path: Path, task: Any, row: dict[str, Any], field: str
) -> None:
    task(path=saved(tmp_path, "whole.jsonl", json.dumps(row).encode())).problems("base")
    path = saved(tmp_path, "blank.jsonl", json.dumps(row | {field: " \n\u200b"}).encode())
    with pytest.raises(UserError, match=f"'{field}' is blank"):
        task(path=path).problems("base")
