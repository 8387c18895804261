"""Sweeps through real launchers: joblib, Ray, and a Slurm of one node; killed, preempted, repeated.

They kill, wait and start processes anew for minutes: `make test-faults` runs them.

Run: pytest -m faults tests/cluster
"""

import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest
from sweeping import (
    Samples,
    at_work,
    check_killed,
    check_whole,
    finish,
    kill,
    requeue,
    samples,
    start,
)

from powerbench.store import find_runs
from powerbench.store.shard import Shard

pytestmark = pytest.mark.faults

SHARDS = "shard=all/2"
JOBLIB = (SHARDS, "hydra/launcher=joblib")
RAY = (SHARDS, "hydra/launcher=ray", "hydra.launcher.ray.remote.num_gpus=0")
LOCAL = {"joblib": JOBLIB, "ray": RAY}
SLURM = (
    *(SHARDS, "hydra/launcher=slurm", "hydra.launcher.gpus_per_node=0"),
    *("hydra.launcher.cpus_per_task=1", "hydra.launcher.mem_gb=1"),
)
FIRST, SECOND = Shard(1, 2), Shard(2, 2)


@pytest.mark.parametrize("launcher", LOCAL)
def test_a_job_that_is_killed_stops_no_other_and_is_made_up_for(
    launcher: str, tmp_path: Path, plain: Samples
) -> None:
    _require(f"hydra_{launcher}_launcher")
    sweep = start(tmp_path, *LOCAL[launcher])
    run = kill(tmp_path, FIRST)
    check_killed(finish(sweep), run, FIRST)
    check_whole(finish(start(tmp_path, *LOCAL[launcher])), tmp_path, plain)


@pytest.mark.usefixtures("slurm")
def test_slurm_jobs_are_killed_and_requeued(tmp_path: Path, plain: Samples) -> None:
    _require("hydra_submitit_launcher")
    sweep = start(tmp_path, *SLURM)
    requeued, writer = requeue(tmp_path, SECOND)
    killed = kill(tmp_path, FIRST)
    check_killed(finish(sweep), killed, FIRST)
    second = next(w for w in requeued.writers() if w.name == writer.name)
    assert (second.job, second.restart) == (writer.job, 1)
    assert (
        0 < second.progress.made_here < second.progress.done
    )  # it went on where the first was stopped
    check_whole(finish(start(tmp_path, *SLURM)), tmp_path, plain)


@pytest.mark.usefixtures("slurm")
def test_a_slurm_job_that_is_warned_of_its_end_puts_itself_back(
    tmp_path: Path, plain: Samples
) -> None:
    """As Slurm warns it, `signal_delay_s` before its time is over."""
    _require("hydra_submitit_launcher")
    sweep = start(tmp_path, *SLURM, "sampler=power", "model.seed=0")
    run, writer = at_work(tmp_path, SECOND)
    job = writer.job.removeprefix("slurm ")
    subprocess.run(["scancel", "--signal=USR2", job], check=True)
    done = finish(sweep)
    assert done.code == 0, done.said
    second = next(w for w in run.writers() if w.name == writer.name)
    assert second.job == writer.job and second.restart >= 1
    assert second.progress.made_here < second.progress.done == second.progress.total
    assert samples(tmp_path).items() <= plain.items()
    assert len(samples(tmp_path)) == second.progress.total * 2


@pytest.mark.usefixtures("slurm")
def test_tasks_of_one_slurm_job_share_its_shard(tmp_path: Path, plain: Samples) -> None:
    _require("hydra_submitit_launcher")
    done = finish(start(tmp_path, *SLURM, "sampler=base", "hydra.launcher.tasks_per_node=2"))
    assert done.code == 0, done.said
    runs = find_runs([tmp_path])
    assert [run.shards() for run in runs] == [[Shard(n, 4) for n in (1, 2, 3, 4)]] * 2
    assert samples(tmp_path) == {k: v for k, v in plain.items() if k[0].name.startswith("base-")}


def _require(plugin: str) -> None:
    if find_spec(f"hydra_plugins.{plugin}") is None:
        pytest.skip(f"{plugin.replace('_', '-')} is not installed (pip install '.[cluster]')")
