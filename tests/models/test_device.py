"""The device that a setting means: on machines with GPUs, without, with a driver too old, in a Slurm step.

Run: pytest tests/models/test_device.py
"""

import gc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from powerbench.cli import main
from powerbench.console import EXIT_BAD_INPUT
from powerbench.engines.base import EFFICIENT_NUM_SEQS
from powerbench.engines.hf import HFEngine
from powerbench.engines.hf.engine import STEPS_PER_SYNC
from powerbench.errors import UserError
from powerbench.models import HubModel, device, hub
from powerbench.models.device import choose, obstacle, supports, use
from powerbench.models.flops import Size
from powerbench.run.doctor import diagnose
from powerbench.store.provenance import hardware
from powerbench.types import Extend

TOO_OLD = "The NVIDIA driver on your system is too old (found version {})."
SEVEN_BILLION = Size(7_615_616_512, 7_070_619_136, 28, 3584)


def small() -> int:
    return 135_000_000


def large() -> int:
    return SEVEN_BILLION.parameters


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Makes torch believe in GPUs: so many of CUDA, Apple's, or none that starts, for a reason."""

    def make(cuda: int = 0, mps: bool = False, reason: str = "", nvml: bool = True) -> None:
        def fail(*_: object) -> None:
            raise RuntimeError(reason)

        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
        counted = cuda or int(bool(reason) and nvml)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: counted)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
        monkeypatch.setattr(device, "NVIDIA", tmp_path / "nvidia0")
        if reason:
            monkeypatch.setattr(torch.version, "cuda", "13.0")
            for name in ("init", "get_device_name", "mem_get_info"):
                monkeypatch.setattr(torch.cuda, name, fail)
        for name in ("SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "CUDA_VISIBLE_DEVICES"):
            monkeypatch.delenv(name, raising=False)

    return make


@pytest.mark.parametrize(
    ("cuda", "mps", "asked", "chosen"),
    [
        (0, False, "auto", "cpu"),
        (0, True, "auto", "mps"),
        (1, True, "auto", "cuda:0"),
        (2, False, "cuda", "cuda:0"),
        (2, False, "cuda:1", "cuda:1"),
        (2, True, "mps", "mps"),
        (2, True, "cpu", "cpu"),
    ],
)
def test_auto_takes_cuda_then_mps_then_the_cpu(
    cuda: int, mps: bool, asked: str, chosen: str, machine: Callable[..., None]
) -> None:
    machine(cuda, mps)
    assert choose(asked, small) == torch.device(chosen)


@pytest.mark.parametrize(
    ("cuda", "asked", "said"),
    [
        (0, "cuda", "device=cuda is not on this machine: torch sees no GPU"),
        (0, "mps", "device=mps is not on this machine: torch sees no GPU"),
        (1, "cuda:1", "device=cuda:1 is not on this machine: it has cuda:0 alone"),
        (4, "cuda:7", "device=cuda:7 is not on this machine: it has cuda:0 to cuda:3"),
        (4, "cuda:x", "device must be one of auto, cpu, cuda, cuda:<number>, mps, got 'cuda:x'"),
        (4, "gpu", "device must be one of auto, cpu, cuda, cuda:<number>, mps, got 'gpu'"),
    ],
)
def test_a_device_that_is_not_here_is_one_line(
    cuda: int, asked: str, said: str, machine: Callable[..., None]
) -> None:
    machine(cuda)
    with pytest.raises(UserError) as error:
        choose(asked, small)
    assert str(error.value) == said


def test_tasks_of_a_slurm_step_that_see_the_same_gpus_take_one_each(
    machine: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(cuda=4)
    monkeypatch.setenv("SLURM_LOCALID", "2")
    assert choose("auto", small) == torch.device("cuda:0")  # a step of one task
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    assert choose("auto", small) == choose("cuda", small) == torch.device("cuda:2")
    assert choose("cuda:0", small) == torch.device("cuda:0")
    monkeypatch.setenv("SLURM_LOCALID", "5")
    with pytest.raises(UserError, match="task 5 of this node has no GPU of its own: 4 are there"):
        choose("auto", small)
    machine(cuda=1)  # bound by Slurm: each task sees its own as the first
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    monkeypatch.setenv("SLURM_LOCALID", "3")
    assert choose("auto", small) == torch.device("cuda:0")


@pytest.mark.parametrize(
    ("version", "remedy"),
    [
        (12040, "the driver offers 12.4: pip install torch=={torch}+cu126 --index-url {url}/cu126"),
        (12020, "the driver offers 12.2: pip install torch=={torch}+cu126 --index-url {url}/cu126"),
        (13000, "the driver offers 13.0: pip install torch=={torch}+cu130 --index-url {url}/cu130"),
        (11080, "the driver offers 11.8: update the driver"),
    ],
)
def test_a_driver_too_old_is_told_the_wheel_that_it_serves(
    version: int, remedy: str, machine: Callable[..., None]
) -> None:
    machine(reason=TOO_OLD.format(version))
    installed = torch.__version__.partition("+")[0]
    remedy = remedy.format(torch=installed, url="https://download.pytorch.org/whl")
    assert obstacle() == f"torch is built for CUDA 13.0, {remedy}"


@pytest.mark.parametrize("nvml", [True, False])
def test_an_old_driver_ends_no_command_and_no_large_model_goes_to_the_cpu_unasked(
    nvml: bool,
    machine: Callable[..., None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine(reason=TOO_OLD.format(12040), nvml=nvml)
    found = hardware()
    assert found["accelerators"] == []
    assert ("12040" in found.get("accelerators_unusable", "")) == nvml
    said = {each.subject: each for each in diagnose()}["device"]
    assert not said.ok
    assert "CPU only" in said.what and "whl/cu126" in said.what
    toy = ["model=toy", "engine=toy", "limit=1", "max_tokens=4", "blocks=2", "tracker=none"]
    main(["run", *toy, f"runs={tmp_path}"])
    assert choose("auto", small) == choose("cpu", large) == torch.device("cpu")
    with pytest.raises(UserError, match=r"7\.6 billion .*whl/cu126 \[set device=cpu to insist\]"):
        choose("auto", large)
    with pytest.raises(UserError, match="device=cuda is not on this machine: torch is built for"):
        choose("cuda", small)


def test_a_large_model_is_refused_before_it_is_read(
    machine: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine()
    model = saved("llama", tmp_path)
    monkeypatch.setattr(HubModel, "size", lambda self: SEVEN_BILLION)
    monkeypatch.setattr(hub, "_read", lambda *_: pytest.fail("the weights are read"))
    with pytest.raises(UserError, match=r"decoded on the CPU, for days: torch sees no GPU \["):
        model.load("auto", "sdpa")


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("Found no NVIDIA driver on your system.", None),
        ("No CUDA GPUs are available", "CUDA cannot start: No CUDA GPUs are available"),
        ("CUDA unknown error\n - this may be", "CUDA cannot start: CUDA unknown error - this may"),
    ],
)
def test_why_cuda_does_not_start_is_said(
    reason: str, said: str | None, machine: Callable[..., None]
) -> None:
    machine(reason=reason, nvml=False)
    assert (obstacle() or "None").startswith(str(said))


def test_hidden_gpus_and_a_torch_without_cuda_are_named(
    machine: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    machine(reason="No CUDA GPUs are available")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert obstacle() == "CUDA_VISIBLE_DEVICES= hides every GPU"
    monkeypatch.setattr(torch.version, "cuda", None)
    assert obstacle() is None
    (tmp_path / "nvidia0").touch()
    assert obstacle() == "torch is built without CUDA"


def test_what_a_device_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    mps, cpu = torch.device("mps"), torch.device("cpu")
    assert supports(cpu, torch.float64) and not supports(mps, torch.float64)
    for new in (True, False):
        monkeypatch.setattr(torch.backends.mps, "is_macos_or_newer", lambda *_, new=new: new)
        assert supports(mps, torch.bfloat16) == new
        assert supports(mps, torch.float32) and supports(mps, torch.float16)


def test_a_type_that_the_device_lacks_is_one_line(
    machine: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(mps=True)
    monkeypatch.setattr(torch.backends.mps, "is_macos_or_newer", lambda *_: False)
    model = saved("llama", tmp_path, dtype="bfloat16")
    with pytest.raises(UserError, match=r"torch\.bfloat16 weights, .* set model\.dtype=float32"):
        model.load("auto", "sdpa")


def test_the_engine_makes_its_device_the_current_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else CUDA's graphs record the kernels of another device, which are none."""
    made_current: list[object] = []
    freed: list[object] = []
    monkeypatch.setattr(torch.cuda, "set_device", made_current.append)
    monkeypatch.setattr(device, "release", freed.append)
    for name in ("cpu", "mps", "cuda:1"):
        use(torch.device(name))
    assert made_current == [torch.device("cuda:1")]
    assert freed == [torch.device("mps"), torch.device("cuda:1")]
    used: list[object] = []
    monkeypatch.setattr("powerbench.engines.hf.engine.use", used.append)
    HFEngine(saved("llama", tmp_path), 40, 40, max_num_seqs=1, device="cpu")
    assert used == [torch.device("cpu")]


def test_every_kind_of_device_has_its_numbers() -> None:
    assert {*STEPS_PER_SYNC} == {*EFFICIENT_NUM_SEQS} == {"cpu", "mps", "cuda"}


# -- loading --------------------------------------------------------------------------------------


def saved(name: str, folder: Path, **settings: Any) -> HubModel:
    if not (folder / name).exists():
        AutoModelForCausalLM.from_config(tiny.CONFIGS[name]()).save_pretrained(folder / name)
    return HubModel(name, str(folder / name), **{"dtype": "float32", **settings})


def decode(model: HubModel) -> None:
    engine = HFEngine(model, 40, 40, max_num_seqs=2, device="cpu")  # type: ignore[arg-type]
    request = Extend(("draw",), response=(), keep=0, until=4, stop_tokens=())
    tiny.run(engine, {0: ((1, 2, 3), request, np.random.default_rng(0).random(4))})


def test_the_old_model_is_gone_when_another_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The memory of a GPU holds one of them."""
    models = [saved(name, tmp_path) for name in ("llama", "qwen2")]
    read, made, alive = hub._read, [], []

    def watched(*what: Any) -> PreTrainedModel:
        alive.append([each() is not None for each in made])
        lm = read(*what)
        made.append(weakref.ref(next(lm.parameters())))
        return lm

    monkeypatch.setattr(hub, "_read", watched)
    gc.collect()
    for model in (models[0], models[0], models[1], models[0]):
        decode(model)
    assert alive == [[], [False], [False, False]]


def test_weights_are_read_onto_the_device_itself(
    machine: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not by way of the host's memory; and too many of them end in one line, whatever was asked for."""
    machine(cuda=2)
    asked = {}

    class Full:
        @staticmethod
        def from_pretrained(*_: object, **options: Any) -> None:
            asked.update(options)
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")

    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(hub, "AutoModelForCausalLM", Full)
    monkeypatch.setattr(HubModel, "size", lambda self: SEVEN_BILLION)
    with pytest.raises(UserError, match=r"7\.6 billion .* do not fit the memory of cuda:1"):
        saved("llama", tmp_path).load("cuda:1", "sdpa")
    assert asked["device_map"] == {"": "cuda:1"}


def test_a_model_read_onto_a_device_is_the_same_model(tmp_path: Path) -> None:
    model = saved("qwen2", tmp_path)
    plain = AutoModelForCausalLM.from_pretrained(model.location, dtype=torch.float32)
    mapped = AutoModelForCausalLM.from_pretrained(
        model.location, dtype=torch.float32, device_map={"": "cpu"}
    )
    assert not hasattr(mapped, "_hf_hook")
    for ours, theirs in zip(mapped.parameters(), plain.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("asked", ["cuda", "cuda:1", "mps"])
def test_the_command_line_refuses_a_device_in_one_line(
    asked: str, machine: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    machine()
    small = ["limit=1", "max_tokens=4", "blocks=2", "tracker=none", f"runs={tmp_path}"]
    with pytest.raises(SystemExit) as stopped:
        main(["run", *small, f"engine.device={asked}"])
    assert stopped.value.code == EXIT_BAD_INPUT
    error = capsys.readouterr().err
    assert error == f"powerbench: device={asked} is not on this machine: torch sees no GPU\n"
