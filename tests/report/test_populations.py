"""What a run's last rounds tell of the populations that its responses were chosen from.

Run: pytest tests/report/test_populations.py
"""

from pathlib import Path

import pytest
from fabricate import sample, write_report, write_run

from powerbench.report.populations import populations
from powerbench.report.summary import Results
from powerbench.store import Run
from powerbench.types import Round, Score

EARLY = Round(0, 8, (-1.0, -2.0), (0.5, 0.5), (0, 0))
COPIES = Round(1, 16, (-3.0, -3.0, -4.0, -3.0), (0.25, 0.25, 0.25, 0.25), (2,))
ONE = Round(1, 16, (-3.0, -5.0, -4.0, -6.0), (1.0, 0.0, 0.0, 0.0), (0,))
SCORES = Round(0, 0, (-3.0, -5.0), (-3.0, -5.0), (0,))


def smc(folder: Path) -> Run:
    samples = [sample("p0", 0, rounds=(EARLY, EARLY, COPIES)), sample("p1", 0, rounds=(ONE,))]
    scores = {("p0", 0): Score(correct=True), ("p1", 0): Score(correct=False)}
    return write_run(folder / "power_smc-1", samples, scores, settings={"particles": 4})


def test_copies_are_no_distinct_members(tmp_path: Path) -> None:
    found = populations(Results.read(smc(tmp_path)).last_rounds)
    assert found is not None and found.effective is not None
    assert found.members.mean == 4
    assert found.distinct.mean == pytest.approx((2 + 4) / 2)
    assert found.effective.mean == pytest.approx((4 + 1) / 2)
    assert found.earlier.mean == pytest.approx((2 + 0) / 2)


def test_scores_are_no_weights(tmp_path: Path) -> None:
    run = write_run(tmp_path / "best_of_n-1", [sample(rounds=(SCORES,))], {}, settings={"n": 2})
    found = populations(Results.read(run).last_rounds)
    assert found is not None and found.effective is None and found.distinct.mean == 2


def test_samplers_without_a_population_have_none(tmp_path: Path) -> None:
    pair = write_run(tmp_path / "parallel_tempering-1", [sample(rounds=(EARLY,))], {})
    assert populations(Results.read(pair).last_rounds) is None
    none = write_run(tmp_path / "power_smc-1", [sample()], {}, settings={"particles": 4})
    assert populations(Results.read(none).last_rounds) is None


def test_the_report_has_them_and_says_what_is_not_known(tmp_path: Path) -> None:
    page = write_report([smc(tmp_path)], tmp_path / "out")
    assert "Populations" in page.read_text()
    report = page.with_name("report.md").read_text()
    assert "| power_smc particles=4 | 4.0 | 3.0 [" in report and "not their texts" in report
