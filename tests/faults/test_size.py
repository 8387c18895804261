"""A run folder of 100,000 samples is read and reported within two GiB; how fast, `make bench-store` says.

Run: make test-faults, or pytest -m faults tests/faults/test_size.py
"""

from pathlib import Path

import pytest

from powerbench.bench.storing import command, fabricate
from powerbench.store import Run

pytestmark = pytest.mark.faults

SAMPLES = 100_000


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """500 problems, 200 responses each, of the paper's mean length."""
    return fabricate(tmp_path_factory.mktemp("large") / "math500/made-up/power-0", SAMPLES)


def test_every_key_is_found(run: Run) -> None:
    assert run.keys() == {(f"p{i}", r) for i in range(500) for r in range(200)}


@pytest.mark.parametrize("what", ["report", "verify", "export", "status"])
def test_no_command_needs_two_gib(run: Run, what: str, tmp_path: Path) -> None:
    out = ["--out", str(tmp_path)] if what in ("report", "export") else []
    _, peak = command(what, str(run.path), *out)
    assert peak < 2.0
    if what == "report":
        table = (tmp_path / "report.md").read_text()
        assert "| 500 × 200 |" in table
        assert (tmp_path / "page.html").stat().st_size < 30 * 2**20
