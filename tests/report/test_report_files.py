"""A report is a markdown file, figures and a page, for any state of the runs.

Run: pytest tests/report/test_report_files.py
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from fabricate import STEPS, grid, sample, summarise, verdicts, write_report, write_run

from powerbench.errors import UserError
from powerbench.report.page.data import embed, score_name
from powerbench.report.tables.results import results as results_table
from powerbench.store import Run
from powerbench.types import Score

FIGURES = (
    "teaser",
    "pass_at_k",
    "log_likelihood",
    "confidence",
    "compute",
    "compute_likelihood",
    "passes",
    "passes_likelihood",
    "chains",
)
FORMATS = ("png", "svg", "pdf")
HOSTILE = "</script><b>bold</b><script>throw 1</script><!-- & \u2028 {{ 7 * 7 }}"


def row(out: Path, sampler: str) -> dict[str, str]:
    """The cells of a sampler's row in report.md, by heading."""
    lines = (out / "report.md").read_text().splitlines()
    headings, line = (
        next(line for line in lines if line.startswith(f"| {name} |")).strip("| ").split(" | ")
        for name in ("sampler", sampler)
    )
    return dict(zip(headings, line, strict=True))


def data(page: Path, name: str = "index") -> dict[str, Any]:
    """A piece of the JSON inside the page: its index, or chunk-0, chunk-1, ..."""
    found = re.search(
        rf'<script type="application/json" id="{name}">(.*?)</script>', page.read_text()
    )
    assert found is not None
    return json.loads(found[1])


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of two samplers with three problems, two replicates, and one undecided verdict."""
    folder = tmp_path_factory.mktemp("report")
    plain, chains = grid(3, 2), grid(3, 2, steps=STEPS)
    scores = verdicts(chains) | {("p1", 0): Score(reason="timeout")}
    runs = [
        write_run(folder / "power-2", chains, scores),
        write_run(folder / "base-1", plain, verdicts(plain, every=3)),
    ]
    return write_report(runs, folder / "out")


def test_the_files_are_written(written: Path) -> None:
    names = {f"{name}.{kind}" for name in FIGURES for kind in FORMATS}
    assert written.name == "page.html"
    assert {f.name for f in (written.parent / "figures").iterdir()} == names
    report = (written.parent / "report.md").read_text()
    assert all(f"(figures/{name}.png)" in report for name in FIGURES)


def test_the_table_states_value_interval_undecided_and_n(written: Path) -> None:
    cells = row(written.parent, "power")
    assert re.fullmatch(r"0\.333 \[0\.\d{3}, 0\.\d{3}\]", cells["value [95%]"])
    assert (cells["undecided"], cells["n"]) == ("1", "3 × 2")
    assert cells["pass@k"] == "1.000 (k=2, n=2)"
    assert cells["acceptance"] == "0.33"
    assert row(written.parent, "base")["acceptance"] == "–"


def test_samplers_are_listed_in_the_order_of_the_paper(tmp_path: Path) -> None:
    names = ["zeta-1", "power_official-1", "power-1", "low_temp-1", "base-1", "greedy-1", "alpha-1"]
    summaries = [summarise(write_run(tmp_path / name, [sample()])) for name in names]
    (group,) = results_table(summaries).groups()
    expected = ["greedy", "base", "low_temp", "power", "power_official", "alpha", "zeta"]
    assert [row[0] for row in group.rows] == expected


def test_the_same_runs_give_the_same_report(written: Path, tmp_path: Path) -> None:
    runs = [Run(written.parent.parent / name) for name in ("base-1", "power-2")]
    assert write_report(runs, tmp_path).read_bytes() == written.read_bytes()


def test_the_page_is_self_contained(written: Path) -> None:
    page = written.read_text()
    assert "default-src 'none'" in page
    loaded = re.findall(
        r'(?:src|href)="([^"#][^"]*)"', re.sub(r"<svg.*?</svg>", "", page, flags=re.S)
    )
    assert loaded == ["data:,"]
    assert page.count("<svg") >= len(FIGURES)


@pytest.mark.parametrize("problems", [1, 2])
def test_runs_without_scores_or_with_one_problem_have_a_report(
    problems: int, tmp_path: Path
) -> None:
    page = write_report([write_run(tmp_path / "base-1", grid(problems, 1))], tmp_path / "out")
    cells = row(page.parent, "base")
    assert (cells["value [95%]"], cells["undecided"]) == ("–", "not scored")
    assert not (page.parent / "figures" / "pass_at_k.svg").exists()
    assert len(data(page)["responses"]) == problems


def test_a_run_that_has_only_begun_has_a_report(tmp_path: Path) -> None:
    page = write_report([write_run(tmp_path / "base-1", [])], tmp_path / "out")
    assert row(page.parent, "base")["n"] == "0"


def test_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="at least one run"):
        write_report([], tmp_path)


def test_a_prompt_that_runs_share_is_held_once(written: Path) -> None:
    index, chunk = data(written), data(written, "chunk-0")
    assert len(index["problems"]) == len(chunk["problems"]) == 3
    assert len(index["responses"]) == len(chunk["responses"]) == 12


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    run = write_run(
        tmp_path / "base-1",
        [sample(text=HOSTILE)],
        {("p0", 0): Score(correct=False, answer=HOSTILE, reason=HOSTILE)},
        prompt=HOSTILE,
    )
    (run.path / "manifest.json").write_text(json.dumps({"command": HOSTILE}))
    page = write_report([run], tmp_path / "out")
    text = page.read_text()
    assert "<b>bold" not in text and "<script>throw" not in text
    assert text.count("</script>") == 3  # the index's, the chunk's, and the script's own
    chunk = data(page, "chunk-0")
    (response,) = chunk["responses"]
    assert response["text"] == response["answer"] == response["reason"] == HOSTILE
    assert chunk["problems"]["0"]["prompt"] == HOSTILE


def test_embedded_json_round_trips() -> None:
    value = {"a": [HOSTILE, None, 1.5]}
    assert json.loads(embed(value)) == value
    with pytest.raises(ValueError):
        embed(float("nan"))


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        (None, "not scored"),
        (Score(), "undecided"),
        (Score(correct=True), "correct"),
        (Score(correct=False), "wrong"),
        (Score(preference=0.51), "win"),
        (Score(preference=0.5), "tie"),
        (Score(preference=0.49), "loss"),
    ],
)
def test_scores_have_names(score: Score | None, expected: str) -> None:
    assert score_name(score) == expected
