"""Any Hugging Face causal LM as an engine: continuous batching over resident KV caches."""

from powerbench.engines.hf.engine import HFEngine

__all__ = ["HFEngine"]
