"""The figures, from run folders alone; each is drawn if the runs allow it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from powerbench.report.figures import chains as of_chains
from powerbench.report.figures import curves, responses
from powerbench.report.figures.style import Drawing
from powerbench.report.summary import Results, main
from powerbench.report.tables.chains import Chains


def draw(results: Sequence[Results], chains: Mapping[int, Chains], folder: Path) -> list[Drawing]:
    """Draw what the runs allow into `folder`.

    results: in the order in which samplers are to be listed. chains: by the id of a run's results.
    """
    folder.mkdir(parents=True, exist_ok=True)
    plain = main(results)
    return [
        *curves.draw_bars(results, folder),
        *responses.draw(plain, folder),
        *responses.draw_under_others(plain, folder),
        *curves.draw_series(results, folder),
        *curves.draw_compute(results, folder),
        *of_chains.draw(results, chains, folder),
    ]
