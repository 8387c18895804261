"""Threads are settled before torch is there, wherever a program starts; what the user has set stands.

Run: pytest tests/machine/test_threads.py
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from powerbench.machine import threads
from powerbench.machine.cpus import Cpus, affinity, usable_cpus
from powerbench.machine.threads import (
    OURS,
    WAITING,
    choose_threads,
    chosen,
    count_left_to_launcher,
    settled,
)
from powerbench.run.doctor import diagnose
from powerbench.store.provenance import hardware

PROGRAMS = {
    "cli": ("-m", "powerbench.cli", "run", "model=toy", "engine=toy", "task=math_mini"),
    "doctor": ("-m", "powerbench.cli", "doctor"),
    "bench": ("-m", "powerbench.bench"),
    "memory": ("-m", "powerbench.bench.memory"),
    "load": ("-m", "powerbench.bench.load", "--worker"),
    "gpu": ("-m", "powerbench.bench.gpu"),
    "gpu_hour": ("-m", "powerbench.bench.gpu_hour"),
    "tiny_lm": ("-m", "powerbench.bench.tiny_lm"),
    "worker of a sweep": ("-c", "import powerbench.cluster.worker"),
}
SETTINGS = (*WAITING, "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_WAIT_POLICY", OURS)
TORCH = """
import os, sys
print("torch sees", os.environ.get("GOMP_SPINCOUNT"), os.environ.get("OMP_NUM_THREADS"))
sys.stdout.flush()
os._exit(0)
"""
"""In the place of torch: tells what its runtime would read."""


def seen_by_torch(folder: Path, program: str, **user: str) -> list[str]:
    """Spins and threads in the environment when a program first imports torch."""
    (folder / "torch").mkdir(exist_ok=True)
    (folder / "torch" / "__init__.py").write_text(TORCH)
    own = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    path = os.pathsep.join(map(str, (folder, Path(threads.__file__).parents[2])))
    done = subprocess.run(
        [sys.executable, *PROGRAMS[program]],
        env=own | {"PYTHONPATH": path} | user,
        capture_output=True,
        text=True,
        cwd=folder,
    )
    line = (done.stdout.splitlines() or [""])[-1]
    assert line.startswith("torch sees "), done.stderr
    return line.split()[2:]


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_program_settles_them_before_torch_is_imported(tmp_path: Path, program: str) -> None:
    assert seen_by_torch(tmp_path, program, SLURM_CPUS_PER_TASK="1") == [
        WAITING["GOMP_SPINCOUNT"],
        "1" if affinity().count > 1 else "None",
    ]


def test_what_the_user_has_set_stands(tmp_path: Path) -> None:
    user = {"GOMP_SPINCOUNT": "5", "OMP_NUM_THREADS": "7", "SLURM_CPUS_PER_TASK": "1"}
    assert seen_by_torch(tmp_path, "cli", **user) == ["5", "7"]
    assert seen_by_torch(tmp_path, "cli", OMP_WAIT_POLICY="PASSIVE") == ["None", "None"]


def test_only_what_the_runtime_does_not_know_of_limits_the_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(threads, "affinity", lambda: Cpus(8, "affinity"))
    assert chosen({}, Cpus(8, "affinity")) == WAITING
    less = Cpus(3, "cgroup quota")
    assert chosen({}, less) == WAITING | {"OMP_NUM_THREADS": "3"}
    assert chosen({"MKL_NUM_THREADS": "4"}, less) == WAITING
    assert chosen({"OMP_WAIT_POLICY": "ACTIVE", "OMP_NUM_THREADS": "4"}, less) == {}


def test_a_process_elsewhere_does_not_take_what_was_chosen_for_the_users(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A job inherits the environment of the command that submitted it, on another machine."""
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setattr(threads, "affinity", lambda: Cpus(8, "affinity"))

    def cpus(environment: dict[str, str]) -> Cpus:
        return Cpus(int(environment.get("HERE", 8)), "cgroup quota")

    monkeypatch.setattr(threads, "usable_cpus", cpus)
    environment = {"HERE": "2", "KMP_BLOCKTIME": "7"}
    choose_threads(environment)
    assert environment["OMP_NUM_THREADS"] == "2"
    assert settled(environment)["chosen"] == {"GOMP_SPINCOUNT": "1000", "OMP_NUM_THREADS": "2"}
    assert settled(environment)["found"] == {"KMP_BLOCKTIME": "7"}
    again = dict(environment)
    choose_threads(again)
    assert again == environment
    there = environment | {"HERE": "4"}
    choose_threads(there)
    assert there["OMP_NUM_THREADS"] == "4"
    free = environment | {"HERE": "8"}
    choose_threads(free)
    assert "OMP_NUM_THREADS" not in free and free["KMP_BLOCKTIME"] == "7"
    theirs = environment | {"HERE": "4", "OMP_NUM_THREADS": "3"}  # by the job's script
    choose_threads(theirs)
    assert theirs["OMP_NUM_THREADS"] == "3"
    assert settled(theirs)["found"] == {"KMP_BLOCKTIME": "7", "OMP_NUM_THREADS": "3"}


def test_launchers_divide_the_cpus_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    """joblib and Ray leave a number that they find as it is: every worker would have them all."""
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setattr(threads, "affinity", lambda: Cpus(8, "affinity"))
    environment = {"SLURM_CPUS_PER_TASK": "4"}
    monkeypatch.setattr(threads, "usable_cpus", lambda user: Cpus(4, "Slurm"))
    choose_threads(environment)
    with count_left_to_launcher(environment):
        assert "OMP_NUM_THREADS" not in environment
        assert environment["GOMP_SPINCOUNT"] == "1000"
        worker = environment | {"OMP_NUM_THREADS": "4"}
        choose_threads(worker)
        assert settled(worker)["found"] == {
            "OMP_NUM_THREADS": "4"
        }  # the launcher's, by chance the same
    assert environment["OMP_NUM_THREADS"] == "4"
    mine = {"OMP_NUM_THREADS": "6"}
    choose_threads(mine)
    with count_left_to_launcher(mine):
        assert mine["OMP_NUM_THREADS"] == "6"
    assert mine["OMP_NUM_THREADS"] == "6"


def test_where_torch_is_there_already_only_the_count_is_changed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Torch:
        count = 0

        @classmethod
        def set_num_threads(cls, count: int) -> None:
            cls.count = count

    monkeypatch.setitem(sys.modules, "torch", Torch)  # type: ignore[arg-type]
    monkeypatch.setattr(threads, "affinity", lambda: Cpus(8, "affinity"))
    monkeypatch.setattr(threads, "usable_cpus", lambda user: Cpus(3, "Slurm"))
    mine = {"OMP_NUM_THREADS": "6"}
    choose_threads(mine)
    assert (Torch.count, mine) == (0, {"OMP_NUM_THREADS": "6"})
    environment: dict[str, str] = {}
    choose_threads(environment)
    assert (Torch.count, environment) == (3, {})


def test_the_manifest_and_the_doctor_say_what_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GOMP_SPINCOUNT", "5")
    monkeypatch.setenv("KMP_BLOCKTIME", "1")
    monkeypatch.setenv(OURS, "KMP_BLOCKTIME=1")
    found = hardware()["threads"]
    assert found["cpus"] == usable_cpus().count
    assert (found["chosen"], found["found"]) == ({"KMP_BLOCKTIME": "1"}, {"GOMP_SPINCOUNT": "5"})
    said = next(each for each in diagnose() if each.subject == "threads")
    assert "chosen here: KMP_BLOCKTIME=1; found: GOMP_SPINCOUNT=5" in said.what
