"""How many threads torch's arithmetic has, and how they wait for each other: settled before torch is imported.

The OpenMP runtime reads its environment once, when it is loaded with torch. What the user has set there stands.
"""

import os
import sys
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import Any

from powerbench.machine.cpus import Cpus, affinity, usable_cpus

WAITING = {"GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "1"}
"""How long a thread that has nothing to do looks for work before it sleeps.

A decoding step is hundreds of short parallel regions, so threads that sleep at once are slow; but a thread
that spins takes the core from the one that it waits for, wherever another program keeps cores busy. libgomp,
which torch has on Linux, spins 300,000 times by default: `make bench-load` measures what that and other
numbers do with idle and with busy neighbours. libomp and Intel's runtime, on macOS and in conda, count in
milliseconds, 200 by default; that number is not measured here."""

POLICY = "OMP_WAIT_POLICY"
"""A user who has set this has chosen how threads wait."""

COUNTS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""Of these, too, the user's stand. The runtime itself knows of affinity, but not of quotas and of Slurm."""

OURS = "POWERBENCH_CHOSE"
"""What was set here, as `NAME=value NAME=value`: a process that inherits it, such as a Slurm job on another
node, knows that it was not the user, and chooses anew."""


def choose_threads(environment: MutableMapping[str, str] = os.environ) -> None:
    """Settle the threads of this process and of those that it starts. To be called where a program starts.

    Where torch is there already, such as in a notebook, only the number of threads can still be changed.
    """
    if "torch" in sys.modules:
        count = chosen(_of_user(environment)).get("OMP_NUM_THREADS")
        if count is not None:
            sys.modules["torch"].set_num_threads(int(count))
        return
    for name in _set_here(environment):
        del environment[name]
    settings = chosen(environment)
    environment.update(settings)
    environment[OURS] = _mark(settings)


def chosen(user: Mapping[str, str], cpus: Cpus | None = None) -> dict[str, str]:
    """What to set beside the user's environment. cpus: those that this process may use."""
    cpus = cpus or usable_cpus(user)
    settings = {} if POLICY in user else {k: v for k, v in WAITING.items() if k not in user}
    if cpus.count < affinity().count and not any(name in user for name in COUNTS):
        settings["OMP_NUM_THREADS"] = str(cpus.count)
    return settings


@contextmanager
def count_left_to_launcher(environment: MutableMapping[str, str] = os.environ) -> Iterator[None]:
    """Within, no number of threads is set but the user's: launchers divide the CPUs among their workers.

    What a launcher then sets stands in the workers as a user's would, whatever number it is.
    """
    ours = {name: environment[name] for name in _set_here(environment)}
    count = ours.pop("OMP_NUM_THREADS", None)
    if count is None:
        yield
        return
    all_of_it = environment[OURS]
    del environment["OMP_NUM_THREADS"]
    environment[OURS] = _mark(ours)
    try:
        yield
    finally:
        environment.update({"OMP_NUM_THREADS": count, OURS: all_of_it})


def settled(environment: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """For the record: CPUs, what limits them, and the settings that this process has: those chosen here, and
    those found, which are the user's or a launcher's."""
    cpus = usable_cpus(_of_user(environment))
    names = (*WAITING, POLICY, *COUNTS)
    ours = _set_here(environment)
    return {
        "cpus": cpus.count,
        "limited_by": cpus.limited_by,
        "chosen": {name: environment[name] for name in names if name in ours},
        "found": {n: environment[n] for n in names if n in environment and n not in ours},
    }


def _set_here(environment: Mapping[str, str]) -> set[str]:
    """Names whose values are still those that powerbench has given them, here or in a parent process."""
    pairs = (pair.partition("=") for pair in environment.get(OURS, "").split())
    return {name for name, _, value in pairs if environment.get(name) == value}


def _mark(settings: Mapping[str, str]) -> str:
    return " ".join(f"{name}={value}" for name, value in settings.items())


def _of_user(environment: Mapping[str, str]) -> dict[str, str]:
    ours = _set_here(environment)
    return {name: value for name, value in environment.items() if name not in ours}
