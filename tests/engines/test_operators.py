"""A decoding step on CUDA at the size of Qwen2.5-7B, without weights: nothing asks the device; few launches.

Run: pytest tests/engines/test_operators.py
"""

import pytest
import torch

from powerbench.bench.operators import SETTINGS, count, launches
from powerbench.engines.hf.slots import Slots
from powerbench.engines.sampling import Drawn

SHAPE = "qwen2.5-7b"


def test_a_step_launches_no_more_operators_than_it_did() -> None:
    """Each costs the host microseconds where steps are not recorded, and the device a gap where they are."""
    found = launches(SHAPE, SETTINGS["plain"])
    assert found.all == 28 * found.layer + found.outside
    assert found.layer <= 40
    assert found.outside <= 150


@pytest.mark.parametrize("name", SETTINGS)
def test_no_setting_makes_a_step_ask_the_device(name: str) -> None:
    assert count(SHAPE, SETTINGS[name], layers=1)["_varlen_attn"] == 1


@pytest.mark.parametrize("width", [2, 9])
def test_a_pass_that_verifies_drafts_does_not_ask_the_device_either(width: int) -> None:
    counted = count(SHAPE, SETTINGS["top_logprobs"], layers=1, width=width)
    assert counted["_varlen_attn"] == 1


@pytest.mark.parametrize(
    "asking",
    [
        lambda slots: slots.active.any().item(),
        lambda slots: slots.position[slots.active],
        lambda slots: slots.position.tolist(),
        lambda slots: torch.tensor([1]),
    ],
    ids=["item", "mask", "list", "host"],
)
def test_a_step_that_asks_the_device_is_found(asking, monkeypatch: pytest.MonkeyPatch) -> None:
    advance = Slots.advance

    def asks(slots: Slots, rows: torch.Tensor, drawn: Drawn) -> None:
        asking(slots)
        advance(slots, rows, drawn)

    monkeypatch.setattr(Slots, "advance", asks)
    with pytest.raises((AssertionError, RuntimeError, NotImplementedError)):
        count(SHAPE, SETTINGS["plain"], layers=1)
