"""What an architecture asks of the engine: whether it can be driven, and how its positions scale.

Whether it can is found out, not listed: a few random tokens go through the model as the engine runs it,
in chunks, in several rows, step by step, and through the library's own forward pass.
"""

import itertools
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import PreTrainedModel

from powerbench.engines.hf.attention_batches import (
    AttentionInputs,
    Batch,
    Chunk,
    DecodeCUDA,
    Prefill,
)
from powerbench.engines.hf.decode_cpu import DecodeCPU
from powerbench.engines.hf.kv_cache import ContiguousCache, KVCache
from powerbench.engines.hf.plain_pass import plain_logp
from powerbench.errors import UserError

PASSES = (
    (Chunk(0, 0, range(0, 2)), Chunk(2, 0, range(0, 6))),
    (Chunk(1, 0, range(0, 8)), Chunk(2, 6, range(6, 11))),
)
"""What is prefilled of three rows; here a chunk's tokens are indices into its row's sequence."""

STEPS = ((0, 2), (1, 8), (2, 11)), ((2, 12),)
"""Then these rows decode, at these positions."""

ROWS, LENGTH = 3, 13

REACH = 3
"""Tokens that a window spans in the check, so that the sequences are longer than it."""

REACHING = re.compile(r"(window|window_size|attention_chunk_size|floor_scale)$")
"""Settings, of models and of their layers, beyond whose number of tokens attention is another."""


class Limits(NamedTuple):
    """How far two right computations may differ: |difference of log p|, averaged over the vocabulary."""

    typical: float
    """The median over positions; a mixture's router may flip at single ones."""
    any: float
    """At the worst position."""


LIMITS = {
    torch.float32: Limits(5e-4, 1e-2),
    torch.float16: Limits(0.1, 1.0),
    torch.bfloat16: Limits(0.4, 2.0),
}


def require_drivable(lm: PreTrainedModel, name: str) -> None:
    """Raise UserError, in one line, for a model that the engine would not drive, or would drive wrongly.

    The cause may be anything: layers that keep another state or never call our attention, a bias, sinks,
    a scale, positions of their own.
    """
    config = lm.config.get_text_config()
    refusal = f"engine=hf cannot drive {name!r}, of the architecture {config.model_type}"
    try:
        with _short_reach(lm):
            called, plain, ours = _compare(lm)
    except torch.OutOfMemoryError:
        raise
    except UserError as error:
        raise UserError(f"{refusal}: {error}") from error
    except Exception as error:  # what an architecture may raise that expects other arguments
        reason = next(iter(str(error).splitlines()), "")
        raise UserError(f"{refusal}: {type(error).__name__}: {reason}") from error
    if called != [*range(config.num_hidden_layers)]:
        raise UserError(
            f"{refusal}: attention was asked for by layers {called} of {config.num_hidden_layers}, "
            f"where each should ask once"
        )
    if plain.isnan().any():  # the weights' fault: it is named where tokens are drawn
        return
    off = torch.where(plain == ours, 0.0, (plain - ours).abs()).mean(-1)
    limits = LIMITS[next(lm.parameters()).dtype]
    if not (off.median() < limits.typical and off.max() < limits.any):
        raise UserError(
            f"{refusal}: its log p is off by {off.max():.2g} from the library's own forward pass "
            f"(mean over the vocabulary): its attention, or its positions, are not the engine's"
        )


@dataclass(frozen=True)
class _Recording:
    """A batch that notes which layers asked for attention."""

    batch: Batch
    shape: tuple[int, int, int]
    """Layers, key heads and their dimension, by the configuration."""
    layers: list[int] = field(default_factory=list)

    @property
    def cache(self) -> KVCache:
        return self.batch.cache

    def attend(self, inputs: AttentionInputs) -> torch.Tensor:
        self.layers.append(inputs.layer)
        for what, given in (("keys", inputs.key), ("values", inputs.value)):
            (heads, _, dim), (_, known, width) = given.shape, self.shape
            if heads not in (1, known) or dim != width:  # a single head serves as each of them
                raise UserError(
                    f"its {what} have {heads} heads of {dim}, where its configuration says "
                    f"{known} of {width}"
                )
        return self.batch.attend(inputs)


@torch.inference_mode()
def _compare(lm: PreTrainedModel) -> tuple[list[int], torch.Tensor, torch.Tensor]:
    """The layers that attended in a step, and log p [positions, V] at the steps' tokens: plain, ours."""
    first, config = next(lm.parameters()), lm.config.get_text_config()
    sequences = _tokens(config).to(first.device)
    cache = ContiguousCache(config, ROWS, LENGTH, first.dtype, first.device)
    for chunks in PASSES:
        real = [c._replace(tokens=sequences[c.row, list(c.tokens)].tolist()) for c in chunks]
        batch = _Recording(Prefill(cache, real), cache.shape)
        where = [(chunk.row, position) for chunk in chunks for position in chunk.tokens]
        lm.base_model(**_inputs(sequences, where, batch))
    ours = []
    for step in STEPS:
        batch = _Recording(_decode(cache, step), cache.shape)
        ours.append(lm(**_inputs(sequences, step, batch)).logits[0])
    rows, positions = zip(*itertools.chain(*STEPS), strict=True)
    plain = plain_logp(lm, sequences)[list(rows), list(positions)]
    return batch.layers, plain, torch.cat(ours).float().log_softmax(-1)


def _inputs(
    sequences: torch.Tensor, where: Sequence[tuple[int, int]], batch: Batch
) -> dict[str, Any]:
    """A flat pass over the tokens at these rows and positions."""
    rows, positions = torch.tensor(where, device=sequences.device).T
    return {
        "input_ids": sequences[rows, positions][None],
        "position_ids": positions[None],
        "use_cache": False,
        "batch": batch,
    }


def _decode(cache: ContiguousCache, step: Sequence[tuple[int, int]]) -> Batch:
    rows, positions = torch.tensor(step, device=cache.device).T
    if cache.device.type == "cuda":
        return DecodeCUDA(cache, rows, positions[:, None], leading=False)
    return DecodeCPU(cache, rows, positions, torch.zeros_like(rows))


def _tokens(config: Any) -> torch.Tensor:
    """Random sequences, int64 [ROWS, LENGTH], without the tokens that a model may treat in its own way."""
    named: list[Any] = [getattr(config, f"{name}_token_id", None) for name in ("pad", "bos", "eos")]
    special = {token for each in named for token in np.atleast_1d(each)}
    ordinary = [token for token in range(config.vocab_size) if token not in special]
    chosen = np.random.default_rng(0).choice(ordinary, (ROWS, LENGTH))
    return torch.from_numpy(chosen.astype(np.int64))


@contextmanager
def _short_reach(lm: PreTrainedModel) -> Iterator[None]:
    """Within it, windows and the like span few tokens, for the library's own attention as for ours.

    One as long as the model's context hides nothing, and stays.
    """
    holders = [
        *lm.modules(),
        *{id(m.config): m.config for m in lm.modules() if hasattr(m, "config")}.values(),
    ]
    context = getattr(lm.config.get_text_config(), "max_position_embeddings", None) or math.inf
    before = [
        (holder, name, value)
        for holder in holders
        for name, value in vars(holder).items()
        if REACHING.search(name) and type(value) is int and REACH < value < context
    ]
    try:
        for holder, name, _ in before:
            setattr(holder, name, REACH)
        yield
    finally:
        for holder, name, value in before:
            setattr(holder, name, value)


def longrope_switch(config: object) -> int | None:
    """Beyond how many tokens this model's rotary factors change; None if they never do.

    Raises UserError for dynamic NTK scaling, whose factors drift with the longest sequence seen.
    """
    rope = getattr(config, "rope_parameters", None) or {}
    kinds = rope.values() if rope and all(isinstance(v, dict) for v in rope.values()) else [rope]
    for kind in kinds:
        if kind.get("rope_type") == "dynamic":
            raise UserError("engine=hf does not support rope_type=dynamic; choose another model")
        if kind.get("rope_type") == "longrope":
            original = kind.get("original_max_position_embeddings")
            return original or config.original_max_position_embeddings  # type: ignore[attr-defined]
    return None
