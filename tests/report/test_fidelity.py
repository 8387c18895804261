"""The ledger of departures: each has its setting, and its effect where runs show it.

Run: pytest tests/report/test_fidelity.py
"""

import re
from pathlib import Path
from typing import Any

import pytest
from fabricate import grid, sample, verdicts, write_run, write_scores

from powerbench.config import compose, options
from powerbench.report.summary import Results
from powerbench.report.tables.fidelity import contrasts, departures, ledger, table
from powerbench.report.tables.table import text
from powerbench.types import Score

ROOT = Path(__file__).parents[2]
MARK = "<!-- departures: from conf/without -->"


def official(path: Path, name: str, length: int, every: int, **changed: Any) -> Results:
    default = compose(["sampler=power_official"]).settings()
    settings = {k: v for k, v in default["sampler"].items() if k != "name"} | changed
    samples = [sample(f"p{i}", length=length + i) for i in range(8)]
    shared = {k: default[k] for k in ("max_tokens", "alpha", "blocks", "steps")}
    run = write_run(
        path / f"power_official-{name}",
        samples,
        verdicts(samples, every),
        settings=settings,
        **shared,
    )
    return Results.read(run)


def test_all_fifteen_are_there() -> None:
    assert [d.number for d in departures()] == list(range(1, 16))
    named = {d.without for d in departures()} - {None}
    assert named == set(options("without")) - {"nothing"}


@pytest.mark.parametrize(
    "departure", [d for d in departures() if d.without], ids=lambda d: d.without
)
def test_leaving_one_out_changes_just_what_it_says(departure: Any) -> None:
    default = compose(["sampler=power_official"]).settings()["sampler"]
    left = compose(["sampler=power_official", f"without={departure.without}"]).settings()["sampler"]
    differ = {k for k in default if default[k] != left[k]}
    assert differ == set(departure.left_out)
    assert {f"sampler.{k}" for k in differ} == set(departure.setting.split(", "))


def test_those_that_no_setting_leaves_out_say_why() -> None:
    others = [d for d in departures() if d.without is None]
    assert [d.number for d in others] == [7, 8, 9, 10, 12, 13, 14, 15]
    assert all(d.setting == d.instead and not d.left_out for d in others)


def test_what_the_ledger_tells_to_set_can_be_set() -> None:
    """Of those that another setting than the sampler's reproduces; the rest say `none` and why."""
    told = {d.number: d.instead for d in departures() if not d.left_out}
    settings = {
        number: re.match(r"[\w.]+=[\w${}]+", instead)
        for number, instead in told.items()
        if not instead.startswith("none: ")
    }
    assert set(settings) == {7, 12, 13, 14}
    for found in settings.values():
        assert found is not None
        compose([found[0], "task=gpqa_diamond"])


def test_the_readme_has_the_ledger() -> None:
    """`print(powerbench.report.tables.fidelity.ledger())` prints what belongs between the two marks."""
    files = [ROOT / "README.md", *(ROOT / "powerbench").rglob("README.md")]
    (found,) = (text for file in files if MARK in (text := file.read_text()))
    table = found.partition(MARK)[2].partition("<!-- /departures -->")[0]
    assert table.strip() == ledger().strip()


def test_two_runs_that_differ_in_one_departure_show_its_effect(tmp_path: Path) -> None:
    there = official(tmp_path, "a", length=10, every=2)
    without = official(tmp_path, "b", length=13, every=1, top_k=None)
    other = official(tmp_path, "c", length=13, every=1, top_k=None, eos_only=False)
    runs = [there, without, other]
    assert contrasts(departures()[1], runs) == [(there, without)]
    assert contrasts(departures()[4], runs) == [(without, other)]
    assert contrasts(departures()[2], runs) == []
    row = next(r for r in table(runs).rows if r[0] == "2")
    assert row[3] == "math500 · tiny · power_official"
    assert text(row[4]).startswith("−0.500 [")
    assert text(row[5], "+.3f") == "+0.000 [+0.000, +0.000]"
    assert text(row[6], "+.1f") == "−3.0 [−3.0, −3.0]"
    assert next(r for r in table(runs).rows if r[0] == "3")[3] == "not measured here"


def test_runs_with_the_same_responses_say_so(tmp_path: Path) -> None:
    runs = [
        official(tmp_path, "a", length=10, every=2),
        official(tmp_path, "b", length=10, every=2, eos_only=False),
    ]
    row = next(r for r in table(runs).rows if r[0] == "5")
    assert str(row[3]).endswith("none, the same responses")


def test_the_noise_of_subsets_is_computed_from_the_runs(tmp_path: Path) -> None:
    """One problem, half of its 4 responses right: pass@1 is 1/2, its indicator's variance 1/4."""
    samples = grid(1, 4)
    scores = {(s.problem, s.replicate): Score(correct=s.replicate < 2) for s in samples}
    run = Results.read(write_run(tmp_path / "base-1", samples, scores))
    other = write_run(tmp_path / "base-2", samples, verifier={"name": "code"})
    write_scores(other, "code", scores)  # HumanEval's is the unbiased estimator there too
    code = Results.read(other)
    assert code.summary.verifier == "code" and len(code.summary.pass_at_k) > 2
    assert next(r for r in table([code]).rows if r[0] == "8")[3] == "not measured here"
    row = next(r for r in table([run]).rows if r[0] == "8")
    assert f"a standard error of {(0.25 / 200) ** 0.5:.4f} is added at k = 1" in str(row[3])
