"""`powerbench doctor --device`: whether a device computes what it should.

Run: pytest tests/run/test_doctor_device.py
"""

import pytest
import torch

from powerbench.cli import main
from powerbench.engines.hf.attention_batches import AttentionInputs
from powerbench.engines.hf.decode_cpu import DecodeCPU


def test_the_cpu_passes(capsys: pytest.CaptureFixture[str]) -> None:
    main(["doctor", "--device", "cpu"])
    out = " ".join(capsys.readouterr().out.split())
    assert "ok engine=hf on cpu log p is off by" in out


def test_a_device_that_computes_wrongly_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    good = DecodeCPU.attend

    def attend(self: DecodeCPU, inputs: AttentionInputs) -> torch.Tensor:
        late = self.longest > 100  # the check at load does not come so far
        return good(self, inputs._replace(scaling=inputs.scaling * (0.9 if late else 1)))

    monkeypatch.setattr(DecodeCPU, "attend", attend)
    main(["doctor", "--device=cpu"])
    out = " ".join(capsys.readouterr().out.split())
    assert "-- engine=hf on cpu" in out
    assert "log p and entropy differ from a plain pass" in out
