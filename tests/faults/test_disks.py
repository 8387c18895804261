"""Disks that are full or read-only, two writers at once, a clock that is set back.

Run: make test-faults, or pytest -m faults tests/faults/test_disks.py
"""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

import pytest
from lives import TOY, Samples, check, life, samples, warm_up

from powerbench.cli import main
from powerbench.store import find_runs
from powerbench.store.verify import verify

pytestmark = pytest.mark.faults


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    """The samples of an undisturbed run."""
    warm_up(tmp_path_factory.mktemp("warm"))
    runs = tmp_path_factory.mktemp("whole")
    life((*TOY, f"runs={runs}")).join()
    return samples(runs)


def command(*arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "powerbench.cli", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
    )


def read_until(out: IO[str] | None, words: str) -> str:
    """The first line that holds some words."""
    assert out is not None
    said = []
    for line in out:
        said.append(line)
        if words in line:
            return line
    raise AssertionError(f"never said {words!r}: {''.join(said)}")


def fill(disk: Path, left: int) -> Path:
    """A file that leaves so many bytes of a disk."""
    ballast, free = disk / "ballast", os.statvfs(disk)
    ballast.write_bytes(b"x" * (free.f_bavail * free.f_bsize - left))
    return ballast


def test_a_full_disk_pauses_the_run_and_costs_nothing(small_disk: Path, whole: Samples) -> None:
    ballast = fill(small_disk, 300 * 1024)
    run = command("run", *TOY, f"runs={small_disk}")
    said = read_until(run.stdout, "paused: ")
    assert "No space left on device; free some space, and it goes on" in said
    (folder,) = find_runs([small_disk])
    assert verify(folder).damaged == 0
    assert whole.items() >= samples(small_disk).items()
    assert len(samples(small_disk)) < len(whole)
    time.sleep(1)
    assert run.poll() is None
    ballast.unlink()
    read_until(run.stdout, "there is space again: going on")
    run.communicate()
    assert samples(small_disk) == whole
    assert verify(folder).damaged == 0


def test_a_run_that_is_killed_on_a_full_disk_goes_on_when_there_is_space(
    small_disk: Path, whole: Samples
) -> None:
    ballast = fill(small_disk, 200 * 1024)
    run = command("run", *TOY, f"runs={small_disk}")
    read_until(run.stdout, "paused: ")
    run.kill()
    run.communicate()
    kept = samples(small_disk)
    assert whole.items() >= kept.items()
    ballast.unlink()
    again = command("run", *TOY, f"runs={small_disk}")
    said, _ = again.communicate()
    assert again.returncode == 0, said
    assert samples(small_disk) == whole


def test_a_disk_that_is_full_from_the_start_is_named(small_disk: Path) -> None:
    fill(small_disk, 0)
    run = command("run", *TOY, f"runs={small_disk}")
    said, _ = run.communicate()
    assert run.returncode == 2
    (line,) = said.strip().splitlines()
    assert "No space left on device; free some space, and repeat the command" in line


def test_a_read_only_folder_is_read_and_named(small_disk: Path) -> None:
    settings = (*TOY, "limit=2", "replicates=1")
    assert command("run", *settings, f"runs={small_disk}").wait() == 0
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    refused = command("run", *settings, "replicates=2", f"runs={small_disk}")
    said, _ = refused.communicate()
    assert refused.returncode == 2
    (line,) = said.strip().splitlines()
    assert (
        "cannot write the run folder" in line and "set `runs=<a folder you can write to>`" in line
    )
    for words in (["verify"], ["status"], ["report", "--out", str(small_disk.parent / "out")]):
        read = command(*words, str(small_disk))
        said, _ = read.communicate()
        assert read.returncode == 0, said


def test_of_two_writers_at_once_one_writes_and_one_is_told(tmp_path: Path, whole: Samples) -> None:
    for turn in range(3):
        runs = tmp_path / str(turn)
        both = [command("run", *TOY, f"runs={runs}") for _ in range(2)]
        said = [process.communicate()[0] for process in both]
        assert sorted(process.returncode for process in both) == [0, 2], said
        refused = said[0] if both[0].returncode else said[1]
        assert "is being written by process" in refused.splitlines()[-1]
        assert samples(runs) == whole
        assert check(runs, whole) is not None


def test_a_clock_set_back_between_two_sessions_is_named_and_changes_no_sample(
    tmp_path: Path, whole: Samples, capsys: pytest.CaptureFixture[str]
) -> None:
    real = time.time

    def tomorrow() -> None:
        time.time = lambda: real() + 86400  # type: ignore[assignment]

    first = life((*TOY, f"runs={tmp_path}"), tomorrow)
    while not any(file.stat().st_size > 20_000 for file in tmp_path.rglob("samples.jsonl")):
        time.sleep(0.01)
    first.kill()
    first.join()
    assert 0 < len(samples(tmp_path)) < len(whole)
    main(["run", *TOY, f"runs={tmp_path}"])
    assert samples(tmp_path) == whole
    capsys.readouterr()
    main(["verify", str(tmp_path)])
    assert "the clock was set back by 86" in capsys.readouterr().out
