"""Responses side by side: the problems that tell samplers apart, escaped, and cut where they are long.

Run: pytest tests/report/test_sides.py
"""

from pathlib import Path

from fabricate import sample, write_report, write_run

from powerbench.report.page.data import page_data
from powerbench.report.page.sides import MAX_CHARACTERS, Sides, side_by_side
from powerbench.report.selection import select
from powerbench.report.summary import Results
from powerbench.types import Score


def run(folder: Path, name: str, right: str, text: str = "", **shared: str) -> Results:
    """Replicates 1 and 2 of five problems; r and w: whether the first of them is right; u: undecided."""
    samples = [
        sample(f"p{i}", r, text=text or f"{name} says {i} in {r}")
        for i in range(len(right))
        for r in (2, 1)
    ]
    scores = {
        (f"p{i}", 1): Score(correct=None if verdict == "u" else verdict == "r")
        for i, verdict in enumerate(right)
    }
    return Results.read(write_run(folder / f"{name}-1", samples, scores, **shared))


def sides(*results: Results) -> list[Sides]:
    return side_by_side(results, page_data(results, select(results)))


def test_problems_that_tell_apart_come_first_those_that_power_solves_before_all(
    tmp_path: Path,
) -> None:
    found = sides(run(tmp_path, "base", "rrwwuw"), run(tmp_path, "power", "wrrrrw"))
    assert [each.problem for each in found] == ["p2", "p3", "p1"]  # two apart, one alike
    first = found[0]
    assert [(s.sampler, s.score, s.replicate) for s in first.sides] == [
        ("base", "wrong", 1),
        ("power", "correct", 1),
    ]
    assert first.sides[1].text == "power says 2 in 1" and first.gold == "gold of p2"


def test_a_problem_that_power_alone_fails_is_shown_where_there_is_no_other(tmp_path: Path) -> None:
    found = sides(run(tmp_path, "base", "rw"), run(tmp_path, "power", "ww"))
    assert [each.problem for each in found] == ["p0"]


def test_a_trained_model_stands_beside_its_base_and_one_run_alone_shows_nothing(
    tmp_path: Path,
) -> None:
    alone = run(tmp_path, "power", "r")
    assert sides(alone) == []
    trained = run(tmp_path / "b", "base", "w", model="tiny-grpo")
    (each,) = sides(alone, trained)
    assert [s.model for s in each.sides] == ["tiny", "tiny-grpo"]


def test_the_page_escapes_and_cuts_them(tmp_path: Path) -> None:
    text = "</script><b>bold</b>" + "x" * MAX_CHARACTERS
    runs = [run(tmp_path, "base", "w", text).run, run(tmp_path, "power", "r").run]
    page = write_report(runs, tmp_path / "out").read_text()
    shown = page.split('<section id="sides">')[1].split("</section>")[0]
    assert "&lt;/script&gt;&lt;b&gt;bold" in shown and "<b>bold" not in shown
    assert "20 more characters" in shown and "base wrong, power correct" in shown
    assert "power says 0 in 1" in shown
