"""What was found out about a device, kept in the cache folder: it costs its seconds once a machine."""

import hashlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import PreTrainedModel

from powerbench.cache import cache_folder
from powerbench.engines.hf.self_check import Checked, self_check

DRIVER = Path("/proc/driver/nvidia/version")
"""Where NVIDIA's driver says its version."""


def remembered_check(engine: Checked) -> dict[str, Any]:
    """As `self_check`, but for what passed here before, with the same device, software and architecture."""
    runner = engine.runner
    paths = {"graphs": (runner.graphs, runner.graphs_required), "varlen": runner.varlen}
    file = file_of("checks", identity(engine.lm, engine.device) | paths)
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        state = bool(found["graphs"]), bool(found["varlen"])
    except (OSError, ValueError, KeyError, TypeError):  # none yet, or not whole: made again
        found = self_check(engine)
        remember(file, found)
        return found
    engine.runner.graphs &= state[0]
    engine.runner.varlen &= state[1]
    return {**found, "remembered": True}


def file_of(kind: str, identity: Mapping[str, Any]) -> Path:
    """Where something of this identity is kept."""
    text = json.dumps(identity, sort_keys=True, default=str)
    return cache_folder() / kind / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"


def remember(file: Path, found: Mapping[str, Any]) -> None:
    """Keep what was found; a cache that cannot be written is said, and costs time only."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(found), encoding="utf-8")
    except OSError as error:
        print(f"what was found of the device cannot be remembered: {error}", file=sys.stderr)


def identity(lm: PreTrainedModel, device: torch.device) -> dict[str, Any]:
    """What decides whether something that was found out still holds."""
    config = lm.config.to_dict()
    here = Path(__file__).parents[1]
    code = hashlib.sha256(b"".join(file.read_bytes() for file in sorted(here.rglob("*.py"))))
    return {
        "device": device_name(device),
        "driver": DRIVER.read_text(encoding="utf-8").splitlines()[0] if DRIVER.exists() else None,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "config": {name: value for name, value in config.items() if not name.startswith("_")},
        "dtype": str(lm.dtype),
        "code": code.hexdigest(),
    }


def device_name(device: torch.device) -> str:
    """The GPU's name, or else the kind of device."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
