"""Language models by name: a hub id, a local folder, a GGUF file, or a file that a package ships.

Nothing is read silently from a generation config: the stop
tokens that a run uses are in its manifest.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import try_to_load_from_cache
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
)
from transformers.utils import logging

from powerbench.errors import UserError, first_line, require
from powerbench.models.base import Availability
from powerbench.models.device import choose, release, supports
from powerbench.models.files import digest, model_files, name_of, require_name, require_whole
from powerbench.models.float32_head import keep_float32
from powerbench.models.flops import Size
from powerbench.models.gguf import converted, find
from powerbench.models.hf_tokenizer import HFTokenizer
from powerbench.models.token_logprobs import Scorer, score_texts
from powerbench.types import KINDS, Tokens

DTYPES = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True)
class HubModel:
    """A causal LM and its tokenizer.

    name: names the run folder; None takes the last part of the id, without a weight file's ending.
    id: hub id, folder, path of a `.gguf` file, or `package:<import name>/<file>.gguf`.
    revision: branch, tag or commit on the hub; the commit it resolves to is recorded.
    kind: how benchmarks address it: `base`, `rl` or `instruct` (see the tasks' prompt styles).
    dtype: of the weights and the KV cache; "auto" takes the checkpoint's.
    stop_tokens: what ends a response; None takes the tokenizer's EOS and the ids that the
        checkpoint's generation config lists.
    """

    name: str | None
    id: str
    revision: str | None = None
    kind: str = "base"
    dtype: str = "auto"
    stop_tokens: Sequence[str] | None = None

    def __post_init__(self) -> None:
        for field, known in (("kind", KINDS), ("dtype", DTYPES)):
            value = getattr(self, field)
            require(
                value in known, f"model.{field} must be one of {', '.join(known)}, got {value!r}"
            )
        require(
            isinstance(self.id, str) and bool(self.id.strip()),
            f"model.id must be a hub id, a folder or a GGUF file, got {self.id!r}",
        )
        name = name_of(self.id) if self.name in (None, "") else str(self.name)
        object.__setattr__(self, "name", require_name(name))
        if self.stop_tokens is not None:
            object.__setattr__(self, "stop_tokens", tuple(self.stop_tokens))

    @property
    def context_length(self) -> int:
        length: int | None = getattr(self._config, "max_position_embeddings", None)
        if length is None:
            raise UserError(f"model {self.name!r} does not say how long its context is")
        return length

    @property
    def vocabulary_size(self) -> int:
        return self._config.vocab_size

    def tokenizer(self) -> HFTokenizer:
        """The tokenizer, with this model's stop tokens. Raises UserError where it cannot be had."""
        tokenizer = self._from_pretrained(AutoTokenizer)
        return HFTokenizer(tokenizer, self._stop_tokens(tokenizer), str(self.name))

    def identity(self) -> Mapping[str, Any]:
        """dtype, with id and commit of a model on the hub, or sha256 of what is in a local one's files,
        wherever they lie. Raises UserError for a file that is not whole."""
        if (sha256 := self._sha256()) is not None:
            return {"dtype": self.dtype, "sha256": sha256}
        revision = getattr(self._config, "_commit_hash", None) or self.revision
        return {"id": self.id, "dtype": self.dtype, "revision": revision}

    def size(self) -> Size:
        """Counted on the architecture alone: no weights are read."""
        return _size(self, self._sha256())

    def driven_by(self, engine: str) -> bool:
        return engine not in ("toy", "endpoint")

    def available(self) -> Availability:
        if self.gguf is not None:
            return Availability(True, f"bundled: {self.gguf.name}")
        if self._folder is not None:
            return Availability(True, f"in the folder {self.id}")
        if _is_cached(self):
            return Availability(True, "in the hub's cache")
        return Availability(False, f"not on this machine: {self.id} comes from the hub")

    def scorer(self, device: str) -> Scorer:
        lm = self.load(device, "sdpa")
        config = lm.config.get_text_config()
        for setting in ("final_logit_softcapping", "logits_scaling", "logit_scale"):
            require(
                getattr(config, setting, None) in (None, 1, 1.0),
                f"model {self.name!r} changes its logits after the last layer ({setting}), "
                f"which is not covered",
            )
        keep_float32(lm, lm.device)  # as the engine decodes with
        rope = getattr(config, "rope_parameters", None) or {}
        if rope.get("rope_type") == "longrope":  # its factors follow the longest text of a pass
            return lambda texts: [score_texts(lm, [text])[0] for text in texts]
        return lambda texts: score_texts(lm, texts)

    def load(self, device: str, attention: str) -> PreTrainedModel:
        """The model in evaluation mode; `attention` is the name of a registered attention function.

        device: as `engine.device`, see `models.device.choose`.
        Raises UserError where the model cannot be had, or not on this device.
        """
        chosen = choose(device, lambda: self.size().parameters)
        named = self._config.dtype if self.dtype == "auto" else getattr(torch, self.dtype)
        require(
            supports(chosen, named),
            f"model {self.name!r} has {named} weights, which {chosen} cannot compute with here; "
            f"set model.dtype=float32",
        )
        dtype = "auto" if self.dtype == "auto" else named
        return _load(self, self._sha256(), dtype, chosen, attention)

    @cached_property
    def gguf(self) -> Path | None:
        """The GGUF file that the id names, if it names one. Raises UserError if it is missing."""
        if not self.id.lower().endswith(".gguf") or self._folder is not None:
            return None
        return find(self.id, str(self.name))

    @cached_property
    def _config(self) -> Any:
        return self._from_pretrained(AutoConfig).get_text_config()

    @cached_property
    def location(self) -> str:
        """The hub id or folder to load from; converts a GGUF on first use. Raises UserError for a local
        file that is not whole."""
        require_whole(self._files())
        if self.gguf is not None:
            return str(converted(self.gguf))
        return self.id if self._folder is None else str(self._folder)

    @property
    def _folder(self) -> Path | None:
        """The local folder that the id names, if it names one."""
        path = Path(self.id).expanduser()
        return path if path.is_dir() else None

    def _files(self) -> list[Path]:
        """What is read of a local model; nothing of one on the hub."""
        if self.gguf is not None:
            return [self.gguf]
        return [] if self._folder is None else model_files(self._folder)

    def _sha256(self) -> str | None:
        """Of a local model's files, as they are now; None for one on the hub."""
        files = self._files()
        require_whole(files)
        return digest(files) if files else None

    def _from_pretrained(self, loader: Any, **options: Any) -> Any:
        revision = self.revision if self.gguf is None else None
        try:
            return loader.from_pretrained(self.location, revision=revision, **options)
        except (UserError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # files of others, read by libraries that raise whatever comes
            if isinstance(error, KeyError) and error.args == (options.get("attn_implementation"),):
                raise UserError(
                    f"engine=hf cannot drive {self.name!r}, of the architecture "
                    f"{self._config.model_type}: it takes no attention function"
                ) from error
            raise UserError(
                f"model.id={self.id!r} cannot be loaded: {first_line(error)} "
                f"[set model.id to a hub id you can reach, a local folder, or a GGUF file]"
            ) from error

    def _stop_tokens(self, tokenizer: Any) -> Tokens:
        eos = tokenizer.eos_token_id
        require(
            eos is not None, f"the tokenizer of model {self.name!r} has no end-of-sequence token"
        )
        if self.stop_tokens is not None:
            known = tokenizer.get_vocab()
            for token in self.stop_tokens:
                require(
                    token in known, f"model.stop_tokens: {token!r} is no token of {self.name!r}"
                )
            listed = [known[token] for token in self.stop_tokens]
        else:
            listed = self._listed_stop_tokens()
        return tuple(dict.fromkeys([eos, *listed]))

    def _listed_stop_tokens(self) -> list[int]:
        try:
            revision = self.revision if self.gguf is None else None
            listed = GenerationConfig.from_pretrained(self.location, revision=revision).eos_token_id
        except OSError:  # a checkpoint need not have one
            return []
        return [listed] if isinstance(listed, int) else list(listed or [])


def _is_cached(model: HubModel) -> bool:
    wanted = ("model.safetensors", "model.safetensors.index.json")
    found = [try_to_load_from_cache(model.id, file, revision=model.revision) for file in wanted]
    return any(isinstance(file, str) for file in found)


@lru_cache(maxsize=8)
def _size(model: HubModel, sha256: str | None) -> Size:
    config = model._config
    try:
        with torch.device("meta"):
            lm = AutoModelForCausalLM.from_config(config)
    except ValueError as error:
        raise UserError(f"model.id={model.id!r} is no causal language model: {error}") from error
    every = sum(p.numel() for p in lm.parameters())
    read, head = lm.get_input_embeddings().weight, lm.get_output_embeddings().weight
    heads = config.num_attention_heads
    width = heads * (getattr(config, "head_dim", None) or config.hidden_size // heads)
    only_read = 0 if head is read else read.numel()
    return Size(every, every - only_read, config.num_hidden_layers, width)


_loaded: dict[Any, PreTrainedModel] = {}
"""The model by what it was loaded for: at most one, see `_load`."""


def _load(
    model: HubModel, sha256: str | None, dtype: Any, device: torch.device, attention: str
) -> PreTrainedModel:
    """One model stays loaded: the runs of a sweep in one process share it, until one needs another, or its
    files change."""
    wanted = model, sha256, dtype, device, attention
    if wanted not in _loaded:
        _loaded.clear()
        release(device)
        _loaded[wanted] = _read(model, dtype, device, attention)
    return _loaded[wanted]


def _read(model: HubModel, dtype: Any, device: torch.device, attention: str) -> PreTrainedModel:
    logging.disable_progress_bar()
    options = {"dtype": dtype, "attn_implementation": attention}
    if device.type != "cpu":  # else the weights go through the host's memory
        options["device_map"] = {"": str(device)}
    try:
        return model._from_pretrained(AutoModelForCausalLM, **options).eval()
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"model {model.name!r} has {model.size().parameters / 1e9:.1f} billion parameters, which do not "
            f"fit the memory of {device}; set model.dtype=bfloat16, or take a larger GPU"
        ) from error
