"""The figures, from run folders alone; each is drawn if the runs allow it."""

from collections.abc import Sequence
from pathlib import Path

from powerbench.report.figures import chains, curves, responses, settings
from powerbench.report.figures.style import Drawing
from powerbench.report.labels import main_runs
from powerbench.report.summary import Results


def draw(results: Sequence[Results], folder: Path) -> list[Drawing]:
    """Draw what the runs allow into `folder`.

    results: in the order in which samplers are to be listed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    plain = main_runs(results)
    return [
        *curves.draw_bars(results, folder),
        *responses.draw(plain, folder),
        *responses.draw_under_others(plain, folder),
        *settings.draw(results, folder),
        *curves.draw_costs(results, folder),
        *chains.draw(results, folder),
    ]
