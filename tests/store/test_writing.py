"""Writing a run folder: two writers, writers that are lost, checkpoints, and the head.

Run: pytest tests/store/test_writing.py
"""

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from stored import sample

from powerbench.errors import UserError
from powerbench.store import Run, lease
from powerbench.store.owner import file_of, write
from powerbench.store.shard import WHOLE, Shard
from powerbench.store.writing import create, sample_writer
from powerbench.types import Checkpoint, Problem, Progress, Prompt, SampleKey


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
    assert (last.ended, last.progress) == ("interrupted", Progress(total=5, done=1))


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


def test_a_checkpoint_lasts_until_its_sample_is_stored(run: Run) -> None:
    key, checkpoint = SampleKey("a", 0), Checkpoint({"block": 1}, 1, 2, 3, (), 9.0)
    with sample_writer(run, Shard(1, 2)) as writing:
        writing.save(key, checkpoint)
    with sample_writer(run) as writing:  # another partition goes on from it
        assert writing.resume(key) == checkpoint
        writing.write(sample("a"))
        assert writing.resume(key) is None


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
