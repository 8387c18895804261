"""A sweep of 2 models x 2 samplers x 2 shards on the toy engine, its samples, and ways to disturb it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from powerbench.store import Run, find_runs
from powerbench.store.owner import Writer
from powerbench.store.shard import Shard
from powerbench.types import SampleKey

SETTINGS = (
    *("model=toy", "model.seed=0,1", "model.vocabulary=256", "engine=toy", "sampler=base,power"),
    *("max_tokens=96", "blocks=12", "task=math_mini", "limit=8", "replicates=30", "tracker=none"),
)
HANG = 300.0
"""Seconds after which a test gives up; no verdict depends on it."""

Samples = Mapping[tuple[Path, SampleKey], Mapping[str, Any]]


class Done(NamedTuple):
    """A command that has ended."""

    code: int
    said: str


def start(runs: Path, *settings: str) -> subprocess.Popen[str]:
    """`powerbench run -m` with these settings, at work."""
    command = [sys.executable, "-m", "powerbench.cli", "run", "-m", *SETTINGS, f"runs={runs}"]
    return subprocess.Popen(
        [*command, *settings],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def finish(process: subprocess.Popen[str]) -> Done:
    """Wait for its end."""
    said, _ = process.communicate(timeout=HANG)
    return Done(process.returncode, said)


def samples(runs: Path) -> Samples:
    """All samples below a folder, without what depends on the clock and on interruptions."""
    found = {}
    for run in find_runs([runs]):
        for key, sample in run.samples().items():
            content = asdict(sample)
            content["cost"] = sample.cost.decoded
            found[run.path.relative_to(runs), key] = content
    return found


def at_work(runs: Path, shard: Shard) -> tuple[Run, Writer]:
    """A run with the power sampler and the writer of this shard of it, once it has made some samples and
    is far from its end."""
    until = time.monotonic() + HANG
    while time.monotonic() < until:
        for file in runs.glob(f"*/*/power-*/samples{shard.suffix}.jsonl"):
            run, made = Run(file.parent), file.read_bytes().count(b"\n")
            writer = next((w for w in run.writers() if w.name == file.stem), None)
            if writer is not None and writer.alive() and 5 <= made < writer.progress.total / 2:
                return run, writer
        time.sleep(0.02)
    raise TimeoutError("no job of the sweep came to work")


def kill(runs: Path, shard: Shard) -> Run:
    """kill -9 the process that writes this shard of a run."""
    run, writer = at_work(runs, shard)
    os.kill(writer.pid, signal.SIGKILL)
    return run


def requeue(runs: Path, shard: Shard) -> tuple[Run, Writer]:
    """Have Slurm put the job that writes this shard of a run back into the queue, as a preemption does.

    Its process is held until Slurm kills it, so that it gets nothing done in the time of grace.
    """
    run, writer = at_work(runs, shard)
    os.kill(writer.pid, signal.SIGSTOP)
    subprocess.run(["scontrol", "requeue", writer.job.removeprefix("slurm ")], check=True)
    while writer.alive():
        with suppress(ProcessLookupError):
            os.kill(writer.pid, signal.SIGSTOP)  # Slurm lets it go on before it kills it
        time.sleep(0.02)
    return run, writer


def check_killed(done: Done, run: Run, shard: Shard) -> None:
    """What a sweep of eight jobs says of the one that was killed."""
    assert done.code == 1, done.said
    (line,) = [line for line in done.said.splitlines() if line.startswith("FAILED")]
    assert line.startswith(f"FAILED {run.path} (shard {shard}): killed")
    assert "samples missing; log: " in line
    assert f"{run.path} (shard {shard}): " in Path(line.rpartition("log: ")[2]).read_text()
    assert "7 of 8 jobs complete" in done.said


def check_whole(done: Done, runs: Path, plain: Samples) -> None:
    """That a sweep has ended well, with the samples of a plain run."""
    assert done.code == 0, done.said
    assert "8 of 8 jobs complete" in done.said
    assert samples(runs) == plain
