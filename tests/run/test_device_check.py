"""What the check of a device found is kept in a run's manifest.

Run: pytest tests/run/test_device_check.py
"""

from pathlib import Path
from typing import Any

import pytest

from powerbench.cli import main
from powerbench.engines.toy import ToyEngine
from powerbench.store import find_runs

TOY = ["model=toy", "engine=toy", "task=math_mini", "sampler=base", "limit=1", "max_tokens=4"]


def test_the_first_check_is_in_the_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: dict[str, Any] = {"mean": 1e-6, "graphs": True}
    for limit in (1, 2):
        monkeypatch.setattr(ToyEngine, "device_check", found | {"run": limit}, raising=False)
        main(["run", *TOY, f"limit={limit}", f"runs={tmp_path}"])
    (run,) = find_runs([tmp_path])
    assert run.manifest["device_check"] == found | {"run": 1}


def test_an_engine_without_a_check_adds_nothing(tmp_path: Path) -> None:
    main(["run", *TOY, f"runs={tmp_path}"])
    (run,) = find_runs([tmp_path])
    assert "device_check" not in run.manifest
