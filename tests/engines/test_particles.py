"""Several responses of one chain in the hf engine: what is cached is used, and moved no more than it must be.

Run: pytest tests/engines/test_particles.py
"""

from functools import partial

import pytest
from tiny import TinyModel

from powerbench.chains.runner import ChainSpec, Completed, run_chains
from powerbench.engines.hf import HFEngine
from powerbench.rng import Stream
from powerbench.samplers.power_smc import PowerSMC
from powerbench.types import Context, Progress, SampleKey

PROMPT = tuple(range(5, 17))
KNOWN = len(PROMPT) - 1
"""Positions of the prompt to be computed: its last token is decoded from."""
SMC = PowerSMC(24, alpha=2.0, particles=8, threshold=0.7, interval=3, ramp=0)


@pytest.mark.parametrize("stop_tokens", [(), (60, 180, 240)], ids=["full", "stopping"])
@pytest.mark.parametrize("chains", [1, 2, 3])
@pytest.mark.parametrize("room", [0, 1, 7])
def test_resampling_computes_nothing_again_and_copies_duplicates_alone(
    chains: int, room: int, stop_tokens: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a row for each particle the prompt is computed once, for all chains; a duplicate needs a copy of its
    ancestor at most, and a survivor nothing."""
    engine, moved = HFEngine(TinyModel("llama"), 12, 24, max_num_seqs=8 * chains + room), 0
    copy = engine.cache.copy

    def counted(source: int, target: int, start: int, stop: int) -> None:
        nonlocal moved
        moved += stop - start
        copy(source, target, start, stop)

    monkeypatch.setattr(engine.cache, "copy", counted)
    begin = partial(SMC.chain, Context(PROMPT, 0, stop_tokens))
    starts = [
        ChainSpec(SampleKey(str(i), 0), PROMPT, begin, Stream(0, "task", str(i), 0))
        for i in range(chains)
    ]
    done = [e for e in run_chains(starts, engine, Progress()) if isinstance(e, Completed)]
    assert sum(each.cost.prefilled for each in done) == KNOWN
    most, duplicates = (SMC.particles * chains - 1) * KNOWN, 0
    for each in done:
        for resampling in each.outcome.rounds[:-1]:
            position = (resampling.block + 1) * SMC.interval
            copies = sum(ancestor != sequence for sequence, ancestor in enumerate(resampling.kept))
            most += copies * (KNOWN + position)
            duplicates += copies
    assert moved <= most
    assert duplicates >= 3 * chains
