"""Shared by all tests: helpers beside the test files, one thread, no network, a fresh log."""

import logging
import os
import sys
from pathlib import Path

import pytest

from powerbench.console import console

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ["COLUMNS"] = "132"  # as where the output is a file, whatever terminal the tests run in
HELPERS = (
    "cluster",
    "endpoint",
    "engines",
    "faults",
    "report",
    "run",
    "samplers",
    "serve",
    "store",
)
VERIFIERS = ("math", "code", "judge", "sandbox")
for folder in (*HELPERS, *(f"verifiers/{each}" for each in VERIFIERS)):
    sys.path.insert(0, str(Path(__file__).parent / folder))


@pytest.fixture(autouse=True)
def fresh_log() -> None:
    """A command that ran in this process has taken the package's log for itself: give it back to caplog."""
    console.cache_clear()
    package = logging.getLogger("powerbench")
    package.handlers, package.propagate = [], True
    package.setLevel(logging.INFO)
