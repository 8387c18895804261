"""Best-of-n and maj@n are set beside a chain at equal tokens.

Run: pytest tests/report/test_equal_cost.py
"""

from itertools import product
from pathlib import Path

import pytest
from fabricate import STEPS, sample, write_run

from powerbench.report.chosen import best_of_n, best_per_token, majority_vote
from powerbench.report.summary import Results
from powerbench.report.tables import paired
from powerbench.report.tables.equal_cost import at_equal_budgets, table, table_of_passes
from powerbench.report.tables.table import text
from powerbench.types import PER_TOKEN, Cost, Sample, Score


def plain(tmp_path: Path) -> Results:
    """Four replicates of two problems, 10 tokens each: the likeliest is right on p0 and wrong on p1."""
    samples, scores = [], {}
    for i, r in product(range(2), range(4)):
        samples.append(sample(f"p{i}", r, length=10, logp=-5.0 + r))
        scores[f"p{i}", r] = Score(correct=(r == 3) == (i == 0))
    return Results.read(write_run(tmp_path / "low_temp-1", samples, scores))


def chain(tmp_path: Path, decoded: int, passes: int = PER_TOKEN) -> Results:
    """One response to each of two problems, both right."""
    samples: list[Sample] = [
        sample(f"p{i}", length=10, steps=STEPS, cost=Cost(decoded, 7, 1.0, 9.0, 0.0, passes=passes))
        for i in range(2)
    ]
    scores = {(f"p{i}", 0): Score(correct=True) for i in range(2)}
    return Results.read(write_run(tmp_path / "power-1", samples, scores))


def test_a_curve_costs_n_responses_and_ends_with_the_likeliest(tmp_path: Path) -> None:
    found = best_of_n(plain(tmp_path)).curve()
    assert [b.n for b in found] == [1, 2, 3, 4]
    assert [b.tokens for b in found] == [10, 20, 30, 40]
    assert found[0].problems == {"p0": [0.25], "p1": [0.75]}
    assert found[1].problems == {"p0": [0.5], "p1": [0.5]}
    assert found[3].problems == {"p0": [1.0], "p1": [0.0]}


def test_equal_tokens_lie_between_two_whole_numbers(tmp_path: Path) -> None:
    best = best_of_n(plain(tmp_path))
    between = best.among(2.5)
    assert between is not None and between.problems["p0"] == pytest.approx([(0.5 + 0.75) / 2])
    whole, fewer = best.among(4), best.among(0.3)
    assert whole is not None and whole.problems["p0"] == [1.0]
    one = best.among(1)
    assert fewer is not None and one is not None and fewer.problems == one.problems
    assert best.among(4.1) is None
    assert best.among(4 + 1e-12) is not None  # rounding


def test_problems_with_too_few_responses_are_left_out_only_where_they_have_too_few(
    tmp_path: Path,
) -> None:
    samples = [sample(f"p{i}", 0) for i in range(4)] + [sample("p0", 1)]
    scores = {(s.problem, s.replicate): Score(correct=s.problem == "p0") for s in samples}
    best = best_of_n(Results.read(write_run(tmp_path / "base-1", samples, scores)))
    one, two = best.among(1), best.among(1.5)
    assert one is not None and (one.value.mean, one.value.n) == (0.25, 4)
    assert two is not None and (two.value.mean, two.value.n) == (1.0, 1)


def test_equally_likely_responses_have_no_best(tmp_path: Path) -> None:
    samples = [sample("p0", r) for r in range(3)]
    run = write_run(
        tmp_path / "greedy-1", samples, {("p0", r): Score(correct=True) for r in range(3)}
    )
    assert not best_of_n(Results.read(run)).means_something


def test_a_chain_is_set_beside_what_its_tokens_buy(tmp_path: Path) -> None:
    other = plain(tmp_path)
    row, per_token = table([other, chain(tmp_path, 20)]).rows
    assert text(row[5]) == "best of 2.0 low_temp"
    assert text(per_token[5]) == "best per token of 2.0 low_temp"
    assert text(row[6]).startswith("0.500 [")
    assert text(row[7]).startswith("+0.500 [")
    row, _ = table([other, chain(tmp_path / "more", 90)]).rows
    assert text(row[5]) == "best of 9.0 low_temp (there are 4)"
    assert row[6:] == (None,) * 5


def test_a_chain_is_set_beside_what_its_passes_buy_where_these_are_others(tmp_path: Path) -> None:
    other, drafted = plain(tmp_path), chain(tmp_path / "drafted", 40, passes=20)
    row, _ = table([other, drafted]).rows
    assert (row[3], text(row[5])) == (40, "best of 4.0 low_temp")
    row, _ = table_of_passes([other, drafted]).rows
    assert (row[3], text(row[5])) == (20, "best of 2.0 low_temp")
    assert text(row[6]).startswith("0.500 [")
    assert table_of_passes([other, chain(tmp_path, 40)]).rows == []
    (pair,) = paired.pairs([other, drafted])
    assert (pair.tokens, pair.passes) == (4, 2)


def voting(tmp_path: Path) -> Results:
    """Two problems, six times 10 tokens: four say 4 on p0, which is right, two on p1, where three say 5."""
    said = {"p0": ["4", "4", "4", "4", "5", "6"], "p1": ["4", "4", "5", "5", "5", None]}
    samples = [sample(p, r, length=10, logp=-5.0 + r) for p in said for r in range(6)]
    scores = {
        (p, r): Score(correct=answer == "4", answer=answer)
        for p, answers in said.items()
        for r, answer in enumerate(answers)
    }
    return Results.read(write_run(tmp_path / "low_temp-1", samples, scores))


def test_a_majority_is_voted_for_the_same_tokens(tmp_path: Path) -> None:
    best, _, majority = table([voting(tmp_path), chain(tmp_path, 60)]).rows
    assert (text(best[5]), text(majority[5])) == (
        "best of 6.0 low_temp",
        "majority of 6.0 low_temp",
    )
    assert text(best[6]).startswith("0.000 [")
    assert text(majority[6]).startswith("0.500 [")
    assert text(majority[7]).startswith("+0.500 [")


def test_between_two_whole_numbers_of_votes_the_mean_is_right(tmp_path: Path) -> None:
    votes = majority_vote(voting(tmp_path))
    three, four, between = votes.among(3), votes.among(4), votes.among(3.5)
    assert three is not None and four is not None and between is not None
    assert between.value.mean == pytest.approx((three.value.mean + four.value.mean) / 2)


def test_a_majority_of_one_opinion_is_not_shown(tmp_path: Path) -> None:
    """Nor one of programs, which have no answers to compare."""
    samples = [sample("p0", r, logp=float(-r)) for r in range(4)]
    agreed = {("p0", r): Score(correct=True, answer="4") for r in range(4)}
    silent = {("p0", r): Score(correct=True) for r in range(4)}
    for name, scores in {"agreed": agreed, "silent": silent}.items():
        run = Results.read(write_run(tmp_path / name / "base-1", samples, scores))
        rows = table([run, chain(tmp_path / name, 60)]).rows
        assert rows and all(text(row[5]).startswith("best") for row in rows), name


def test_at_a_budget_both_choices_stand_side_by_side(tmp_path: Path) -> None:
    tokens, _, _ = at_equal_budgets([voting(tmp_path)], 60, 60, 60)
    named = [column.heading for column in tokens.columns]
    (row,) = tokens.rows
    assert text(row[named.index("value [95%]")]).startswith("0.000 [")
    assert text(row[named.index("majority [95%]")]).startswith("0.500 [")


def test_a_long_response_is_best_per_token_where_a_short_one_is_as_a_whole(tmp_path: Path) -> None:
    """And an empty one, whose log p is 0, is never better than one with tokens."""
    samples = [
        sample("p0", 0, length=2, logp=-2.0),
        sample("p0", 1, length=10, logp=-5.0),
        sample("p0", 2, length=0, logp=0.0),
    ]
    scores = {("p0", r): Score(correct=r == 1) for r in range(3)}
    run = Results.read(write_run(tmp_path / "base-1", samples, scores))
    whole, mean = best_of_n(run).among(3), best_per_token(run).among(3)
    assert whole is not None and whole.problems == {"p0": [0.0]}
    assert mean is not None and mean.problems == {"p0": [1.0]}


def test_a_chain_cheaper_than_one_response_is_not_set_beside_it(tmp_path: Path) -> None:
    assert not table([plain(tmp_path), chain(tmp_path, 9)]).rows


def unfinished(tmp_path: Path) -> Results:
    """A run in which three problems have two responses, and one has a third already; 10 tokens each."""
    samples = [sample(f"p{i}", r, length=10, logp=float(-r)) for i in range(4) for r in range(2)]
    samples.append(sample("p0", 2, length=10, logp=-9.0))
    scores = {(s.problem, s.replicate): Score(correct=True) for s in samples}
    return Results.read(write_run(tmp_path / "low_temp-1", samples, scores))


def test_a_few_problems_with_more_responses_do_not_stand_for_all(tmp_path: Path) -> None:
    tokens, _, _ = at_equal_budgets([unfinished(tmp_path)], 1000, 1000, 1000)
    (row,) = tokens.rows
    shown = dict(zip((column.heading for column in tokens.columns), row, strict=True))
    assert text(shown["responses"]).startswith("2 of ")
    assert shown["problems"] == 4


def test_p_values_at_equal_cost_are_corrected_for_all_rows(tmp_path: Path) -> None:
    """Nine problems that only the chain solves have p = 2 / 2^9; there are two rows."""
    problems = [f"p{i}" for i in range(9)]
    wrong = [sample(p, r, length=10, logp=float(-r)) for p in problems for r in range(2)]
    scores = {(s.problem, s.replicate): Score(correct=False) for s in wrong}
    other = Results.read(write_run(tmp_path / "low_temp-1", wrong, scores))
    right = [
        sample(p, length=10, steps=STEPS, cost=Cost(20, 7, 1.0, 9.0, 0.0, passes=PER_TOKEN))
        for p in problems
    ]
    solved = {(p, 0): Score(correct=True) for p in problems}
    found = table([other, Results.read(write_run(tmp_path / "power-1", right, solved))])
    where = [column.heading for column in found.columns].index("p, corrected")
    assert [text(row[where]) for row in found.rows] == ["0.008", "0.008"]


def test_one_response_is_chosen_once(tmp_path: Path) -> None:
    """Whatever it is chosen by."""
    samples = [sample(f"p{i}", r, length=20, logp=float(-r)) for i in range(2) for r in range(4)]
    answers = {(s.problem, s.replicate): str(s.replicate % 2) for s in samples}
    scores = {key: Score(correct=answer == "0", answer=answer) for key, answer in answers.items()}
    other = Results.read(write_run(tmp_path / "low_temp-1", samples, scores))
    (row,) = table([other, chain(tmp_path, 20)]).rows
    assert text(row[5]) == "best of 1.0 low_temp"


def test_a_majority_of_two_has_more_answers_than_one_response(tmp_path: Path) -> None:
    """Of two responses one without an answer has no vote."""
    samples = [sample("p0", r, logp=float(-r)) for r in range(4)]
    scores = {
        ("p0", r): Score(correct=r in (0, 3), answer="4" if r in (0, 3) else None) for r in range(4)
    }
    run = Results.read(write_run(tmp_path / "low_temp-1", samples, scores))
    one, two = majority_vote(run).among(1), majority_vote(run).among(2)
    assert one is not None and one.problems["p0"] == pytest.approx([0.5])
    assert two is not None and two.problems["p0"] == pytest.approx([5 / 6])


def test_a_run_that_is_not_finished_has_what_most_of_its_problems_have(tmp_path: Path) -> None:
    for row in table([unfinished(tmp_path), chain(tmp_path, 30)]).rows:
        assert text(row[5]).endswith("of 3.0 low_temp (there are 2)")
        assert row[6:] == (None,) * 5
