"""A run folder of two problems, which is empty otherwise."""

from pathlib import Path

import pytest

from powerbench.store import Run
from powerbench.store.writing import create
from powerbench.types import Problem, Prompt


@pytest.fixture
def run(tmp_path: Path) -> Run:
    run = Run(tmp_path / "task/model/power-00000000")
    problems = [
        Problem("a", Prompt("A?"), "1", {"level": 2}),
        Problem("b", Prompt("B?", True), "2"),
    ]
    create(run, "seed: 0\n", {"git": None}, problems)
    return run
