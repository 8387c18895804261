"""`make bench-store`: how long a run folder of 100,000 samples takes to open, verify, report and export.

The folder is made up: 500 problems and 200 replicates of them, responses of the paper's mean length, and
the steps of the blocks that they reach. "x plain read" is the time over that of reading the file of
samples and decoding its lines with the standard library's json, in the same round.
"""

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import numpy as np
import yaml
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from powerbench.store import Run, records
from powerbench.store.provenance import digest_of, provenance
from powerbench.store.scan import ScoreRecord
from powerbench.store.writing import create
from powerbench.types import Cost, FinishReason, Problem, Prompt, Sample, Score, Step

PROBLEMS = 500
TOKENS, BLOCK, STEPS = 679, 192, 10
"""Mean length of a power sample of MATH500 by Qwen2.5-Math-7B (arXiv 2510.14901); block; steps of one."""

PLAIN = "plain read"


def fabricate(path: Path, samples: int, tokens: int = TOKENS) -> Run:
    """A run folder with `samples` samples of `tokens` tokens on average, and scores of all of them."""
    run = Run(path)
    made = {"sampler": {"name": "power"}, "seed": 0}
    identity = {**made, "task": "math500", "engine": "made-up"}
    config = {
        **made,
        "task": {"name": "math500"},
        "engine": {"name": "made-up"},
        "model": {"name": "made-up"},
        "verifier": {"name": "math"},
        "limit": None,
        "replicates": -(-samples // PROBLEMS),
    }
    problems = [Problem(f"p{i}", Prompt(f"What is {i}?"), str(i)) for i in range(PROBLEMS)]
    manifest = {"digest": digest_of(identity), "identity": identity, "git": None, "packages": {}}
    create(run, yaml.safe_dump(config), manifest, problems)
    (path / "scores").mkdir()
    with (
        run.samples_file().open("wb") as samples_file,
        run.scores_file("math").open("wb") as scores_file,
    ):
        for sample in _samples(samples, tokens):
            samples_file.write(records.encode(sample))
            score = Score(correct=sample.replicate % 3 > 0, answer="1", reason="compared")
            record = ScoreRecord(*sample.key, **asdict(score))
            scores_file.write(records.encode(record))
    return run


def _samples(count: int, mean: int) -> Iterator[Sample]:
    rng = np.random.default_rng(0)
    for i in range(count):
        length = int(rng.integers(mean // 2, mean * 3 // 2 + 1))
        rate = 0.3 + 0.05 * float(rng.standard_normal())
        tokens = tuple(rng.integers(0, 150_000, length).tolist())
        steps = tuple(
            Step(
                n // STEPS, int(m), -0.3 * length, None if n % 2 else -0.31 * length, 90, n % 2 == 0
            )
            for n, m in enumerate(rng.integers(0, length, STEPS * -(-length // BLOCK)))
        )
        yield Sample(
            problem=f"p{i % PROBLEMS}",
            replicate=i // PROBLEMS,
            text=" ".join(f"word{t % 997}" for t in tokens[: length // 2]),
            tokens=tokens,
            logp=-rate * length,
            entropy=(rate + 0.05) * length,
            finish_reason=FinishReason.STOP,
            prompt_tokens=80,
            cost=Cost(
                decoded=3 * length, prefilled=80, seconds=60.0, finished=1e9 + i, attended=0.0
            ),
            steps=steps,
        )


# -- what is measured -----------------------------------------------------------------------------


def opening(run: Run) -> float:
    """Seconds until all keys are known, every checksum checked: what stands before the first sample."""
    return _seconds(run.keys)


def plain_read(run: Run) -> float:
    """Seconds to read the file of samples line by line, with the standard library's json."""

    def read() -> None:
        with run.samples_file().open("rb") as file:
            for line in file:
                json.loads(line)

    return _seconds(read)


def _seconds(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def command(*arguments: str) -> tuple[float, float]:
    """A command's wall-clock seconds, imports included, and its peak memory in GiB."""
    code = (
        "import resource, subprocess, sys, time; began = time.perf_counter(); "
        "subprocess.run([sys.executable, '-m', 'powerbench.cli', *sys.argv[1:]], check=True, "
        "stdout=subprocess.DEVNULL); "
        "print(time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    printed = subprocess.check_output(
        [sys.executable, "-c", code, *arguments], encoding="utf-8", errors="replace"
    )
    seconds, peak = map(float, printed.split())
    return seconds, peak / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m powerbench.bench.storing", description=__doc__)
    parser.add_argument("--samples", type=int, default=100_000)
    parser.add_argument("--tokens", type=int, default=TOKENS, help="mean length of a response")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("runs/bench/latest-store.json"))
    options = parser.parse_args()
    console = Console(width=100)
    with tempfile.TemporaryDirectory() as folder:
        run = fabricate(Path(folder) / "run", options.samples, options.tokens)
        size = run.samples_file().stat().st_size
        console.print(
            f"{options.samples:,} samples of {options.tokens} tokens on average, "
            f"{size / 2**20:.0f} MiB; medians of {options.repeats} rounds"
        )
        rounds = [_round(run, Path(folder)) for _ in range(options.repeats)]
    table = Table(box=SIMPLE)
    for heading in ("", "seconds", f"x {PLAIN}", "peak GiB"):
        table.add_column(heading, justify="right" if heading else "left")
    for name in rounds[0]:
        ratio = median(each[name][0] / each[PLAIN][0] for each in rounds)
        peaks = [each[name][1] for each in rounds]
        seconds = median(each[name][0] for each in rounds)
        table.add_row(
            name, f"{seconds:.1f}", f"{ratio:.2f}", f"{max(peaks):.2f}" if peaks[0] else "-"
        )
    console.print(table)
    record = {
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        "samples": options.samples,
        "bytes": size,
        "rounds": rounds,
        "provenance": provenance(
            shlex.join(["python", "-m", "powerbench.bench.storing", *sys.argv[1:]])
        ),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    console.print(f"written to {options.out}")


def _round(run: Run, folder: Path) -> dict[str, tuple[float, float]]:
    """Seconds, and for commands the peak memory in GiB; of what stays in this process 0."""
    path = str(run.path)
    return {
        PLAIN: (plain_read(run), 0.0),
        "open": (opening(run), 0.0),
        "powerbench verify": command("verify", path),
        "powerbench report": command("report", path, "--out", str(folder / "report")),
        "powerbench export": command("export", path, "--out", str(folder / "export")),
    }


if __name__ == "__main__":
    main()
