"""What a run's last rounds tell of the populations that its responses were chosen from.

Run: pytest tests/report/test_populations.py
"""

from itertools import permutations
from pathlib import Path

import pytest
from fabricate import sample, summarise, write_report, write_run

from powerbench.report.populations import is_covered, populations
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


def wrong(*members: bool | None) -> Score:
    return Score(correct=False, members=members)


def test_a_population_whose_third_member_alone_is_right_is_covered_but_lost(tmp_path: Path) -> None:
    scores = {("p0", 0): wrong(False, False, True), ("p1", 0): wrong(False, False, False)}
    run = write_run(tmp_path / "block_beam-1", [sample("p0"), sample("p1")], scores)
    summary = summarise(run)
    assert summary.value is not None and summary.value.mean == 0
    assert summary.coverage is not None and summary.coverage.coverage.mean == 0.5
    assert summary.coverage.lost == summary.coverage.coverage
    alone = summarise(write_run(tmp_path / "beam-1", [sample("p0")], {("p0", 0): scores["p0", 0]}))
    assert alone.coverage is not None
    assert (alone.value and alone.value.mean, alone.coverage.coverage.mean) == (0, 1)
    report = write_report([run], tmp_path / "out").with_name("report.md").read_text()
    assert "| block_beam | 3.0 | 0.000 [" in report
    assert report.count(" | 0.500 [") == 2


def test_replicates_are_averaged_before_problems(tmp_path: Path) -> None:
    samples = [sample("p0", r) for r in range(3)] + [sample("p1")]
    scores = {("p0", r): wrong(r == 1) for r in range(3)} | {
        ("p1", 0): Score(correct=True, members=(False, True))
    }
    found = summarise(write_run(tmp_path / "beam-1", samples, scores)).coverage
    assert found is not None and found.members == pytest.approx(5 / 4)
    assert found.coverage.mean == pytest.approx((1 / 3 + 1) / 2)
    assert found.lost.mean == pytest.approx(1 / 6)


def test_the_order_of_members_does_not_matter() -> None:
    for members, covered in (
        ((False, False, True, None), True),
        ((False, False, None), None),
        ((False, False, False), False),
    ):
        assert {is_covered(wrong(*order)) for order in permutations(members)} == {covered}
    assert is_covered(wrong()) is None


def test_where_answers_were_not_kept_coverage_is_not_known(tmp_path: Path) -> None:
    summary = summarise(smc(tmp_path))
    assert summary.coverage is None
    undecided = {("p0", 0): Score(members=(True,)), ("p1", 0): wrong(False, None)}
    run = write_run(tmp_path / "beam-1", [sample("p0"), sample("p1")], undecided)
    assert summarise(run).coverage is None


def test_the_report_has_them_and_says_what_is_not_known(tmp_path: Path) -> None:
    page = write_report([smc(tmp_path)], tmp_path / "out")
    assert "Populations" in page.read_text()
    report = page.with_name("report.md").read_text()
    assert "| power_smc particles=4 | 4.0 | 3.0 [" in report
    assert "coverage is not known where no answer can be read" in report
