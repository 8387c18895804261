"""Models in local folders and files: their names, what makes them themselves, and broken files.

Run: pytest tests/models/test_local_models.py
"""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from local_model import save

from powerbench.errors import UserError
from powerbench.models import HubModel, TabularModel
from powerbench.models import files as model_files


def model(path: Path | str, name: str | None = None) -> HubModel:
    return HubModel(name, str(path))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("POWERBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model of a few thousand weights, with its tokenizer."""
    path = tmp_path / "Tiny2.5-Math-7B"
    save(path, seed=0)
    return path


# -- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("id", "name"),
    [
        ("org/Qwen2.5-Math-7B", "Qwen2.5-Math-7B"),
        ("org/Qwen2.5-7B", "Qwen2.5-7B"),
        ("Llama-3.1-8B-Instruct", "Llama-3.1-8B-Instruct"),
        ("/data/Qwen3-0.6B/", "Qwen3-0.6B"),
        ("ckpt/epoch=1.step=20", "epoch=1.step=20"),
        ("quants/phi-3.5.Q4_K_M.gguf", "phi-3.5.Q4_K_M"),
        ("quants/phi-3.5.Q4_K_M.GGUF", "phi-3.5.Q4_K_M"),
        ("package:some_package/SmolLM2-135M.v0.2.gguf", "SmolLM2-135M.v0.2"),
        ("/data/gemma-2.safetensors", "gemma-2"),
    ],
)
def test_a_name_is_cut_only_at_a_weight_files_ending(id: str, name: str) -> None:
    assert model(id).name == name


def test_a_folder_named_by_dots_has_its_own_name(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    assert model(".").name == folder.name
    monkeypatch.chdir(folder.parent)
    (folder.parent / "x").mkdir()
    assert model(f"{folder.name}/.").name == folder.name
    assert model("x/..").name == folder.parent.name


def test_home_is_understood(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder.parent))
    home = model(f"~/{folder.name}")
    assert home.name == folder.name
    assert home.identity() == model(folder).identity()
    assert home.tokenizer().eos == 0


@pytest.mark.parametrize("name", ["a/b", "..", ".", "two\nlines"])
def test_a_name_that_no_folder_can_have_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=r"model\.name=.* cannot name a folder"):
        model("org/model", name)
    with pytest.raises(UserError, match=r"model\.name=.* cannot name a folder"):
        TabularModel(name)


@pytest.mark.parametrize("id", ["", "  ", "/"])
def test_an_id_that_names_nothing_is_refused(id: str) -> None:
    with pytest.raises(UserError, match=r"model\.id"):
        model(id)


# -- identity -------------------------------------------------------------------------------------


def test_other_weights_of_the_same_shape_are_another_model(folder: Path) -> None:
    before, sizes = model(folder).identity(), [f.stat().st_size for f in sorted(folder.iterdir())]
    save(folder, seed=1)
    assert sizes == [f.stat().st_size for f in sorted(folder.iterdir())]
    assert model(folder).identity() != before


def test_one_changed_byte_is_another_model_even_with_the_old_times(folder: Path) -> None:
    file = folder / "model.safetensors"
    before, stat = model(folder).identity(), file.stat()
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert model(folder).identity() != before


@pytest.mark.parametrize("settled", [0.0, 1e9])
def test_the_kept_digest_of_a_large_file_is_dropped_when_it_changes(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, settled: float
) -> None:
    monkeypatch.setattr(model_files, "WORTH_KEEPING", 0)
    monkeypatch.setattr(model_files, "SETTLED", settled - 1)
    before = model(folder).identity()
    assert (cache / "digests").exists() == (settled == 0)
    assert model(folder).identity() == before
    save(folder, seed=1)
    assert model(folder).identity() != before


def test_a_large_file_is_read_once(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_files, "WORTH_KEEPING", 0)
    monkeypatch.setattr(model_files, "SETTLED", -1)
    before = model(folder).identity()
    monkeypatch.setattr(model_files.hashlib, "file_digest", None)  # reading again would raise
    assert model(folder).identity() == before


def test_a_copy_is_the_same_model_and_so_is_one_with_notes_beside_it(folder: Path) -> None:
    copy = folder.parent / "elsewhere" / "renamed"
    shutil.copytree(folder, copy)
    (copy / "README.md").write_text("notes", encoding="utf-8")
    (copy / ".DS_Store").write_bytes(b"\0")
    (copy / "optimizer.pt").write_bytes(b"state")
    (copy / "model.safetensors").touch()
    assert model(copy).identity() == model(folder).identity()


@pytest.mark.parametrize("file", ["tokenizer.json", "chat_template.jinja", "config.json"])
def test_tokenizer_template_and_configuration_count(folder: Path, file: str) -> None:
    before = model(folder).identity()
    with (folder / file).open("a", encoding="utf-8") as out:
        out.write(" \n")
    assert model(folder).identity() != before


def test_a_gguf_is_its_contents_wherever_it_lies(tmp_path: Path) -> None:
    first, copy, other = (tmp_path / f"{name}.gguf" for name in ("a", "b", "c"))
    first.write_bytes(b"GGUF" + b"1" * 100)
    copy.write_bytes(first.read_bytes())
    other.write_bytes(b"GGUF" + b"2" * 100)
    assert model(first).identity() == model(copy).identity() != model(other).identity()


def test_weights_that_change_under_a_loaded_model_are_loaded_anew(folder: Path) -> None:
    before = model(folder).load("cpu", "sdpa").get_input_embeddings().weight.clone()
    save(folder, seed=1)
    assert not torch.equal(before, model(folder).load("cpu", "sdpa").get_input_embeddings().weight)


# -- broken files ---------------------------------------------------------------------------------

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 988097824\n"
PAGE = b"<!DOCTYPE html>\n<html><body>403 Forbidden</body></html>"


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("model.safetensors", POINTER, "is a Git LFS pointer"),
        ("tokenizer.json", POINTER, "is a Git LFS pointer"),
        ("model.safetensors", PAGE, "is a web page"),
        ("config.json", b"\n <html>login</html>", "is a web page"),
        ("model.safetensors", b"", "is empty"),
        ("config.json", b"", "is empty"),
        ("model.safetensors", b"\x10\0\0", "is no safetensors file"),
        ("model.safetensors", b"\x10" + b"\0" * 7 + b"not a header at", "is cut off"),
        ("model.safetensors", b"\x10" + b"\0" * 7 + b"no header at all", "is no safetensors file"),
        ("model.safetensors", b"\xff" * 4096, "is no safetensors file"),
        ("config.json", b'{"model_type": "lla', "cannot be loaded"),
        ("tokenizer.json", b'{"version": "1.0", ', "cannot be loaded"),
    ],
)
def test_a_broken_file_is_named_in_one_line(
    folder: Path, file: str, content: bytes, said: str
) -> None:
    (folder / file).write_bytes(content)
    with pytest.raises(UserError) as error:
        model(folder).tokenizer()
        model(folder).identity()
        model(folder).load("cpu", "sdpa")
    assert said in str(error.value)
    assert "cannot be loaded" in said or f"{folder / file} " in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("part", [0.2, 0.5, 0.999])
def test_weights_that_are_cut_off_are_refused_before_they_are_loaded(
    folder: Path, part: float
) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: int(part * weights.stat().st_size)])
    with pytest.raises(UserError, match=r"model\.safetensors is cut off .*: download it again"):
        model(folder).identity()


@pytest.mark.parametrize("content", [b"PK\x03\x04" + b"\0" * 60, b"\x80\x02}q\0", b"junk", POINTER])
def test_broken_pickled_weights_end_in_one_line(folder: Path, content: bytes) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(content)
    with pytest.raises(UserError) as error:
        model(folder).load("cpu", "sdpa")
    assert "\n" not in str(error.value)


def test_a_missing_and_a_cut_shard_are_named(folder: Path) -> None:
    save(folder, seed=0, max_shard_size="4KB")
    (folder / "model.safetensors").unlink()
    first, second, *_ = sorted(folder.glob("model-0*.safetensors"))
    whole = model(folder).identity()
    content = second.read_bytes()
    second.write_bytes(content[:-1])
    with pytest.raises(UserError, match=rf"{second.name} is cut off"):
        model(folder).identity()
    second.write_bytes(content)
    assert model(folder).identity() == whole
    first.unlink()
    with pytest.raises(UserError, match=rf"index\.json names {first.name}, which is not there"):
        model(folder).identity()
    (folder / "model.safetensors.index.json").write_text(json.dumps({}), encoding="utf-8")
    with pytest.raises(UserError, match=r"index\.json lists no shards"):
        model(folder).identity()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (POINTER, "is a Git LFS pointer"),
        (PAGE, "is a web page"),
        (b"", "is empty"),
        (b"ggml" + b"\0" * 100, "is no GGUF file"),
        (b"GGUF\x03\0\0\0" + b"\x05\0\0\0\0\0\0\0" * 2 + b"\x14\0\0\0", "cannot be read"),
    ],
)
def test_a_broken_gguf_is_named_in_one_line(tmp_path: Path, content: bytes, said: str) -> None:
    file = tmp_path / "m.Q4_0.gguf"
    file.write_bytes(content)
    with pytest.raises(UserError) as error:
        model(file).tokenizer()
    assert said in str(error.value)
    assert str(file) in str(error.value)
    assert "download it again" in str(error.value)
    assert "\n" not in str(error.value)
