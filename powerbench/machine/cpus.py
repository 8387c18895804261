"""How many CPUs this process may really use: by its affinity, its cgroup's quota, its share of a Slurm job."""

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from math import ceil
from pathlib import Path, PurePosixPath

ROOT = Path("/")


@dataclass(frozen=True)
class Cpus:
    """A number of CPUs, and what limits it."""

    count: int
    limited_by: str


def usable_cpus(environment: Mapping[str, str] | None = None, root: Path = ROOT) -> Cpus:
    """The smallest of the limits that there are; of equal ones the first: affinity, cgroup quota, Slurm.

    A quota of one and a half CPUs is two: its threads have that much between them. environment: this process's;
    root: where /proc and /sys are.
    """
    limits = [affinity()]
    limits += [Cpus(max(1, ceil(quota)), "cgroup quota") for quota in _quotas(root)]
    limits += _slurm(os.environ if environment is None else environment)
    return min(limits, key=lambda limit: limit.count)


def affinity() -> Cpus:
    """The CPUs that the system would run this process on; all, where it has no such notion (macOS)."""
    if hasattr(os, "sched_getaffinity"):
        return Cpus(len(os.sched_getaffinity(0)), "affinity")
    return Cpus(os.cpu_count() or 1, "machine")


def _quotas(root: Path) -> Iterator[float]:
    """CPUs that this process's cgroup and each of those above it may use: of version 2, and of version 1."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            for folder in _up(root / "sys/fs/cgroup", path):
                yield from _ratio(_read(folder / "cpu.max").split())
        elif "cpu" in controllers.split(","):
            for mount in dict.fromkeys((controllers, "cpu")):
                for folder in _up(root / "sys/fs/cgroup" / mount, path):
                    names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
                    yield from _ratio([_read(folder / name).strip() for name in names])


def _up(mount: Path, path: str) -> Iterator[Path]:
    """The folders of a cgroup and of all above it. In a container its path may be the host's, and the mount
    the cgroup itself: it is among these."""
    inside = PurePosixPath(path.lstrip("/"))
    for each in (inside, *inside.parents):
        yield mount / each


def _ratio(words: list[str]) -> Iterator[float]:
    """Quota over period, both in microseconds; nothing where there is no quota (`max`, or -1)."""
    if len(words) == 2 and all(word.isdigit() and int(word) > 0 for word in words):
        yield int(words[0]) / int(words[1])


def _slurm(environment: Mapping[str, str]) -> list[Cpus]:
    """A task's CPUs, or else its share of the job's on this node: Slurm need not bind it to them."""
    asked, there, tasks = (
        environment.get(name, "")
        for name in ("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE", "SLURM_NTASKS_PER_NODE")
    )
    if asked.isdigit() and int(asked) > 0:
        return [Cpus(int(asked), "SLURM_CPUS_PER_TASK")]
    if there.isdigit() and int(there) > 0:
        share = int(there) // max(1, int(tasks) if tasks.isdigit() else 1)
        return [Cpus(max(1, share), "SLURM_CPUS_ON_NODE")]
    return []


def _read(file: Path) -> str:
    """Its text; none where it is missing, or may not be read."""
    with suppress(OSError):
        return file.read_text(encoding="utf-8")
    return ""
