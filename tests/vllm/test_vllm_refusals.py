"""What engine=vllm refuses before vLLM is imported; these run without it.

Run: pytest tests/vllm/test_vllm_refusals.py
"""

import sys

import pytest

from powerbench.engines.vllm import VLLMEngine
from powerbench.errors import UserError
from powerbench.models import HubModel

MODEL = HubModel("m", "/nowhere")


def test_a_missing_vllm_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(UserError, match=r"run `pip install 'powerbench\[vllm\]'`") as error:
        VLLMEngine(MODEL, 40, 40)
    assert "\n" not in str(error.value)
