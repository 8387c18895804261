"""Checkpoints: a state comes back bit for bit, or it is said that it does not.

Run: pytest tests/store/test_checkpoints.py
"""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

import powerbench
from powerbench.store import records
from powerbench.store.checkpoints import Checkpoints
from powerbench.types import Checkpoint, Span

STATE = {
    "block": 3,
    "tokens": list(range(-5, 300)),
    "logp": [math.sin(i) * 10.0 ** (i % 40 - 20) for i in range(300)] + [-0.0, 5e-324],
    "mixed": [1, 2.5] * 20,
    "flags": [True, False] * 20,
    "short": [1.5, 2.5],
    "particles": [{"x": [float(i)] * 20, "name": "é"} for i in range(20)],
    "steps": [[0, 1, -2.0, None, 3, False]] * 30,
    "nothing": [],
}
CHECKPOINT = Checkpoint(STATE, 10, 20, 30, (Span(1.0, 2.0), Span(5.0, 6.5)), 99.0, 4, 12)


@pytest.fixture
def kept(tmp_path: Path) -> Checkpoints:
    kept = Checkpoints(tmp_path)
    kept.save("a/b c", 1, CHECKPOINT)
    return kept


def test_a_state_comes_back_bit_for_bit(kept: Checkpoints) -> None:
    loaded = kept.load("a/b c", 1)
    assert loaded == CHECKPOINT
    assert json.dumps(loaded.state) == json.dumps(STATE)  # 1 is 1 and True is True
    assert kept.load("a/b c", 2) is None


def test_one_that_tells_no_passes_is_of_an_engine_that_drafted_nothing(kept: Checkpoints) -> None:
    path = kept.path("a/b c", 1)
    line = path.read_bytes().replace(b',"passes":4,"rows":12', b"").rpartition(b',"crc"')[0]
    assert b"passes" not in line
    path.write_bytes(records.with_checksum(line + b"}") + b"\n")
    assert kept.load("a/b c", 1) == replace(CHECKPOINT, passes=10, rows=10)


def test_the_last_one_counts_until_it_is_removed(kept: Checkpoints) -> None:
    other = Checkpoint({"block": 4}, 11, 20, 30, (), 99.0)
    kept.save("a/b c", 1, other)
    assert kept.load("a/b c", 1) == other
    assert len(list(kept.folder.iterdir())) == 1
    kept.remove("a/b c", 1)
    kept.remove("a/b c", 1)
    assert list(kept.folder.iterdir()) == []


def test_a_damaged_one_is_named_and_not_used(
    kept: Checkpoints, caplog: pytest.LogCaptureFixture
) -> None:
    path = kept.path("a/b c", 1)
    whole = path.read_bytes()
    for damaged in (whole[:-20], whole.replace(b'"decoded":10', b'"decoded":11'), b"", b"{}\n"):
        path.write_bytes(damaged)
        caplog.clear()
        assert kept.load("a/b c", 1) is None
        (line,) = caplog.messages
        assert f"{path} is damaged" in line and "starts from the beginning" in line


def test_one_of_another_version_is_not_used(
    kept: Checkpoints, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(powerbench, "__version__", "99")
    assert kept.load("a/b c", 1) is None
    assert "starts from the beginning" in caplog.messages[0]
