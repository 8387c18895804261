"""The run folder as it is read: shards, scores, damage, and other people's folders.

Run: pytest tests/store/test_run_folder.py
"""

from dataclasses import replace
from pathlib import Path

import pytest
from stored import sample

from powerbench.errors import UserError
from powerbench.store import Run, find_runs, records
from powerbench.store.shard import WHOLE, Shard
from powerbench.store.writing import create, sample_writer, score_writer
from powerbench.types import Problem, Prompt, SampleKey, Score


def test_what_is_written_is_read(run: Run) -> None:
    with sample_writer(run) as writing:
        writing.write(sample("a"))
        writing.write(sample("b", 3))
    assert run.samples() == {("a", 0): sample("a"), ("b", 3): sample("b", 3)}
    assert run.problems()["a"] == Problem("a", Prompt("A?"), "1", {"level": 2})
    assert run.config == {"seed": 0}
    with score_writer(run, "math") as write:
        write(SampleKey("a", 0), Score(correct=True, answer="1"))
        write(SampleKey("a", 0), Score(correct=False, answer="1"))
    assert run.scores("math") == {
        ("a", 0): Score(correct=False, answer="1")
    }  # the last score counts


def test_lines_that_tell_no_passes_are_of_engines_that_drafted_nothing(run: Run) -> None:
    with sample_writer(run) as writing:
        writing.write(sample("a"))
    file = run.path / "samples.jsonl"
    line = file.read_bytes().replace(b',"passes":3,"rows":11', b"").rpartition(b',"crc"')[0]
    assert b"passes" not in line
    file.write_bytes(records.with_checksum(line + b"}") + b"\n")
    cost = run.samples()["a", 0].cost
    assert cost == replace(sample("a").cost, passes=9, rows=9) and cost.decoded == 9


def test_a_torn_last_line_is_ignored_and_then_cut_off(run: Run) -> None:
    with sample_writer(run) as writing:
        writing.write(sample("a"))
    file = run.path / "samples.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole + whole[: len(whole) // 2])
    assert list(run.samples()) == [("a", 0)]
    with sample_writer(run) as writing:
        writing.write(sample("b"))
    assert list(run.samples()) == [("a", 0), ("b", 0)]


def test_damage_elsewhere_is_named_by_file_and_line(run: Run) -> None:
    with sample_writer(run) as writing:
        writing.write(sample("a"))
        writing.write(sample("b"))
    file = run.path / "samples.jsonl"
    file.write_bytes(file.read_bytes().replace(b'"tokens"', b'"tokenz"', 1))
    for read in (run.samples, run.keys):
        with pytest.raises(UserError, match=r"samples\.jsonl line 1 is damaged"):
            read()


@pytest.mark.parametrize(
    "name", ["samples-backup.jsonl", "samples.old.jsonl", "samples-02-of-04.jsonl"]
)
def test_a_copy_that_lies_beside_is_not_read(run: Run, name: str) -> None:
    with sample_writer(run) as writing:
        writing.write(sample("a"))
    (run.path / name).write_bytes((run.path / "samples.jsonl").read_bytes())
    assert run.shards() == [WHOLE]
    assert list(run.samples()) == [("a", 0)]


def test_keys_of_a_shard_need_no_file_of_another(run: Run) -> None:
    for shard, one in ((Shard(1, 2), sample("a")), (Shard(2, 2), sample("b"))):
        with sample_writer(run, shard) as writing:
            writing.write(one)
    run.samples_file(Shard(1, 2)).write_bytes(b"damaged\n")
    assert run.keys(Shard(2, 4)) == {("b", 0)}
    for shard in (Shard(1, 4), Shard(1, 3), WHOLE):
        with pytest.raises(UserError, match="damaged"):
            run.keys(shard)


@pytest.mark.parametrize("content", [b"[", b"\xff\xfe", b"", b"3\n"])
def test_a_head_that_is_damaged_is_named(run: Run, content: bytes) -> None:
    for name, read in (
        ("config.yaml", lambda: run.config),
        ("manifest.json", lambda: run.manifest),
    ):
        (run.path / name).write_bytes(content)
        with pytest.raises(UserError, match=f"{name} is damaged"):
            read()
    (run.path / "metrics.json").write_bytes(content)
    assert run.metrics == {}  # it is made again


def test_shards_are_merged_by_reading(run: Run) -> None:
    for shard, one in (
        (Shard(1, 2), sample("a")),
        (Shard(2, 2), sample("b")),
        (WHOLE, sample("c")),
    ):
        with sample_writer(run, shard) as writing:
            writing.write(one)
    assert sorted(run.shards()) == [WHOLE, Shard(1, 2), Shard(2, 2)]
    assert run.keys() == {("a", 0), ("b", 0), ("c", 0)} == set(run.samples())
    assert {writer.name for writer in run.writers()} == {
        "samples",
        "samples-1-of-2",
        "samples-2-of-2",
    }


def test_a_sample_that_is_there_twice_is_named(run: Run) -> None:
    for shard in (Shard(1, 2), Shard(2, 2)):
        with sample_writer(run, shard) as writing:
            writing.write(sample("a"))
    named = r"samples-2-of-2\.jsonl line 1 repeats samples-1-of-2\.jsonl line 1 \(problem 'a', rep"
    for read in (run.keys, run.samples):
        with pytest.raises(UserError, match=named):
            read()


def test_scores_of_the_whole_run_come_after_those_beside_its_shards(run: Run) -> None:
    key, right, wrong = SampleKey("a", 0), Score(correct=True), Score(correct=False)
    with score_writer(run, "math") as write:
        write(key, right)
    with score_writer(run, "math", Shard(2, 2)) as write:
        write(key, wrong)
    with score_writer(run, "math-2", Shard(2, 2)) as write:
        write(key, wrong)
    assert run.scores("math") == {key: right}
    assert run.verifiers() == ["math", "math-2"]


@pytest.mark.parametrize(
    ("name", "remedy"),
    [("manifest.json", "restore it from a copy"), ("config.yaml", "repeat the run's command")],
)
def test_a_head_that_is_missing_is_named(run: Run, name: str, remedy: str) -> None:
    with sample_writer(run) as writing:
        writing.write(sample("a"))
    (run.path / name).unlink()
    (found,) = find_runs([run.path])
    with pytest.raises(UserError, match=f"has no {name}: {remedy}"):
        print(found.manifest, found.config)
    if name == "manifest.json":
        with pytest.raises(UserError, match=r"holds samples but no manifest\.json"):
            create(run, "", {}, [])


def test_a_folder_without_runs_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no run"):
        find_runs([tmp_path])


def test_an_undecided_score_takes_no_decided_ones_place(run: Run) -> None:
    """Such as that of a verifier that missed its time limit when it scored once more."""
    right, undecided, wrong = Score(correct=True), Score(reason="timed out"), Score(correct=False)
    key, other = SampleKey("a", 0), SampleKey("b", 0)
    with score_writer(run, "math") as write:
        for score in (undecided, right, undecided):
            write(key, score)
        write(other, undecided)
    assert run.scores("math") == {key: right, other: undecided}
    with score_writer(run, "math") as write:
        write(key, wrong)
    assert run.scores("math")[key] == wrong
