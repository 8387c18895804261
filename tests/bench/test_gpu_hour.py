"""`make gpu-hour`, its own code: on a CPU, with toy sizes.

Run: pytest tests/bench/test_gpu_hour.py
"""

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from powerbench.bench import gpu_hour, tiny_lm
from powerbench.bench.gpu_hour import NAMES, Part, measure, parts, run, table
from powerbench.bench.kill_resume import run_killed
from powerbench.models import HubModel


def python(code: str, limit: float = 60) -> Part:
    return Part([sys.executable, "-uc", code], limit)


GOOD = python("print('row {\"chains\": 1, \"tokens_per_second\": 5.0}'); print('12 passed')")
BAD = python(
    "print('row {\"steps\": 3}'); print('row {\"steps\": 4}'); raise ValueError('it broke')"
)


def test_a_part_that_fails_keeps_its_rows_and_says_its_last_line() -> None:
    seen: list[int] = []
    done = run(BAD, lambda now: seen.append(len(now["rows"])))
    assert seen == [1, 2]  # known after each of them
    assert done["status"] == "failed"
    assert [row["steps"] for row in done["rows"]] == [3, 4]
    assert done["said"] == "ValueError: it broke"


def test_a_part_that_hangs_is_ended_with_what_it_started() -> None:
    child = "import subprocess, sys; print('row {}'); subprocess.run(['sleep', '600'])"
    done = run(python(child, limit=3), lambda now: None)
    assert done["status"] == "out of time"
    assert done["rows"] == [{}]


def test_the_others_go_on_and_one_file_and_one_table_hold_all(tmp_path: Path) -> None:
    out = tmp_path / "bench" / "hour.json"
    absent = Part(None, 0, "vLLM is not installed")
    measure({"tests": BAD, "vllm": absent, "qwen": GOOD}, out, "H100")
    record = json.loads(out.read_text(encoding="utf-8"))
    assert {name: part["status"] for name, part in record["parts"].items()} == {
        "tests": "failed",
        "vllm": "not run",
        "qwen": "ok",
    }
    assert record["provenance"]["packages"]["torch"] == torch.__version__
    said = out.with_suffix(".md").read_text(encoding="utf-8")
    assert said == table(record)
    assert "| qwen | 1 |  | 5 |  |" in said
    assert "steps 3; steps 4" in said


def test_an_interrupt_keeps_what_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, ask = tmp_path / "hour.json", gpu_hour.run

    def interrupted(part: Part, seen: Callable[[Mapping[str, Any]], None]) -> dict[str, Any]:
        def stop(now: Mapping[str, Any]) -> None:
            seen(now)
            if now["status"] == "running":
                raise KeyboardInterrupt

        return ask(part, stop if part is BAD else seen)

    monkeypatch.setattr(gpu_hour, "run", interrupted)
    measure({"tests": GOOD, "qwen": BAD, "phi": GOOD}, out, "H100")
    kept = json.loads(out.read_text(encoding="utf-8"))["parts"]
    assert {name: part["status"] for name, part in kept.items()} == {
        "tests": "ok",
        "qwen": "interrupted",
    }
    assert kept["qwen"]["rows"] == [{"steps": 3}]


@pytest.mark.faults
def test_its_own_parts_run_on_a_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "hour.json"
    words = ["--tiny", "--device", "cpu", "--work", str(tmp_path), "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["gpu_hour", *words, "--parts", "train", "qwen", "power"])
    gpu_hour.main()
    kept = json.loads(out.read_text(encoding="utf-8"))["parts"]
    assert {part["status"] for part in kept.values()} == {"ok"}
    assert [row["chains"] for row in kept["qwen"]["rows"]] == [1, 2]
    assert kept["power"]["rows"][0]["samples"] == 4  # killed, resumed and verified
    assert kept["power"]["rows"][0]["before_the_kill"] >= 1
    assert "ok" in out.with_suffix(".md").read_text(encoding="utf-8")


def test_the_limits_are_about_nine_minutes_beside_training_and_vllm(tmp_path: Path) -> None:
    every = parts("cuda", tiny=False, work=tmp_path)
    assert tuple(every) == NAMES
    assert sum(every[name].limit for name in NAMES if name not in ("train", "vllm")) <= 540


def test_a_run_that_cannot_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="none_such"):
        run_killed(["model=toy", "sampler=none_such"], tmp_path / "runs", samples=1)


def test_the_model_that_it_trains_is_one_and_stays(tmp_path: Path) -> None:
    folder = tmp_path / "lm"
    assert tiny_lm.make(folder, seconds=60, steps=2) == 2
    assert tiny_lm.make(folder, seconds=60) == 0
    tokenizer = HubModel("tiny", str(folder)).tokenizer()
    text = tiny_lm.texts()[0]
    assert tokenizer.decode(tokenizer.continuation(text)) == text


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu_hour"])
    with pytest.raises(SystemExit, match="torch sees none"):
        gpu_hour.main()
