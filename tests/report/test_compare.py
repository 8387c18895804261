"""Samplers side by side: what each makes of the same tokens or seconds, and how varied it is.

Run: pytest tests/report/test_compare.py
"""

from itertools import combinations, product
from pathlib import Path
from statistics import fmean

import pytest
from fabricate import sample, write_run

from powerbench.cli import main
from powerbench.errors import UserError
from powerbench.report.build import comparison
from powerbench.report.summary import Results
from powerbench.report.tables.table import Table, text
from powerbench.stats.intervals import distinct
from powerbench.types import PER_TOKEN, Cost, Score


@pytest.mark.parametrize("counts", [(1, 1, 1), (3,), (2, 1, 4), (1, 5)])
def test_distinct_kinds_are_the_mean_over_subsets(counts: tuple[int, ...]) -> None:
    things = [kind for kind, count in enumerate(counts) for _ in range(count)]
    for n in range(1, len(things) + 1):
        found = [len({things[i] for i in chosen}) for chosen in combinations(range(len(things)), n)]
        assert distinct(counts, n) == pytest.approx(fmean(found), abs=1e-12)


def run(
    folder: Path, name: str, decoded: int, seconds: float, best: int, passes: int = PER_TOKEN
) -> Results:
    """Two problems x four responses of 10 tokens, one right each: the `best`-th likeliest of all."""
    samples, scores = [], {}
    for i, r in product(range(2), range(4)):
        cost = Cost(decoded, 7, seconds, 1000.0 * (4 * i + r), 0.0, passes=passes)
        tokens = tuple(range(10)) if r < 2 else tuple(range(100 * r, 100 * r + 10))
        one = sample(f"p{i}", r, length=10, logp=-5.0 - r, cost=cost, tokens=tokens)
        samples.append(one)
        scores[f"p{i}", r] = Score(correct=r == best, answer="7" if r < 3 else None)
    return Results.read(write_run(folder / f"{name}-1", samples, scores))


@pytest.fixture
def results(tmp_path: Path) -> list[Results]:
    """A plain sampler, and one that costs three times the tokens and six times the time, in half as many
    passes again."""
    return [
        run(tmp_path, "base", decoded=10, seconds=1.0, best=0),
        run(tmp_path, "power", decoded=30, seconds=6.0, best=2, passes=15),
    ]


def cell(table: Table, sampler: str, heading: str) -> str:
    column = [c.heading for c in table.columns].index(heading)
    row = next(r for r in table.rows if r[2] == sampler)
    return text(row[column], table.columns[column].form)


def test_the_same_tokens_buy_more_of_what_is_cheap(results: list[Results]) -> None:
    tokens, passes, seconds, _ = comparison(results)
    assert cell(tokens, "base", "budget") == "30.00"
    assert cell(tokens, "base", "responses") == "3.00"
    assert cell(tokens, "base", "value [95%]").startswith("0.750 [")  # the likeliest is in 3 of 4
    assert cell(tokens, "base", "pass@n [95%]").startswith("0.750 [")
    assert cell(tokens, "power", "responses") == "1.00"
    assert cell(tokens, "power", "value [95%]").startswith("0.250 [")
    assert cell(passes, "base", "budget") == cell(passes, "power", "a response costs") == "15.00"
    assert cell(passes, "base", "responses") == "1.50"
    assert cell(passes, "base", "value [95%]").startswith("0.375 [")  # in 1 of 4, or in 2
    assert cell(seconds, "base", "responses") == "4 of 6.00"
    assert cell(seconds, "base", "value [95%]").startswith("1.000 [")  # the likeliest of all four
    assert cell(seconds, "power", "responses") == "1.00"


def test_a_budget_between_two_numbers_is_their_mixture(results: list[Results]) -> None:
    tokens, *_ = comparison(results, tokens=25)
    assert cell(tokens, "base", "responses") == "2.50"
    assert cell(tokens, "base", "value [95%]").startswith("0.625 [")
    assert cell(tokens, "base", "pass@n [95%]").startswith("0.625 [")
    assert cell(tokens, "power", "value [95%]") == "–"  # less than one response


def test_variety_is_that_of_answers_and_of_ngrams(results: list[Results]) -> None:
    *_, variety = comparison(results)
    assert cell(variety, "base", "distinct answers [95%]").startswith("2.00 [")  # 7, and none
    grams = "distinct 4-grams [95%]"
    assert cell(variety, "base", grams).startswith("75.0%")  # two of the four are alike
    assert cell(variety, "base", "pass@k") == "1.000 (4)"


def test_the_command_prints_and_writes(
    tmp_path: Path, results: list[Results], capsys: pytest.CaptureFixture[str]
) -> None:
    budgets = ["--tokens", "25", "--passes", "20"]
    main(["compare", str(tmp_path), *budgets, "--out", str(tmp_path / "out")])
    said = capsys.readouterr().out
    assert "pass@n" in said and "distinct" in said
    assert said.index("At equal tokens") < said.index("At equal passes")
    assert (tmp_path / "out/compare_tokens.csv").read_text().count("\n") == 3
    assert ",20.0,15.0," in (tmp_path / "out/compare_passes.csv").read_text()
    for budget in ("tokens", "passes", "seconds"):
        with pytest.raises(UserError, match=f"--{budget} must be > 0 for a problem, got -1"):
            comparison(results, **{budget: -1})
