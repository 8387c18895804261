"""The report of a parallel tempering run says how its exchanges went, and which ladder to try next.

Run: pytest tests/report/test_exchanges.py
"""

from pathlib import Path
from statistics import fmean

import pytest

from powerbench.cli import main
from powerbench.report.exchanges import exchanges
from powerbench.report.models import read_all
from powerbench.report.tables.exchanges import table
from powerbench.stats.replica_exchange import accepted, round_trips
from powerbench.store import find_runs

TOY = ["model=toy", "engine=toy", "task=math_mini", "max_tokens=8", "blocks=2", "tracker=none"]
TOY += ["limit=6", "steps=24", "sampler=parallel_tempering", "sampler.replicas=3"]


@pytest.mark.parametrize("schedule", ["ordered", "even_odd"])
def test_it_counts_what_the_chains_recorded(schedule: str, tmp_path: Path) -> None:
    main(["run", *TOY, f"sampler.schedule={schedule}", f"runs={tmp_path}"])
    (run,) = find_runs([tmp_path])
    found = exchanges(run)
    assert found is not None
    assert found.ladder == pytest.approx((1, 2, 4))
    tried, happened = [[], []], [[], []]
    every = list(run.stream())
    for sample in every:
        for i, sweep in enumerate(sample.rounds):
            for r in range(2):
                if schedule == "ordered" or i % 24 % 2 == r:
                    tried[r].append(sweep.weights[r])
                    happened[r].append(accepted(sweep.kept)[r])
    assert found.acceptance == pytest.approx([fmean(each) for each in tried])
    assert found.acceptance == pytest.approx([fmean(each) for each in happened], abs=0.25)
    trips = [t for sample in every for t in round_trips([s.kept for s in sample.rounds])]
    assert (found.round_trips, found.sweeps) == (len(trips), pytest.approx(fmean(trips)))
    low, middle, high = found.equalised
    assert (low, high) == pytest.approx((1, 4))
    assert (middle < 2) == (found.acceptance[0] < found.acceptance[1])
    (row,) = table(read_all([run])).rows
    assert row[3].text == "1, 2, 4"


def test_a_run_without_exchanges_has_no_row(tmp_path: Path) -> None:
    alone = ["sampler.replicas=1", f"runs={tmp_path}"]
    main(["run", *TOY, *alone])
    main(["run", *TOY[:-2], "sampler=power", f"runs={tmp_path}"])
    runs = find_runs([tmp_path])
    assert [exchanges(run) for run in runs] == [None, None]
    assert table(read_all(runs)).rows == []
