"""The CPUs that a process may use are the smallest of its limits, as the system's files and Slurm tell them.

Run: pytest tests/machine/test_cpus.py
"""

from pathlib import Path

import pytest

from powerbench.machine import cpus
from powerbench.machine.cpus import Cpus, usable_cpus


@pytest.fixture(autouse=True)
def eight(monkeypatch: pytest.MonkeyPatch) -> None:
    """An affinity of eight CPUs."""
    monkeypatch.setattr(cpus, "affinity", lambda: Cpus(8, "affinity"))


def root(folder: Path, cgroup: str, files: dict[str, str]) -> Path:
    """/proc and /sys of a process in a cgroup."""
    for name, text in {"proc/self/cgroup": cgroup, **files}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


V2 = "sys/fs/cgroup"
V1 = "sys/fs/cgroup/cpu,cpuacct"
UNLIMITED = Cpus(8, "affinity")


@pytest.mark.parametrize(
    ("cgroup", "files", "expected"),
    [
        ("", {}, UNLIMITED),
        ("0::/\n", {f"{V2}/cpu.max": "max 100000\n"}, UNLIMITED),
        ("0::/\n", {f"{V2}/cpu.max": "200000 100000\n"}, Cpus(2, "cgroup quota")),
        ("0::/\n", {f"{V2}/cpu.max": "150000 100000\n"}, Cpus(2, "cgroup quota")),
        ("0::/\n", {f"{V2}/cpu.max": "5000 100000\n"}, Cpus(1, "cgroup quota")),
        ("0::/\n", {f"{V2}/cpu.max": "1600000 100000\n"}, UNLIMITED),
        (  # the quota is that of a cgroup above
            "0::/user.slice/job.scope\n",
            {
                f"{V2}/user.slice/cpu.max": "300000 100000\n",
                f"{V2}/user.slice/job.scope/cpu.max": "max 100000\n",
            },
            Cpus(3, "cgroup quota"),
        ),
        (
            "4:cpu,cpuacct:/docker/abc\n0::/\n",
            {
                f"{V1}/docker/abc/cpu.cfs_quota_us": "400000\n",
                f"{V1}/docker/abc/cpu.cfs_period_us": "100000\n",
            },
            Cpus(4, "cgroup quota"),
        ),
        (  # in the container, where the host's path is not there
            "4:cpu,cpuacct:/docker/abc\n",
            {f"{V1}/cpu.cfs_quota_us": "400000\n", f"{V1}/cpu.cfs_period_us": "100000\n"},
            Cpus(4, "cgroup quota"),
        ),
        (
            "4:cpu:/\n",
            {
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            UNLIMITED,
        ),
        ("3:cpuset:/a\n", {"sys/fs/cgroup/cpuset/a/cpu.max": "100000 100000"}, UNLIMITED),
    ],
)
def test_a_quota_is_read_from_the_cgroup_and_those_above(
    tmp_path: Path, cgroup: str, files: dict[str, str], expected: Cpus
) -> None:
    assert usable_cpus({}, root(tmp_path, cgroup, files)) == expected


@pytest.mark.parametrize(
    ("slurm", "expected"),
    [
        ({"SLURM_CPUS_PER_TASK": "3"}, Cpus(3, "SLURM_CPUS_PER_TASK")),
        ({"SLURM_CPUS_PER_TASK": "16"}, UNLIMITED),
        ({"SLURM_CPUS_ON_NODE": "6"}, Cpus(6, "SLURM_CPUS_ON_NODE")),
        (
            {"SLURM_CPUS_ON_NODE": "6", "SLURM_NTASKS_PER_NODE": "2"},
            Cpus(3, "SLURM_CPUS_ON_NODE"),
        ),
        ({"SLURM_CPUS_PER_TASK": "2", "SLURM_CPUS_ON_NODE": "6"}, Cpus(2, "SLURM_CPUS_PER_TASK")),
        ({"SLURM_CPUS_PER_TASK": ""}, UNLIMITED),
    ],
)
def test_a_slurm_job_has_what_it_asked_for(
    tmp_path: Path, slurm: dict[str, str], expected: Cpus
) -> None:
    assert usable_cpus(slurm, tmp_path) == expected


def test_the_smallest_limit_counts(tmp_path: Path) -> None:
    quota = root(tmp_path, "0::/\n", {f"{V2}/cpu.max": "200000 100000\n"})
    assert usable_cpus({"SLURM_CPUS_PER_TASK": "4"}, quota).count == 2
    assert usable_cpus({"SLURM_CPUS_PER_TASK": "1"}, quota).count == 1
