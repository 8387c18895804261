"""What checkpoints cost: the time that a run spends in saving its chains, as part of the whole run's."""

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from unittest.mock import patch

from powerbench.config import compose
from powerbench.run.generate import generate
from powerbench.run.prepare import prepare
from powerbench.samplers.blockwise import BlockState
from powerbench.samplers.common import Response
from powerbench.store.checkpoints import Checkpoints
from powerbench.store.writing import SampleWriter, sample_writer
from powerbench.types import Checkpoint, Span, Step

SETTINGS = ("task=math_mini", "limit=8", "max_tokens=64", "blocks=4", "steps=10", "tracker=none")

LENGTH, STEPS = 3072, 160
"""The paper's longest response, and its steps."""


@dataclass(frozen=True)
class Overhead:
    """The cost of saving chains at the end of every block."""

    saves: int
    fractions: list[float]
    """Of each run: seconds in saving, over seconds in all, from the first request to the last sample."""
    longest_ms: float
    """Milliseconds to save a chain of the paper's full length, median."""
    longest_bytes: int

    @property
    def fraction(self) -> float:
        """The median over runs."""
        return median(self.fractions)


def time_checkpoints(model: str, repeats: int) -> Overhead:
    """Runs of eight chains at once on a model, checkpoints on; and the saving of one long chain alone."""
    saves, fractions = 0, []
    for seed in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            saves, fraction = _run([*SETTINGS, f"model={model}", f"runs={folder}", f"seed={seed}"])
            fractions.append(fraction)
    with tempfile.TemporaryDirectory() as folder:
        milliseconds, size = _longest(Path(folder), 20 * repeats)
    return Overhead(saves, fractions, milliseconds, size)


def _run(settings: list[str]) -> tuple[int, float]:
    plan = prepare(compose(settings))
    engine = plan.engine
    spent: list[float] = []
    inner = SampleWriter.save

    def timed(*arguments: object) -> None:
        began = time.perf_counter()
        inner(*arguments)  # type: ignore[arg-type]
        spent.append(time.perf_counter() - began)

    with patch.object(SampleWriter, "save", timed), sample_writer(plan.run) as writing:
        began = time.perf_counter()
        for _ in generate(plan, engine, plan.missing(), writing):
            pass
        whole = time.perf_counter() - began
    return len(spent), sum(spent) / whole


def _longest(folder: Path, repeats: int) -> tuple[float, int]:
    numbers = tuple(-1 / (i + 1) for i in range(LENGTH))
    response = Response(tuple(range(LENGTH)), numbers, numbers, numbers)
    steps = [Step(i // 10, i, -1 / 3, -2 / 3, i, False) for i in range(STEPS)]
    state = BlockState(STEPS // 10, response, steps).saved().state
    checkpoint = Checkpoint(state, 1, 1, 1, (Span(0.0, 1.0),), 1.0)
    chains, seconds = Checkpoints(folder), []
    for _ in range(repeats):
        began = time.perf_counter()
        chains.save("problem", 0, checkpoint)
        seconds.append(time.perf_counter() - began)
    return 1e3 * median(seconds), chains.path("problem", 0).stat().st_size
