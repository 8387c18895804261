"""A whole power run that is killed once it has kept something, resumed, and verified."""

import argparse
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from powerbench.bench.gpu import report
from powerbench.store import find_runs
from powerbench.store.verify import verify

COMMAND = "import sys; from powerbench.cli import main; sys.exit(main())"
"""`powerbench`, by this very Python."""


def run_killed(settings: Sequence[str], runs: Path, samples: int) -> dict[str, Any]:
    """Start a run of so many samples, kill it after its first one, go on, and verify. Empties `runs` first.

    Raises RuntimeError where a command fails, or what it leaves is not whole.
    """
    shutil.rmtree(runs, ignore_errors=True)
    command = [sys.executable, "-c", COMMAND, "run", *settings, f"runs={runs}"]
    began = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, encoding="utf-8"
    )
    try:
        while process.poll() is None and not (before := _lines(runs)):
            time.sleep(0.05)
    finally:
        process.kill()
        _, said = process.communicate()
    killed = time.perf_counter() - began
    if process.returncode > 0:
        raise RuntimeError(said.strip().splitlines()[-1])
    before = _lines(runs)
    done = subprocess.run(command, capture_output=True, encoding="utf-8")
    if done.returncode:
        raise RuntimeError(f"resumed, it fails: {done.stderr.strip().splitlines()[-1]}")
    after, [run] = _lines(runs), find_runs([runs])
    health = verify(run)
    if health.samples != samples or health.damaged or not set(before) <= set(after):
        raise RuntimeError(
            f"{health.samples} of {samples} samples, {len(set(before) - set(after))} lost, {health.found}"
        )
    return {
        "samples": health.samples,
        "before_the_kill": len(before),
        "seconds_to_the_kill": killed,
        "seconds_after": time.perf_counter() - began - killed,
    }


def _lines(runs: Path) -> list[str]:
    """The samples that a run's files hold, as they are written."""
    return [
        line
        for path in sorted(runs.rglob("samples*.jsonl"))
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
        if line.endswith("\n")
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m powerbench.bench.kill_resume", description=__doc__
    )
    parser.add_argument("model", type=Path, help="a folder, as `tiny_lm` makes it")
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--limit", type=int, default=32)
    parser.add_argument("--replicates", type=int, default=4)
    parser.add_argument("--max-tokens", type=int, default=256)
    given = parser.parse_args()
    settings = [
        "model=hf",
        f"model.id={given.model}",
        f"model.dtype={'float32' if given.device == 'cpu' else 'bfloat16'}",
        "task=math_mini",
        "sampler=power",
        "tracker=none",
        "blocks=4",
        "steps=4",
        f"engine.device={given.device}",
        f"limit={given.limit}",
        f"replicates={given.replicates}",
        f"max_tokens={given.max_tokens}",
    ]
    report(run_killed(settings, given.runs, given.limit * given.replicates))


if __name__ == "__main__":
    main()
