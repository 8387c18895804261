"""Two verifiers of one run: what counts as disagreement, and where a reader finds it.

Run: pytest tests/report/test_disagreement.py
"""

from pathlib import Path

import pytest
from fabricate import grid, sample, verdicts, write_report, write_run, write_scores

from powerbench.report.page.data import page_data
from powerbench.report.selection import select
from powerbench.report.summary import Results
from powerbench.report.tables.disagreement import SHOWN, disagree, line, verifier_agreement
from powerbench.types import Score

RIGHT, WRONG, UNDECIDED = Score(correct=True), Score(correct=False), Score()


@pytest.mark.parametrize(
    ("one", "other", "differ"),
    [
        (RIGHT, RIGHT, False),
        (RIGHT, WRONG, True),
        (WRONG, RIGHT, True),
        (RIGHT, UNDECIDED, False),
        (UNDECIDED, UNDECIDED, False),
        (Score(preference=0.9), Score(preference=0.6), False),
        (Score(preference=0.9), Score(preference=0.4), True),
        (Score(preference=0.5), Score(preference=0.6), False),
    ],
)
def test_to_disagree_is_to_decide_the_other_way(one: Score, other: Score, differ: bool) -> None:
    assert disagree(one, other) is differ


def test_a_comparison_counts_what_both_have_decided(tmp_path: Path) -> None:
    samples = [sample(f"p{i}") for i in range(5)]
    own = {("p0", 0): RIGHT, ("p1", 0): RIGHT, ("p2", 0): WRONG, ("p3", 0): UNDECIDED}
    run = write_run(tmp_path / "base-1", samples, own)
    other = {("p0", 0): RIGHT, ("p1", 0): WRONG, ("p2", 0): UNDECIDED, ("p3", 0): RIGHT}
    write_scores(run, "strict", other)
    (found,) = verifier_agreement(Results.read(run))
    assert (found.own, found.other, found.both, found.undecided) == ("math", "strict", 2, 1)
    assert found.disagreements == (("p1", 0),)
    assert found.value is not None and found.value.mean == pytest.approx(2 / 3)
    assert line(found).endswith("1 undecided; disagrees with math on 1 of 2 responses")


def test_the_report_shows_both_and_lists_where_they_disagree(tmp_path: Path) -> None:
    samples = grid(30, 1)
    run = write_run(tmp_path / "base-1", samples, verdicts(samples, every=1))
    write_scores(run, "strict", {("p0", 0): Score(correct=True, reason="same")})
    wrong = {("p" + str(i), 0): Score(correct=False, reason="units") for i in range(1, 30)}
    write_scores(run, "strict", wrong)
    text = write_report([run], tmp_path / "out").with_name("report.md").read_text()
    assert "## Where verifiers disagree" in text
    assert "disagrees with math on 29 of 30 responses" in text
    assert "- p1, replicate 0 `1`: math: 1 (compared); strict: 0 (units)" in text
    assert text.count("(units)") == SHOWN
    assert f"- and {29 - SHOWN} more, on the page" in text
    results = [Results.read(run)]
    (first, second, *_) = page_data(results, select(results)).chunks[0]["responses"]
    assert first["others"] == [
        {"verifier": "strict", "score": "correct", "reason": "same", "disagrees": False}
    ]
    assert second["others"][0]["disagrees"] is True


def test_one_verifier_alone_has_no_such_section(tmp_path: Path) -> None:
    samples = grid(2, 1)
    run = write_run(tmp_path / "base-1", samples, verdicts(samples))
    page = write_report([run], tmp_path / "out")
    assert "disagree" not in page.with_name("report.md").read_text()
    assert verifier_agreement(Results.read(run)) == []


def test_a_page_without_disagreements_sends_nobody_to_look_for_them(tmp_path: Path) -> None:
    samples = grid(2, 1)
    run = write_run(tmp_path / "base-1", samples, verdicts(samples))
    write_scores(run, "strict", verdicts(samples))
    text = write_report([run], tmp_path / "out").read_text()
    assert "Other verifiers of the same responses" in text
    assert "choose “verifiers disagree”" not in text
