"""Where a model runs: the device that a setting means on this machine, and what stands in the way of it."""

import gc
import os
import re
import warnings
from collections.abc import Callable
from pathlib import Path

import torch

from powerbench.errors import UserError, require

DEVICES = ("auto", "cpu", "cuda", "cuda:<number>", "mps")

MOST_ON_CPU = 10**9
"""Parameters: a larger model is decoded on a CPU only if it is asked for, since it would take days."""

WHEELS = ((13, "cu130"), (12, "cu126"))
"""The index of torch's wheels that a driver serves, by its CUDA version, newest first (pytorch issues 178665
and 190355). Of one major version, every driver serves every wheel: CUDA's minor version compatibility."""

NVIDIA = Path("/dev/nvidia0")
"""There where the driver sees a GPU."""

LACKS = {"mps": (torch.float64, torch.complex128)}
"""Types that a kind of device does not have at all."""


def choose(device: str, parameters: Callable[[], int]) -> torch.device:
    """The device that `engine.device` means here. auto: CUDA where there is a GPU, then MPS, then the CPU.

    Of several tasks of a Slurm step that see the same GPUs, each takes the one of its own number.

    parameters: how many the model has; asked where no GPU can be used and the CPU was not asked for.
    Raises UserError for a device that is not here, and for a model too large for a CPU that nobody asked for.
    """
    kind, _, number = device.partition(":")
    require(
        kind in ("auto", "cpu", "cuda", "mps") and (not number or number.isdigit()),
        f"device must be one of {', '.join(DEVICES)}, got {device!r}",
    )
    if kind in ("auto", "cuda") and cuda_is_usable():
        return torch.device("cuda", _cuda_index(device, number))
    if kind in ("auto", "mps") and torch.backends.mps.is_available():
        return torch.device("mps")
    why = obstacle() or "torch sees no GPU"
    require(kind in ("auto", "cpu"), f"device={device} is not on this machine: {why}")
    if kind == "auto" and (size := parameters()) > MOST_ON_CPU:
        raise UserError(
            f"a model of {size / 1e9:.1f} billion parameters would be decoded on the CPU, for days: {why} "
            f"[set device=cpu to insist]"
        )
    return torch.device("cpu")


def _cuda_index(device: str, number: str) -> int:
    count = torch.cuda.device_count()
    if number:
        there = "cuda:0 alone" if count == 1 else f"cuda:0 to cuda:{count - 1}"
        require(int(number) < count, f"device={device} is not on this machine: it has {there}")
        return int(number)
    if count == 1 or int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) == 1:
        return 0
    local = int(os.environ.get("SLURM_LOCALID", "0"))
    require(
        local < count,
        f"task {local} of this node has no GPU of its own: {count} are there; start at most {count} tasks "
        f"on a node, or set device=cuda:<number>",
    )
    return local


def cuda_is_usable() -> bool:
    with warnings.catch_warnings():  # it warns of what `obstacle` says
        warnings.simplefilter("ignore")
        return torch.cuda.is_available()


def obstacle() -> str | None:
    """Why torch cannot use the NVIDIA GPU that this machine seems to have; None if it can, or there is none."""
    if cuda_is_usable():
        return None
    if torch.version.cuda is None:
        return (
            "torch is built without CUDA" if NVIDIA.exists() and torch.version.hip is None else None
        )
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        return _explained(" ".join(str(error).split()))
    return None


def _explained(reason: str) -> str | None:
    if "Found no NVIDIA driver" in reason:
        return None
    if "No CUDA GPUs" in reason and "CUDA_VISIBLE_DEVICES" in os.environ:
        return f"CUDA_VISIBLE_DEVICES={os.environ['CUDA_VISIBLE_DEVICES']} hides every GPU"
    found = re.search(r"found version (\d+)", reason)
    if found is None:
        return f"CUDA cannot start: {reason}"
    major, minor = divmod(int(found[1]) // 10, 100)
    offer = f"torch is built for CUDA {torch.version.cuda}, the driver offers {major}.{minor}"
    index = next((name for least, name in WHEELS if major >= least), None)
    if index is None:
        return f"{offer}: update the driver"
    version = torch.__version__.partition("+")[0]
    return (
        f"{offer}: pip install torch=={version}+{index} "
        f"--index-url https://download.pytorch.org/whl/{index}"
    )


def supports(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether tensors of this type can be computed with on this device."""
    if device.type == "mps" and dtype == torch.bfloat16:
        return torch.backends.mps.is_macos_or_newer(14, 0)
    return dtype not in LACKS.get(device.type, ())


def use(device: torch.device) -> None:
    """Make a GPU the current one, for CUDA's streams and graphs are those of the current device; and give back
    the memory of what no longer runs there."""
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if device.type != "cpu":
        release(device)


def release(device: torch.device) -> None:
    """Give back the memory of what is no longer used."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
