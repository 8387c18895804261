"""Every figure is drawn where the runs allow it, in three formats, of the numbers that the runs hold.

Run: pytest tests/report/test_figures.py
"""

from pathlib import Path

import pytest
from fabricate import STEPS, grid, verdicts, write_report, write_run
from matplotlib.figure import Figure

from powerbench.report.figures import curves, responses
from powerbench.report.figures.dots import Dots
from powerbench.report.figures.style import Panel, Style, panels
from powerbench.report.figures.style import curves as curves_of
from powerbench.report.labels import main_runs
from powerbench.report.series import series
from powerbench.report.summary import Results
from powerbench.stats.intervals import Estimate, Interval
from powerbench.store import Run, records
from powerbench.types import Cost, Likelihood, Score

FORMATS = ("png", "svg", "pdf")
SHARED = {"max_tokens": 128, "alpha": 4.0, "blocks": 4, "steps": 4}
SIZE = {"parameters": 100, "multiplied": 100, "layers": 1, "attention": 8}


def power(folder: Path, name: str, every: int = 2, **changed: float) -> Run:
    samples = grid(6, 1, steps=STEPS, cost=Cost(40, 7, 1.0, 100.0, 0.0, passes=20))
    return write_run(
        folder / f"power-{name}",
        samples,
        verdicts(samples, every),
        settings=SHARED | changed,
        manifest={"model": {"size": SIZE}},
        **SHARED,
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """Base with four replicates, power at three alphas and four numbers of steps, and a trained model."""
    folder = tmp_path_factory.mktemp("runs")
    samples = grid(6, 4)
    base = write_run(
        folder / "base-0", samples, verdicts(samples, 3), manifest={"model": {"size": SIZE}}
    )
    found = [base, power(folder, "4")]
    found += [power(folder, f"a{alpha}", alpha=alpha) for alpha in (1.0, 8.0)]
    found += [power(folder, f"s{steps}", every=1, steps=steps) for steps in (0, 1, 8)]
    trained = write_run(folder / "trained" / "base-1", grid(3, 1), model="tiny-rl")
    found.append(trained)
    file = trained.likelihoods_file("tiny")
    file.parent.mkdir()
    with records.appending(file, print, lambda: None) as likelihoods:
        for i in range(3):
            likelihoods.write(Likelihood(f"p{i}", 0, False, (-1.0, -2.0 - i), (0.5, 1.5)))
    return found


def test_all_figures_are_drawn_in_all_formats(runs: list[Run], tmp_path: Path) -> None:
    page = write_report(runs, tmp_path)
    expected = {
        "teaser",
        "pass_at_k",
        "log_likelihood",
        "confidence",
        "log_likelihood_under",
        "confidence_under",
        "against_alpha",
        "against_steps",
        "gain_steps",
        "compute",
        "compute_likelihood",
        "passes",
        "passes_likelihood",
        "chains",
    }
    files = {f.name for f in (tmp_path / "figures").iterdir()}
    assert files == {f"{name}.{kind}" for name in expected for kind in FORMATS}
    assert (tmp_path / "figures/compute.pdf").read_bytes().startswith(b"%PDF")
    text = page.read_text()
    assert text.count("<figure>") == len(expected)
    for name in ("results", "matched", "cost", "lengths", "chains", "fidelity"):
        assert (tmp_path / f"tables/{name}.csv").stat().st_size > 20
        assert "\\toprule" in (tmp_path / f"tables/{name}.tex").read_text()


def test_the_same_runs_give_the_same_figures(runs: list[Run], tmp_path: Path) -> None:
    for out in ("one", "two"):
        write_report(runs[::-1] if out == "two" else runs, tmp_path / out)
    for kind in FORMATS:
        for file in (tmp_path / "one/figures").glob(f"*.{kind}"):
            assert file.read_bytes() == (tmp_path / "two/figures" / file.name).read_bytes(), (
                file.name
            )


def test_responses_of_another_model_are_shown_under_the_one_that_scored_them(
    runs: list[Run],
) -> None:
    results = main_runs(list(map(Results.read, runs)))
    ((likelihood, confidence),) = responses._under_others(results)
    assert likelihood.title == "math500 · under tiny"
    assert [s.label for s in likelihood.curves] == ["base", "power", "base of tiny-rl"]
    assert likelihood.curves[2].values == [-1.5, -2.0, -2.5]
    assert confidence.curves[2].values == [-1.0] * 3
    assert likelihood.curves[0].values == pytest.approx([-0.5] * 24)


@pytest.mark.parametrize(("currency", "name"), [(curves.FLOPS, "flops"), (curves.PASSES, "passes")])
def test_costs_show_best_of_n_and_the_steps_of_a_chain(
    runs: list[Run], currency: curves.Currency, name: str
) -> None:
    results = list(map(Results.read, runs))
    by_steps = [s for s in series(results) if s.setting == "steps"]
    (panel,) = (p for p in panels(curves_of(main_runs(results))) if p.title == "math500 · tiny")
    base, chain = (curves._values(c, by_steps, currency) for c in panel.curves)
    cost = getattr(results[0].summary, name)
    assert base.x == pytest.approx([n * cost / 24 for n in (1, 2, 3, 4)])
    assert chain.x == pytest.approx([getattr(results[1].summary, name) / 6] * 4)
    assert len(chain.x) == 4 and chain.y[0].mean == 1.0  # no steps: every response is right


def test_a_single_point_has_no_panel_beside_others() -> None:
    """Alone it has one."""
    style, value = Style("black", "-", "o"), Estimate(0.5, Interval(0.4, 0.6), 9)

    def panel(*counts: int) -> Panel[Dots]:
        dots = [Dots(str(n), style, [1.0] * n, [value] * n) for n in counts]
        return Panel(str(counts), dots)

    one, curve, two = panel(1), panel(4), panel(1, 1)
    assert curves._with_something_beside([one, curve, two]) == [curve, two]
    assert curves._with_something_beside([one]) == [one]


@pytest.mark.parametrize("x", [[243.0], [99.0, 101.0], [71.0, 149.0], [1.2e10], [3.0, 50.0]])
def test_a_cost_stands_between_numbers(x: list[float]) -> None:
    axes = Figure().subplots()
    style = Style("black", "-", "o")
    curves._against_cost(axes, [Dots("base", style, x, [Estimate(0.5, (0.4, 0.6), 9)] * len(x))])
    numbers = [float(label.get_text()) for label in axes.get_xticklabels()]
    low, high = axes.get_xlim()
    assert len([n for n in numbers if low <= n <= high]) >= 2


def test_a_few_very_unlikely_responses_do_not_squeeze_a_histogram() -> None:
    """They are counted in the first bin: nothing is lost."""
    axes, style = Figure().subplots(), Style("black", "-", "o")
    values = [*(-1 + i / 1000 for i in range(999)), -50.0]
    responses._histogram(axes, [responses.Spread("base", style, values)])
    outline = axes.patches[-1].get_data()
    assert outline.edges[0] > -1.0
    assert sum(outline.values) == pytest.approx(1.0)
    assert outline.values[0] > 1.3 * outline.values[1:].max()
    few = responses.Spread("few", style, [-20.0] * 8)
    assert responses._range([values, few.values])[0] == -20.0


def test_figure_1_has_a_model_and_its_trained_checkpoint(tmp_path: Path) -> None:
    samples = grid(6, 1)

    def run(model: str, sampler: str, task: str = "math500") -> Run:
        path = tmp_path / task / model / f"{sampler}-1"
        return write_run(path, samples, verdicts(samples), model=model, task=task)

    own = [run("qwen2.5-math-7b", name) for name in ("base", "power", "low_temp")]
    write_report(own, tmp_path / "without")
    assert not (tmp_path / "without/figures/figure_1.svg").exists()
    alone = run("qwen2.5-math-7b", "base", "humaneval")
    every = [*own, alone, run("qwen2.5-math-7b-grpo", "base")]
    (panel,) = curves._with_grpo(curves_of(main_runs(list(map(Results.read, every)))))
    assert panel.title == "qwen2.5-math-7b"
    assert [(c.label, c.summary.task) for c in panel.curves] == [
        ("base", "math500"),
        ("power", "math500"),
        ("GRPO", "math500"),
    ]
    write_report(every, tmp_path / "with")
    assert (tmp_path / "with/figures/figure_1.svg").exists()


def test_a_setting_with_two_values_is_no_curve(runs: list[Run], tmp_path: Path) -> None:
    page = write_report(runs[:3], tmp_path)
    assert not (tmp_path / "figures/against_alpha.png").exists()
    assert "Against" not in page.read_text()


def test_each_folder_of_runs_has_a_report_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from powerbench.cli import main as command

    for name in ("mini", "paper"):
        write_run(
            tmp_path / name / "math500/tiny/base-1", grid(2, 1), {("p0", 0): Score(correct=True)}
        )
    command(["report", "--each", str(tmp_path)])
    for name in ("mini", "paper"):
        assert (tmp_path / name / "report/page.html").is_file()
    assert not (tmp_path / "report").exists()
    with pytest.raises(SystemExit):
        command(["report", "--each", str(tmp_path), "--out", str(tmp_path)])
    assert "--each writes into the runs' own folders" in capsys.readouterr().err
