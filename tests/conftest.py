"""Shared by all tests: helpers beside the test files, one thread, no network."""

import os
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("WANDB_MODE", "offline")
for folder in ("cluster", "engines", "faults", "report", "run", "samplers", "store", "verifiers"):
    sys.path.insert(0, str(Path(__file__).parent / folder))
