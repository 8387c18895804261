"""kill -9 at random moments, again and again: the run that results is that of an undisturbed one.

Run: make test-faults, or pytest -m faults tests/faults/test_kills.py
"""

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from lives import TOY, check, life, samples, warm_up

from powerbench.store import find_runs
from powerbench.store.verify import verify

pytestmark = pytest.mark.faults

KILLS = 100
WINDOW = 1.0
"""Seconds of a life within which it is killed: from its first line to far into the run."""


def test_a_hundred_kills_change_no_sample(tmp_path: Path) -> None:
    warm_up(tmp_path / "warm")
    undisturbed = life((*TOY, f"runs={tmp_path / 'whole'}"))
    undisturbed.join()
    whole = samples(tmp_path / "whole")
    assert len(whole) > 100
    moments, kills, finished, resumed, number = random.Random(1), 0, 0, 0, 0
    while kills < KILLS:
        runs = tmp_path / str(number)
        process = life((*TOY, f"runs={runs}"))
        process.join(moments.uniform(0.0, WINDOW))
        if process.is_alive():
            process.kill()
            process.join()
            kills += 1
            check(runs, whole)
            continue
        assert process.exitcode == 0
        assert samples(runs) == whole
        assert check(runs, whole) is not None
        (run,) = find_runs([runs])
        resumed += sum(bool(sample.cost.earlier) for sample in run.stream())
        finished, number = finished + 1, number + 1
    last = life((*TOY, f"runs={tmp_path / str(number)}"))
    last.join()
    assert samples(tmp_path / str(number)) == whole
    assert finished > 1
    assert resumed > 0  # chains went on in their middle


SIZE = ("task=math_mini", "limit=4", "max_tokens=32", "blocks=4", "steps=3", "tracker=none")


def command(runs: Path, *settings: str) -> "subprocess.Popen[bytes]":
    words = [sys.executable, "-m", "powerbench.cli", "run", *SIZE, f"runs={runs}", *settings]
    out = (runs.parent / f"{runs.name}.txt").open("ab")
    return subprocess.Popen(
        words, stdout=out, stderr=out, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )


def killed_and_resumed(runs: Path, kills: int, *settings: str) -> None:
    """The run, killed at so many random moments while it is at work, and then let be."""
    moments = random.Random(kills)
    for _ in range(kills):
        before = stored(runs)
        process = command(runs, *settings)
        while stored(runs) == before:  # the model is being loaded
            assert process.poll() is None
            time.sleep(0.02)
        time.sleep(moments.uniform(0.0, 2.0))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert command(runs, *settings).wait() == 0


def stored(runs: Path) -> list[tuple[Path, int]]:
    """What tells that a block or a sample is finished."""
    files = [*runs.rglob("chains/[!.]*.json"), *runs.rglob("samples.jsonl")]
    found = []
    for file in sorted(files):
        with suppress(FileNotFoundError):
            found.append(
                (file, file.stat().st_mtime_ns if file.suffix == ".json" else file.stat().st_size)
            )
    return found


@pytest.mark.model
def test_ten_kills_change_no_sample_of_the_bundled_model(tmp_path: Path) -> None:
    settings = ("engine.deterministic=true", "engine.max_num_seqs=8", "replicates=6")
    assert command(tmp_path / "whole", *settings).wait() == 0
    whole = samples(tmp_path / "whole")
    killed_and_resumed(tmp_path / "hit", 10, *settings)
    assert samples(tmp_path / "hit") == whole
    assert len(whole) == 24
    (run,) = find_runs([tmp_path / "hit"])
    assert any(sample.cost.earlier for sample in run.stream())


@pytest.mark.model
def test_ten_kills_lose_and_double_no_key_without_deterministic_mode(tmp_path: Path) -> None:
    """Each chain goes on with its own random numbers, so that what differs from an undisturbed run is
    what rounding makes of them in another batch: for most samples nothing."""
    killed_and_resumed(tmp_path / "hit", 10, "replicates=10")
    (run,) = find_runs([tmp_path / "hit"])
    assert verify(run).damaged == 0
    assert run.keys() == {(problem, r) for problem in run.problems() for r in range(10)}
    assert command(tmp_path / "whole", "replicates=10").wait() == 0
    (whole,) = find_runs([tmp_path / "whole"])
    there, here = whole.samples(), run.samples()
    same = sum(there[key].tokens == here[key].tokens for key in there)
    assert same > 0.8 * len(there)
