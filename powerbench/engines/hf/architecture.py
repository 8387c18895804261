"""What an architecture asks of the engine: whether it can be driven, and how its positions scale."""

from transformers import PreTrainedModel

from powerbench.engines.hf.attention import ATTENTION
from powerbench.errors import UserError


def attends_only(lm: PreTrainedModel) -> bool:
    """Whether every layer is an attention layer that calls our function, and keeps no other state."""
    config = lm.config.get_text_config()
    known = {"full_attention", "sliding_attention"}
    attention = [
        m for m in lm.modules() if hasattr(m, "layer_idx") and "Attention" in type(m).__name__
    ]
    return (
        config._attn_implementation == ATTENTION
        and set(getattr(config, "layer_types", None) or known) <= known
        and len(attention) == config.num_hidden_layers
    )


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
