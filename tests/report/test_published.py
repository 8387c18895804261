"""The paper's numbers: one yaml, rendered; and what a run of ours says of them.

Run: pytest tests/report/test_published.py
"""

import csv
import io
import re
from pathlib import Path

import pytest
from fabricate import grid, summarise, verdicts, write_report, write_run
from scipy import stats as reference

from powerbench.cli import main
from powerbench.config import options
from powerbench.report.tables.published import POWER, Agreement, agreement, judge, published, table
from powerbench.report.tables.table import text
from powerbench.stats.intervals import Estimate, wilson

PAPER = Path(__file__).parents[3] / "shared/PAPER.md"


@pytest.mark.skipif(not PAPER.exists(), reason="the facts of the paper are not at hand")
def test_the_yaml_has_the_papers_numbers() -> None:
    table = re.findall(
        r"^\|([^|\n]*)\| (base|low temperature|power sampling|GRPO \(MATH\)) \|([^\n]*)\|$",
        PAPER.read_text(),
        re.MULTILINE,
    )
    assert len(table) == 12
    models, methods = published().models.values(), published().methods
    ours = [[*each.values[method].values()] for each in models for method in methods]
    for (_, _, cells), found in zip(table, ours, strict=True):
        *accuracies, win_rate = map(float, cells.split("|"))
        assert found == pytest.approx([*accuracies, win_rate / 100])


def test_every_name_is_one_of_ours() -> None:
    table = published()
    assert set(table.tasks) <= set(options("task"))
    assert set(table.models) <= set(options("model"))
    assert {m.grpo for m in table.models.values() if m.grpo} <= set(options("model"))
    assert set(table.methods) - {"grpo"} <= set(options("sampler"))
    for model in table.models.values():
        assert set(model.values) == set(table.methods)
        assert all(list(values) == list(table.tasks) for values in model.values.values())


def test_intervals_follow_from_the_value_and_n_alone() -> None:
    row = next(r for r in table().rows if r[:2] == ("Qwen2.5-Math-7B", "power sampling"))
    expected = reference.binomtest(374, 500).proportion_ci(0.95, method="wilson")
    assert text(row[2]) == f"0.748 [{expected.low:.3f}, {expected.high:.3f}]"
    assert text(row[5]) == "2.88%"
    assert table().columns[2].heading == "MATH500 (n = 500)"


def test_the_command_shows_and_writes_the_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    main(["report", "--published", "--out", str(tmp_path)])
    said = capsys.readouterr().out
    low, high = wilson(120, 164)
    assert "Phi-3.5-mini-instruct" in said and f"0.732 [{low:.3f}, {high:.3f}]" in said
    read = list(csv.DictReader(io.StringIO((tmp_path / "published.csv").read_text())))
    assert len(read) == 12
    phi = next(
        r for r in read if (r["model"], r["method"]) == ("Phi-3.5-mini-instruct", "power sampling")
    )
    assert float(phi["HumanEval (n = 164), high"]) == pytest.approx(high)
    assert float(phi["AlpacaEval 2.0"]) == 0.1765
    latex = (tmp_path / "published.tex").read_text()
    assert latex.count(r" \\") == 13
    assert r"2.88\%" in latex and r"\begin{tabular}{llrrrr}" in latex
    written = (tmp_path / "published.md").read_text()
    assert "## Qwen2.5-7B\n" in written and "| base | 0.498 [" in written


def test_a_report_needs_runs_or_the_published(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["report"])
    assert stopped.value.code == 2
    assert "name run folders to report on" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("right", "n", "value", "expected"),
    [
        (374, 500, 0.748, Agreement.TOO_FEW),  # one answer to each of 500: shows 0.055
        (748, 1000, 0.748, Agreement.INSIDE),
        (374, 500, 0.690, Agreement.OUTSIDE),
        (12, 24, 0.6, Agreement.TOO_FEW),
    ],
)
def test_an_agreement_needs_enough_answers(
    right: int, n: int, value: float, expected: Agreement
) -> None:
    assert agreement(Estimate(right / n, wilson(right, n), n), value).agreement is expected


@pytest.mark.parametrize(("n", "truth"), [(200, 0.5), (500, 0.7), (2000, 0.3)])
def test_what_could_have_been_shown_is_shown_with_its_chance(n: int, truth: float) -> None:
    """By enumeration of every outcome: how often the interval leaves out a value that is so far away."""
    said = agreement(Estimate(truth, wilson(truth * n, n), n), truth)
    for value in (truth - said.detectable, truth + said.detectable):
        power = sum(
            float(reference.binom.pmf(k, n, truth))
            for k in range(n + 1)
            if not wilson(k, n).low <= value <= wilson(k, n).high
        )
        assert power == pytest.approx(POWER, abs=0.04)


def test_a_run_is_set_beside_the_paper(tmp_path: Path) -> None:
    samples = grid(40, 1)
    run = write_run(tmp_path / "power-1", samples, verdicts(samples, every=2))
    assert judge(summarise(run)) is None  # a model that the paper does not have
    config = run.path / "config.yaml"
    for model, sampler, value in (
        ("qwen2.5-math-7b", "power", 0.748),
        ("qwen2.5-math-7b-grpo", "base", 0.785),
    ):
        config.write_text(
            f"task: {{name: math500}}\nmodel: {{name: {model}}}\nsampler: {{name: {sampler}}}\n"
            "verifier: {name: math}\n"
        )
        found = judge(summarise(run))
        assert found is not None and found.published == value
        assert found.agreement is Agreement.OUTSIDE
    written = write_report([run], tmp_path / "out").with_name("report.md").read_text()
    assert "### math500 · qwen2.5-math-7b-grpo" in written
    assert "| base | 0.785 [" in written and "] | 0.500 [0.352, 0.648] | outside | ±" in written


def test_samplers_are_compared_on_the_page_and_in_the_report(tmp_path: Path) -> None:
    samples = grid(40, 1)
    runs = [
        write_run(tmp_path / f"{name}-1", samples, verdicts(samples, every=every))
        for name, every in (("base", 4), ("power", 1), ("low_temp", 2))
    ]
    page = write_report(runs, tmp_path / "out")
    report = page.with_name("report.md").read_text()
    exact = 2 * 0.5**30  # 30 problems that power alone has solved
    assert exact < 0.001
    assert "| power over base | +0.750 [" in report
    assert "| < 0.001 | < 0.001 | 40 | McNemar | 1.00 |" in report
    assert "low_temp over base" in report and "power over low_temp" in report
    assert "Samplers compared" in page.read_text() and "power over low_temp" in page.read_text()
