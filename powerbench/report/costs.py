"""What a run has cost, from its samples and its manifest."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from powerbench.models.flops import Size, flops
from powerbench.report.samples import SampleStats, device_seconds


def flops_of(manifest: Mapping[str, Any], samples: Iterable[SampleStats]) -> float | None:
    """Floating-point operations of all rows and prefills; None where any of it is not known."""
    size = manifest.get("model", {}).get("size")
    if size is None:
        return None
    tokens = attended = 0.0
    for s in samples:
        if s.rows is None or s.contexts is None:
            return None
        tokens += s.rows + s.prefilled
        attended += s.contexts
    return flops(Size(**size), tokens, attended)


def dollars(samples: Sequence[SampleStats]) -> float | None:
    """What an endpoint's bill says; None where that of any response is not known."""
    known = [s.dollars for s in samples if s.dollars is not None]
    return math.fsum(known) if known and len(known) == len(samples) else None


def gpu_hours(
    config: Mapping[str, Any], manifest: Mapping[str, Any], samples: Iterable[SampleStats]
) -> float | None:
    """Wall-clock of the shards, times the GPUs of each; None where none was used."""
    engine, seconds = config.get("engine", {}), device_seconds(samples)
    there = bool(manifest.get("hardware", {}).get("accelerators"))
    elsewhere = engine.get("device") == "cpu" or engine.get("name") == "endpoint"
    if seconds is None or not there or elsewhere:
        return None
    return seconds * (engine.get("tensor_parallel_size") or 1) / 3600
