"""The run folder: shards, checkpoints, scores; damage, two writers, and other people's folders.

Run: pytest tests/store/test_run_folder.py
"""

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from powerbench.errors import UserError
from powerbench.store import Run, find_runs, lease
from powerbench.store.owner import file_of, write
from powerbench.store.shard import WHOLE, Shard
from powerbench.store.writing import create, sample_writer, score_writer
from powerbench.types import (
    Checkpoint,
    Cost,
    FinishReason,
    Problem,
    Prompt,
    Sample,
    SampleKey,
    Score,
    Step,
)


def sample(problem: str, replicate: int = 0) -> Sample:
    steps = (Step(0, 1, -2.0, None, 3, False), Step(0, 0, -2.0, -1.5, 4, True))
    cost = Cost(decoded=9, prefilled=4, seconds=0.5, finished=100.0, attended=70.0)
    return Sample(
        problem, replicate, "é\n\u2028", (1, 2), -1.5, 3.0, FinishReason.STOP, 4, cost, steps
    )


@pytest.fixture
def run(tmp_path: Path) -> Run:
    run = Run(tmp_path / "task/model/power-00000000")
    problems = [
        Problem("a", Prompt("A?"), "1", {"level": 2}),
        Problem("b", Prompt("B?", True), "2"),
    ]
    create(run, "seed: 0\n", {"git": None}, problems)
    return run


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


def test_a_shard_whose_writer_is_lost_is_taken_from_it_for_good(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was only asleep must not write beside its successor of another partition."""
    with sample_writer(run, Shard(1, 2)) as asleep:
        monkeypatch.setattr(lease, "is_dead", lambda *given: True)
        with sample_writer(run) as writing:
            writing.write(sample("a"))
        with pytest.raises(lease.LeaseLost, match="another process"):
            asleep.write(sample("a"))
    assert run.keys() == {("a", 0)}
    lost = next(w for w in run.writers() if w.name == "samples-1-of-2")
    assert lost.ended is not None and lost.ended.startswith("lost; process ")


def test_several_may_find_at_once_that_a_writer_is_lost(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the shards of a sweep do after a whole run whose node died."""
    with sample_writer(run):
        lost = next(iter(run.writers()))
    write(file_of(run.path / "writers", "samples", 1), replace(lost, ended=None, host="node7"))
    with ThreadPoolExecutor(3) as pool:

        def work(number: int) -> None:
            with sample_writer(run, Shard(number, 3), lease_timeout=0.3) as writing:
                writing.write(sample(str(number)))

        list(pool.map(work, [1, 2, 3]))
    assert len(run.keys()) == 3
    assert not [writer for writer in run.writers() if writer.ended is None]


def test_a_session_that_ends_early_leaves_the_count_as_it_was(run: Run) -> None:
    with sample_writer(run) as writing:
        writing.progress.total = 5
        writing.write(sample("a"))
    with pytest.raises(KeyboardInterrupt), sample_writer(run):
        raise KeyboardInterrupt
    (last,) = run.writers()
    assert (last.ended, last.total, last.done, last.made_here) == ("interrupted", 5, 1, 0)


def test_a_full_disk_for_the_writers_file_stops_no_sample(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*given: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with sample_writer(run) as writing:
        monkeypatch.setattr(lease, "write", full)
        writing.write(sample("a"))
        writing.heartbeat()
        monkeypatch.undo()
    assert run.keys() == {("a", 0)}


def test_a_second_writer_is_refused(run: Run) -> None:
    with sample_writer(run), pytest.raises(UserError, match="being written by process"):
        sample_writer(run).__enter__()


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


def test_shards_that_share_samples_are_not_written_at_once(run: Run) -> None:
    with sample_writer(run, Shard(1, 2)):
        for other in (Shard(2, 2), Shard(2, 4)):
            with sample_writer(run, other):
                pass
        for other in (WHOLE, Shard(1, 4), Shard(3, 4)):
            with pytest.raises(UserError, match=rf"shard {other} overlaps with shard 1/2, which"):
                sample_writer(run, other).__enter__()
    with sample_writer(run, Shard(1, 4)):
        pass


def test_a_sample_that_is_there_twice_is_named(run: Run) -> None:
    for shard in (Shard(1, 2), Shard(2, 2)):
        with sample_writer(run, shard) as writing:
            writing.write(sample("a"))
    named = r"samples-2-of-2\.jsonl line 1 repeats samples-1-of-2\.jsonl line 1 \(problem 'a', rep"
    for read in (run.keys, run.samples):
        with pytest.raises(UserError, match=named):
            read()


def test_a_checkpoint_lasts_until_its_sample_is_stored(run: Run) -> None:
    key, checkpoint = SampleKey("a", 0), Checkpoint({"block": 1}, 1, 2, 3, (), 9.0)
    with sample_writer(run, Shard(1, 2)) as writing:
        writing.save(key, checkpoint)
    with sample_writer(run) as writing:  # another partition goes on from it
        assert writing.resume(key) == checkpoint
        writing.write(sample("a"))
        assert writing.resume(key) is None


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


def test_what_another_configuration_made_is_not_mixed_with_it(run: Run) -> None:
    """As when a folder was copied onto another's name."""
    identity = {"seed": 0, "sampler": {"name": "power", "steps": 10}, "model": {"id": "m"}}
    other = {"seed": 0, "sampler": {"name": "power", "steps": 4}, "deterministic": True}
    again = Run(run.path.parent / "power-11111111")
    create(again, "", {"digest": "1", "identity": identity}, [])
    create(again, "", {"digest": "1", "identity": identity}, [])
    with pytest.raises(UserError) as refused:
        create(again, "", {"digest": "2", "identity": other}, [])
    said = "sampler.steps: 10 there, 4 asked for; model: {'id': 'm'} there, None asked for; "
    assert said + "deterministic: None there, True asked for" in str(refused.value)


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


def test_creating_again_adds_problems_corrects_answers_and_notes_sessions(run: Run) -> None:
    create(
        run,
        "seed: 1\n",
        {"git": "other"},
        [
            Problem("a", Prompt("A?"), "1"),
            Problem("b", Prompt("B?"), "2"),
            Problem("c", Prompt("C?"), "3"),
        ],
    )
    assert list(run.problems()) == ["a", "b", "c"]
    assert run.manifest["git"] is None
    assert [session["git"] for session in run.manifest["later_sessions"]] == ["other"]
    create(run, "seed: 1\n", {"git": "other"}, [Problem("a", Prompt("A?"), "corrected")])
    assert run.problems()["a"].gold == "corrected"
    assert list(run.problems()) == ["a", "b", "c"]
    assert len(run.manifest["later_sessions"]) == 1


def test_a_problem_that_was_lost_comes_back_to_its_place(run: Run) -> None:
    """Shards are made by it."""
    file = run.path / "problems.jsonl"
    file.write_bytes(file.read_bytes().splitlines(keepends=True)[1])
    with pytest.raises(
        UserError, match=r"problems\.jsonl lacks problem 'a', of which there are samp"
    ):
        run.problems()["a"]
    create(run, "seed: 0\n", {"git": None}, [Problem(p, Prompt("?"), "1") for p in "ab"])
    assert list(run.problems()) == ["a", "b"]


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
