"""Shared by all tests: helpers beside the test files, one thread, no network."""

import os
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("WANDB_MODE", "offline")
HELPERS = ("cluster", "engines", "faults", "report", "run", "samplers", "store")
VERIFIERS = ("math", "code", "judge", "sandbox")
for folder in (*HELPERS, *(f"verifiers/{each}" for each in VERIFIERS)):
    sys.path.insert(0, str(Path(__file__).parent / folder))
