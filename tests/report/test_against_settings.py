"""Figure 6 as the paper has it, and the slopes that explain it, from the numbers that runs hold.

Run: pytest tests/report/test_against_settings.py
"""

from collections.abc import Mapping
from itertools import product
from pathlib import Path

import pytest
from fabricate import sample, write_report, write_run

from powerbench.report.figures import settings
from powerbench.report.figures.style import Style
from powerbench.report.series import series
from powerbench.report.slopes import by_problem, power_of
from powerbench.report.summary import Results
from powerbench.report.tables import slopes
from powerbench.report.tables.table import as_csv, text
from powerbench.store import Run
from powerbench.types import Score

STYLE = Style("#000000", "-", "o")
SHARED = {"max_tokens": 128, "alpha": 4.0, "blocks": 4, "steps": 4}
RIGHT = {0: (0,), 1: (0, 1), 2: (0, 1, 2, 3)}
"""Replicates that are right, of four, by problem: the likelier they are, the lower their number."""


def power(
    folder: Path,
    name: str,
    right: Mapping[int, tuple[int, ...]] = RIGHT,
    model: str = "tiny",
    sampler: str = "power",
    **changed: float,
) -> Run:
    """Four responses to each of three problems, at -1, -2, -3 and -4 nats."""
    keys = list(product(right, range(4)))
    samples = [sample(f"p{i}", r, logp=-1.0 - r) for i, r in keys]
    scores = {(f"p{i}", r): Score(correct=r in right[i]) for i, r in keys}
    path = folder / model / f"{sampler}-{name}"
    return write_run(path, samples, scores, model=model, settings=SHARED | changed, **SHARED)


def read(*runs: Run) -> list[Results]:
    return list(map(Results.read, runs))


def test_slopes_are_those_of_each_problem_and_their_mean(tmp_path: Path) -> None:
    (run,) = read(power(tmp_path, "1"))
    found = by_problem(run)
    assert [s.delta for s in found.values()] == pytest.approx([2.0, 2.0, None])
    expected = [0.25 * 0.75 * 2 * 4 / 3, 0.25 * 2 * 4 / 3, 0.0]
    assert [s.slope for s in found.values()] == pytest.approx(expected)
    (row,) = slopes.table([run]).rows
    assert text(row[4]).startswith(f"+{sum(expected) / 3:.3f} [")
    assert text(row[5]) == "+2.00 [+2.00, +2.00]"
    assert row[7:9] == (3, 2) and text(row[9]) == "2 / 0"
    by_size = slopes.problem_table([run])
    assert [r[3] for r in by_size.rows] == ["p1", "p0", "p2"]
    assert len(slopes.problem_table([run], most=1).rows) == 1
    assert "dP/dα, low" in as_csv(slopes.table([run]))


def test_only_runs_for_a_power_have_slopes(tmp_path: Path) -> None:
    others = ("low_temp", "power_official", "max_swap")
    for sampler in others:
        (run,) = read(power(tmp_path, "1", sampler=sampler))
        assert power_of(run.summary) is None and by_problem(run) == {}
    (base,) = read(write_run(tmp_path / "base-1", [sample()], {}))
    assert power_of(base.summary) == 1.0
    (cut,) = read(write_run(tmp_path / "base-2", [sample()], {}, settings={"top_k": 50}))
    assert power_of(cut.summary) is None


def test_one_response_to_a_problem_tells_no_slope(tmp_path: Path) -> None:
    run = write_run(tmp_path / "base-1", [sample()], {("p0", 0): Score(correct=True)})
    assert not slopes.table(read(run)).rows


def test_the_curve_against_alpha_has_the_slopes(tmp_path: Path) -> None:
    runs = [power(tmp_path, f"{a}", alpha=a) for a in (2.0, 4.0, 8.0)]
    (found,) = series(read(*runs))
    dots = settings._dots(found, "power", STYLE)
    assert dots.x == (2.0, 4.0, 8.0)
    assert dots.slopes == pytest.approx([(1 / 2 + 2 / 3) / 3] * 3)
    assert [y.mean for y in dots.y] == pytest.approx([7 / 12] * 3)


def test_figure_6_left_has_a_curve_for_each_model(tmp_path: Path) -> None:
    alphas = (2.0, 4.0, 8.0)
    one = [power(tmp_path, f"{a}", alpha=a) for a in alphas]
    alone = [power(tmp_path, f"{a}", sampler="low_temp", alpha=a) for a in alphas]
    write_report([*one, *alone], tmp_path / "one")
    assert not (tmp_path / "one/figures/against_alpha_models.png").exists()
    two = [power(tmp_path, f"{a}", model="other", alpha=a) for a in alphas]
    report = write_report([*one, *two, *alone], tmp_path / "two").with_name("report.md")
    drawn = (tmp_path / "two/figures/against_alpha_models.svg").read_text()
    assert "tiny" in drawn and "other" in drawn and "low_temp" not in drawn
    assert "power sampling alone" in report.read_text()


def test_figure_6_right_is_the_gain_over_no_steps_paired_by_problem(tmp_path: Path) -> None:
    nothing = {0: (), 1: (0, 1), 2: (0,)}
    runs = [
        power(tmp_path, "0", nothing, steps=0),
        power(tmp_path, "2", steps=2),
        power(tmp_path, "4"),
    ]
    (found,) = series(read(*runs))
    dots = settings._gains(found, STYLE)
    assert dots.label == "tiny" and list(dots.x) == [0.0, 2.0, 4.0]
    assert [y.mean for y in dots.y] == pytest.approx([0.0, 1 / 3, 1 / 3])
    assert all(y.interval.low <= y.mean <= y.interval.high for y in dots.y)
    write_report(runs, tmp_path / "out")
    assert (tmp_path / "out/figures/gain_steps.png").exists()


def test_the_report_has_every_problem_in_a_file(tmp_path: Path) -> None:
    many = dict.fromkeys(range(15), (0, 1))
    page = write_report([power(tmp_path, "1", many)], tmp_path / "out")
    rows = (tmp_path / "out/tables/slopes_by_problem.csv").read_text().splitlines()
    assert len(rows) == 16
    report = page.with_name("report.md").read_text()
    assert "## Would more sharpening help?" in report
    listed = report.split("## Problems that more sharpening moves most")[1].split("\n## ")[0]
    assert listed.count("\n| p") == slopes.SHOWN + 1  # and the heading, `problem`
    assert "Would more sharpening help?" in page.read_text()
