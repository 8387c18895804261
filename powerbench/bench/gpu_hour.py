"""`make gpu-hour`: what a GPU shows of this project, for whoever lends one. About nine minutes, no download.

Parts, each in a process of its own with a time limit, so that one that fails or hangs ends alone: a tiny
model trained on the CPU, once; the tests of the CUDA paths; the self-check of the device; decoding speed
against the roofline, with random weights of Qwen2.5-7B's and of Phi-3.5-mini's shape; a power run that is
killed and resumed; vLLM, if it is installed. One JSON file, and a table beside it, are written anew after
every row: interrupted, it keeps what is there.
"""

import argparse
import importlib.util
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from threading import Timer
from typing import Any

from powerbench.bench.gpu import CHAINS, ROW
from powerbench.bench.kill_resume import COMMAND
from powerbench.cache import cache_folder
from powerbench.store.provenance import provenance

ROOT = Path(__file__).parents[2]

VLLM_PYTHON = ROOT / ".venv-vllm" / "bin" / "python"
"""What `make test-vllm` makes; else vLLM may be beside this project."""

NAMES = ("train", "tests", "check", "qwen", "phi", "power", "vllm")


@dataclass(frozen=True)
class Part:
    """A command, and how long it may take."""

    command: Sequence[str] | None
    """None where it cannot run here."""
    limit: float
    """Seconds."""
    why_not: str = ""


def parts(device: str, tiny: bool, work: Path) -> dict[str, Part]:
    """By name, in the order in which they run. tiny: of toy sizes, to try this program itself.

    work: a folder for the model and the run that are made.
    """
    python, model = [sys.executable, "-m"], work / ("tiny-lm-toy" if tiny else "tiny-lm")

    def decoding(shape: str) -> list[str]:
        sizes = ["--chains", *map(str, (1, 2) if tiny else CHAINS)]
        small = ["--length", "60", "--tokens", "8"] if tiny else []
        shape = "tiny" if tiny else shape
        return [
            *python,
            "powerbench.bench.gpu",
            "--shape",
            shape,
            "--device",
            device,
            *sizes,
            *small,
        ]

    share = 4 if tiny else 1  # of a limit: a CPU may be busy
    toy = ["--limit", "2", "--replicates", "2", "--max-tokens", "16"] if tiny else []
    train = ["powerbench.bench.tiny_lm", str(model), "--seconds", "2" if tiny else "60"]
    power = ["powerbench.bench.kill_resume", str(model), "--runs", str(work / "runs")]
    every = {
        "train": Part([*python, *train], 150),
        "tests": Part([*python, "pytest", "-m", "cuda", "tests/engines"], 150),
        "check": Part([sys.executable, "-c", COMMAND, "doctor", "--device", device], 60),
        "qwen": Part(decoding("qwen2.5-7b"), 110),
        "phi": Part(decoding("phi-3.5-mini"), 90),
        "power": Part([*python, *power, "--device", device, *toy], 80),
        "vllm": _vllm(model, tiny),
    }
    return {name: replace(part, limit=share * part.limit) for name, part in every.items()}


def _vllm(model: Path, tiny: bool) -> Part:
    python = str(VLLM_PYTHON) if VLLM_PYTHON.exists() else sys.executable
    if python == sys.executable and importlib.util.find_spec("vllm") is None:
        return Part(None, 0, "vLLM is not installed")
    sizes = ["--chains", *map(str, (1, 2) if tiny else (32, 256))]
    shape = "tiny" if tiny else "qwen2.5-7b"
    folder = str(model.parent / f"config-{shape}")
    module = [python, "-m", "powerbench.bench.vllm_random", folder, "--shape", shape]
    return Part([*module, *sizes], 120)


def run(part: Part, seen: Callable[[Mapping[str, Any]], None]) -> dict[str, Any]:
    """Run a part; `seen` is called with what is known of it after each of its rows.

    Its `status` is ok, failed, out of time or not run; its `said`, of one that is not ok, the last line that it
    printed, and its `output` the last thirty. An interrupt ends its processes, and is raised again.
    """
    if part.command is None:
        return {"status": "not run", "said": part.why_not, "rows": []}
    record: dict[str, Any] = {"status": "running", "command": shlex.join(part.command), "rows": []}
    began, late = time.perf_counter(), []
    process = subprocess.Popen(
        part.command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        cwd=ROOT,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "WANDB_MODE": "offline"},
        start_new_session=True,
    )

    def end() -> None:
        late.append(True)
        _kill(process)

    timer = Timer(part.limit, end)
    timer.start()
    lines: list[str] = []
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith(ROW):
                record["rows"].append(json.loads(line.removeprefix(ROW)))
                seen(record)
            elif line.strip():
                lines = [*lines[-29:], line.rstrip()]
        process.wait()
    except BaseException:
        _kill(process)
        seen({**record, "status": "interrupted"})
        raise
    finally:
        timer.cancel()
    record["seconds"] = time.perf_counter() - began
    record["status"] = "out of time" if late else "failed" if process.returncode else "ok"
    record["said"] = lines[-1] if lines else ""
    if record["status"] != "ok":
        record["output"] = lines
    return record


def _kill(process: subprocess.Popen[str]) -> None:
    """End a part, and what it started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def table(record: Mapping[str, Any]) -> str:
    """The parts and the decoding speeds, as Markdown."""
    lines = [
        f"{record['device']}, {record['measured']}",
        "",
        "| part | | seconds | |",
        "|---|---|---:|---|",
    ]
    for name, part in record["parts"].items():
        seconds = f"{part['seconds']:.0f}" if "seconds" in part else ""
        said = (_facts(part["rows"]) or part.get("said", "")).replace("|", "/")[:100]
        lines.append(f"| {name} | {part['status']} | {seconds} | {said} |")
    speeds = [
        (name, row)
        for name, part in record["parts"].items()
        for row in part["rows"]
        if "tokens_per_second" in row
    ]
    if speeds:
        lines += [
            "",
            "| part | chains | graphs | tokens/s | of the roofline |",
            "|---|---:|---|---:|---:|",
        ]
    order = list(record["parts"])
    for name, row in sorted(speeds, key=lambda each: (order.index(each[0]), each[1]["chains"])):
        share = f"{row['of_roofline']:.0%}" if "of_roofline" in row else ""
        graphs = {True: "yes", False: "no", None: ""}[row.get("graphs")]
        rate = f"{row['tokens_per_second']:,.0f}"
        lines.append(f"| {name} | {row['chains']} | {graphs} | {rate} | {share} |")
    return "\n".join(lines) + "\n"


def _facts(rows: Sequence[Mapping[str, Any]]) -> str:
    """What rows say that are not of the second table."""
    facts = [row for row in rows if "tokens_per_second" not in row]
    return "; ".join(f"{key} {value:.4g}" for row in facts for key, value in row.items())


def measure(chosen: Mapping[str, Part], out: Path, device: str) -> dict[str, Any]:
    """Run these parts, writing what is known after each row of each; an interrupt ends it early."""
    record: dict[str, Any] = {
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": device,
        "parts": {},
        "provenance": provenance(
            shlex.join(["python", "-m", "powerbench.bench.gpu_hour", *sys.argv[1:]])
        ),
    }

    def write(name: str, part: Mapping[str, Any]) -> None:
        record["parts"][name] = dict(part)
        out.parent.mkdir(parents=True, exist_ok=True)
        for path, text in (
            (out, json.dumps(record, indent=2) + "\n"),
            (out.with_suffix(".md"), table(record)),
        ):
            new = path.with_suffix(".new")
            new.write_text(text, encoding="utf-8")
            new.replace(path)

    try:
        for name, part in chosen.items():
            print(f"{name}: at most {part.limit:.0f} s", flush=True)
            done = run(part, lambda now, name=name: write(name, now))  # type: ignore[misc]
            write(name, done)
            print(f"{name}: {done['status']} {done['said'][:120]}", flush=True)
    except KeyboardInterrupt:
        print("interrupted: what was measured is kept", flush=True)
    return record


def _device_name(device: str) -> str:
    """The GPU's own name, or the device's; a process of its own asks, so that none here holds the GPU."""
    ask = "import torch; print(torch.cuda.get_device_name())"
    if device != "cpu":
        asked = subprocess.run([sys.executable, "-c", ask], capture_output=True, encoding="utf-8")
        if asked.returncode == 0:
            return asked.stdout.strip().splitlines()[-1]
    return device


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m powerbench.bench.gpu_hour", description=__doc__
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="toy sizes: to try this program itself")
    parser.add_argument("--parts", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--work", type=Path, default=cache_folder() / "gpu-hour")
    parser.add_argument("--out", type=Path, help="default: runs/bench/gpu-hour-<device>.json")
    given = parser.parse_args()
    device = _device_name(given.device)
    if given.device == device == "cuda":
        sys.exit(
            "powerbench: gpu-hour needs a CUDA device, and torch sees none; "
            "ARGS='--device cpu --tiny' tries the program itself"
        )
    label = re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")
    out = given.out or ROOT / "runs" / "bench" / f"gpu-hour-{label}.json"
    every = parts(given.device, given.tiny, given.work.absolute())
    chosen = {name: part for name, part in every.items() if name in given.parts}
    record = measure(chosen, out, device)
    print(f"\n{table(record)}\n{out}")
    if any(part["status"] in ("failed", "out of time") for part in record["parts"].values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
