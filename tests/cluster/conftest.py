"""What the tests of launchers share: the samples of a plain run, and a Slurm of one node."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from sweeping import Samples, finish, samples, start

SLURM = Path(__file__).with_name("slurm.sh")


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    """The samples of the sweep without shards, one job after the other."""
    runs = tmp_path_factory.mktemp("plain")
    done = finish(start(runs))
    assert done.code == 0, done.said
    return samples(runs)


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A real Slurm, found by its commands through SLURM_CONF."""
    absent = [name for name in ("slurmctld", "slurmd", "munged") if shutil.which(name) is None]
    if absent:
        pytest.skip(f"no {absent[0]} here (Debian: apt-get install slurm-wlm munge)")
    if os.geteuid() != 0:
        pytest.skip("only root can start a Slurm that runs jobs")
    folder = tmp_path_factory.mktemp("slurm")
    started = subprocess.run([SLURM, "start", folder], capture_output=True, text=True)
    if started.returncode:
        pytest.skip(f"Slurm does not start here: {started.stderr.strip()}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        yield
        subprocess.run([SLURM, "stop", folder], check=True)
