"""The contract of all engines, for the vLLM engine: the tests are those of test_contract.py.

Run: make test-vllm
"""

import pytest
from test_contract import *  # noqa: F403  also the tests that it will have one day
from tiny import Subject
from vllm_subjects import subject


@pytest.fixture(params=["llama", "qwen2"])
def engine_under_test(request: pytest.FixtureRequest) -> Subject:
    return subject(request.param)
