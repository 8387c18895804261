"""Which modules of a model may be replaced by those in `fused`: found out, not listed.

One that may be has linear layers of the names that the library gives them, or looks like a norm. It is replaced
where its replacement, on all inputs of a real pass, gives what it gives itself. Any other stays as it is.
"""

import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import PreTrainedModel

from powerbench.engines.hf.attention_batches import AttentionInputs
from powerbench.engines.hf.fused import APART, FusedAttention, FusedMLP, FusedNorm, Replacement
from powerbench.engines.hf.projections import packable

TOKENS = 7
"""Of the pass on whose inputs replacements are tried."""

LIMITS = {torch.float32: 1e-5, torch.bfloat16: 2.0**-6}
"""Mean difference from a module's own results, relative to their mean size: some times what rounding makes."""

GATED = "gate_proj", "up_proj", "down_proj"


class Call(NamedTuple):
    """What a module was called with in a pass, and what came of it."""

    arguments: tuple[Any, ...]
    options: Mapping[str, Any]
    result: Any
    asked: Sequence[AttentionInputs]
    """Of our attention meanwhile."""


@dataclass
class Trial:
    """A batch that notes what attention is asked, and answers with the sum of what comes with each query."""

    asked: list[AttentionInputs] = field(default_factory=list)
    capacity: int = sys.maxsize

    @property
    def cache(self) -> Any:
        """What is read of it is its capacity."""
        return self

    def attend(self, inputs: AttentionInputs) -> torch.Tensor:
        self.asked.append(inputs)
        group = len(inputs.query) // len(inputs.key)
        return inputs.query + (inputs.key + inputs.value).repeat_interleave(group, dim=0)


@torch.inference_mode()
def fuse(lm: PreTrainedModel) -> bool:
    """Replace modules of a model on the CPU, in place; what was replaced before stays as it is. Returns whether
    any was."""
    if lm.dtype not in LIMITS:
        return False
    calls, replaced = _calls(lm), False
    for parent in list(lm.modules()):
        for name, child in list(parent.named_children()):
            for way in _ways(child, calls.get(child, ())):
                if all(_agrees(way, call) for call in _tried(child, calls[child])):
                    way.adopt()
                    setattr(parent, name, way)
                    replaced = True
                    break
    return replaced


@contextmanager
def plain_modules(lm: nn.Module) -> Iterator[None]:
    """Within it, modules that were replaced compute as the library does."""
    replaced = [module for module in lm.modules() if isinstance(module, Replacement)]
    try:
        for module in replaced:
            module.active = False
        yield
    finally:
        for module in replaced:
            module.active = True


def _calls(lm: PreTrainedModel) -> Mapping[nn.Module, Sequence[Call]]:
    """What the modules that may be replaced are called with in a pass over a few tokens."""
    trial = Trial()
    calls: dict[nn.Module, list[Call]] = defaultdict(list)
    begun: dict[nn.Module, int] = {}

    def before(module: nn.Module, arguments: Any) -> None:
        begun[module] = len(trial.asked)

    def after(module: nn.Module, arguments: Any, options: Any, result: Any) -> None:
        calls[module].append(Call(arguments, options, result, trial.asked[begun[module] :]))

    done = {m for each in lm.modules() if isinstance(each, Replacement) for m in each.modules()}
    looked_at = [
        module
        for module in lm.modules()
        if module not in done
        and (_eps(module) or _has_linears(module, GATED) or _has_linears(module, ["o_proj"]))
    ]
    hooks = [
        hook
        for module in looked_at
        for hook in (
            module.register_forward_pre_hook(before),
            module.register_forward_hook(after, with_kwargs=True),
        )
    ]
    vocabulary = lm.config.get_text_config().vocab_size  # special tokens are at its ends
    span = torch.linspace(0.25 * vocabulary, 0.75 * vocabulary, TOKENS, device=lm.device)
    positions = torch.arange(TOKENS, device=lm.device)[None]
    try:
        lm.base_model(
            input_ids=span.long()[None], position_ids=positions, use_cache=False, batch=trial
        )
    finally:
        for hook in hooks:
            hook.remove()
    return calls


def _ways(module: Any, calls: Sequence[Call]) -> Iterator[Replacement]:
    """What may stand for a module that was called so."""
    if not calls:
        return
    call = calls[0]
    alone = len(call.arguments) == 1 and not call.options
    if alone and (eps := _eps(module)):
        yield FusedNorm(module, module.weight, eps)
        yield FusedNorm(module, 1.0 + module.weight.float(), eps)
    if alone and _has_linears(module, GATED):
        yield FusedMLP(module)
    if len(call.asked) == 1 and _rotates(module, call):
        yield FusedAttention(module, call.asked[0])


LARGER = 64.0, 4096.0
"""Times as large as in the pass are inputs on which gated MLPs are tried too: near 0 activations are alike."""


def _tried(module: nn.Module, calls: Sequence[Call]) -> Iterator[Call]:
    """The calls of a pass, and such as tell apart modules that rounding or small numbers make alike there: in
    bfloat16 a norm whose weights are w is within its rounding of one whose are 1 + w, if w is large."""
    for call in calls:
        yield call
        if len(call.arguments) == 1 and not call.options:
            (x,) = call.arguments
            others = [x.float()] if _eps(module) else [scale * x for scale in LARGER]
            for other in others:
                yield Call((other,), {}, module(other), ())


def _eps(module: Any) -> float | None:
    """Of a module that may be RMSNorm; None if it is something else."""
    weight = getattr(module, "weight", None)
    eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    fits = isinstance(eps, float) and isinstance(weight, torch.Tensor) and weight.dim() == 1
    return eps if fits else None


def _has_linears(module: Any, names: Sequence[str]) -> bool:
    return all(packable(getattr(module, name, None)) for name in names)


def _rotates(module: Any, call: Call) -> bool:
    """Whether an attention module has the parts that `FusedAttention` drives, and rotates whole heads."""
    _, query, key, value, _, _ = call.asked[0]
    dim, sizes = query.shape[2], [len(part) * part.shape[2] for part in (query, key, value)]
    factors = call.options.get("position_embeddings")
    norms = [getattr(module, name, None) for name in ("q_norm", "k_norm")]
    if len(call.arguments) > 1 or not isinstance(call.result, tuple) or len(call.result) != 2:
        return False
    if not isinstance(factors, tuple) or [f.shape for f in factors] != [(1, *query.shape[1:])] * 2:
        return False
    if norms != [None, None] and [_norm_size(norm) for norm in norms] != [dim, dim]:
        return False
    if not _has_linears(module, ["o_proj"]):
        return False
    if _has_linears(module, ["qkv_proj"]):
        return bool(module.qkv_proj.out_features == sum(sizes))
    if not _has_linears(module, APART):
        return False
    parts = [getattr(module, name) for name in APART]
    biased = {part.bias is not None for part in parts}
    return [part.out_features for part in parts] == sizes and len(biased) == 1


def _norm_size(norm: Any) -> int | None:
    return len(norm.weight) if _eps(norm) else None


def _agrees(way: Replacement, call: Call) -> bool:
    """Whether a replacement asks and gives what the module itself asked and gave."""
    trial = Trial()
    given = {"batch": trial} if "batch" in call.options else {}
    ours, theirs = way(*call.arguments, **{**call.options, **given}), call.result
    pairs = [(ours, theirs)] if isinstance(ours, torch.Tensor) else [(ours[0], theirs[0])]
    for mine, its in zip(trial.asked, call.asked, strict=True):
        if (mine.layer, mine.window, mine.scaling) != (its.layer, its.window, its.scaling):
            return False
        pairs += [(mine.query, its.query), (mine.key, its.key), (mine.value, its.value)]
    return all(_close(*pair) for pair in pairs)


def _close(ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
        return False
    off = (ours.float() - theirs.float()).abs().mean()
    return bool(off <= LIMITS[theirs.dtype] * theirs.float().abs().mean())
