"""Best-of-n matched in tokens to a run, problem by problem, is the protocol as it is written.

Run: pytest tests/report/test_matched_best_of_n.py
"""

from itertools import product
from pathlib import Path

import pytest
from fabricate import STEPS, sample, write_report, write_run

from powerbench.report.summary import Results
from powerbench.report.tables.matched_best_of_n import Candidate, Matched, matched, table
from powerbench.report.tables.table import text
from powerbench.types import Cost, Score

FOUR = [
    Candidate(10, -0.5, 0.0),
    Candidate(30, -0.2, 1.0),
    Candidate(10, -0.9, 1.0),
    Candidate(10, -0.1, 0.0),
]


def test_the_candidate_that_crosses_the_budget_is_kept() -> None:
    # From each in turn: 10 + 30 (best: the second); 30; 10 + 10; 10 + 10.
    assert matched(FOUR, 20) == Matched((2 + 1 + 2 + 2) / 4, (1 + 1 + 0 + 0) / 4)
    # 10 + 30; 30 + 10; 10 + 10 + 10 (the last is the best); 10 + 10 + 30.
    assert matched(FOUR, 21) == Matched((2 + 1 + 3 + 3) / 4, (1 + 1 + 0 + 0) / 4)


def test_a_budget_below_one_response_buys_one() -> None:
    assert matched(FOUR, 1) == Matched(1, 0.5)
    assert matched(FOUR, 0) == Matched(1, 0.5)


def test_all_of_them_are_best_of_all_and_more_are_not_made_up() -> None:
    assert matched(FOUR, 60) == Matched(4, 0.0)
    assert matched(FOUR, 61) is None
    assert matched([], 0) is None


def test_ties_go_to_the_first_drawn() -> None:
    two = [Candidate(5, -1.0, 1.0), Candidate(5, -1.0, 0.0)]
    assert matched(two, 10) == Matched(2, 0.5)


def plain(folder: Path, replicates: int = 4) -> Results:
    """The mean log p per token of replicate r is -1/(r + 1); only the last of problem p0 is right."""
    keys = list(product(range(2), range(replicates)))
    samples = [sample(f"p{i}", r, length=10, logp=-10.0 / (r + 1)) for i, r in keys]
    scores = {(f"p{i}", r): Score(correct=(r == replicates - 1) == (i == 0)) for i, r in keys}
    return Results.read(write_run(folder / "base-1", samples, scores))


def chain(folder: Path, *decoded: int) -> Results:
    """One right response to each problem, of so many tokens decoded."""
    samples = [
        sample(f"p{i}", length=10, steps=STEPS, cost=Cost(d, 7, 1.0, 9.0, 0.0))
        for i, d in enumerate(decoded)
    ]
    scores = {(f"p{i}", 0): Score(correct=True) for i in range(len(decoded))}
    return Results.read(write_run(folder / "power-1", samples, scores))


def test_each_problem_has_its_own_budget(tmp_path: Path) -> None:
    (row,) = table([plain(tmp_path), chain(tmp_path, 40, 15)]).rows
    # p0: best of 4, which is right. p1: best of 2; wrong where the last is among them, from r = 2 and 3.
    assert text(row[4]) == "best of 3.0 base"
    assert text(row[5]).startswith("0.750 [")
    assert text(row[6]).startswith("+0.250 [")
    assert text(row[7]) == "0.763"  # of two problems next to nothing can be said
    assert text(row[8]) == "2"


def test_problems_with_too_few_responses_are_counted_and_left_out(tmp_path: Path) -> None:
    (row,) = table([plain(tmp_path), chain(tmp_path, 40, 50)]).rows
    assert text(row[4]) == "best of 4.0 base" and text(row[8]) == "1 (+1)"
    assert not table([chain(tmp_path / "b", 50, 50), plain(tmp_path / "b")]).rows


def test_the_report_has_it(tmp_path: Path) -> None:
    runs = [plain(tmp_path).run, chain(tmp_path, 40, 15).run]
    page = write_report(runs, tmp_path / "out")
    assert "The same tokens, problem by problem" in page.read_text()
    written = page.with_name("report.md").read_text()
    assert "| power | 1.000 [" in written and "| best of 3.0 base | 0.750 [" in written


@pytest.mark.parametrize("budget", [5, 12, 25, 40])
def test_mean_tokens_bought_are_at_least_the_budget_and_less_than_one_response_more(
    budget: int,
) -> None:
    same = [Candidate(7, -i / 3, float(i % 2)) for i in range(9)]
    found = matched(same, budget)
    assert found is not None and budget <= 7 * found.n < budget + 7
