"""Reports, exports and comparisons of runs whose tokens, log-probabilities and FLOPs are not known.

Run: pytest tests/endpoint/test_endpoint_reports.py
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from fake_endpoint import served
from fake_model import GOLD, TASK, Asking, FakeModel, Said

from powerbench.cli import main
from powerbench.report.models import read_all
from powerbench.store import find_runs

PRICES = ["model.price_prompt=2", "model.price_completion=8"]
ONE = (50 * 2 + 20 * 8) / 1e6


def says(question: str, nth: int) -> Said:
    thinks = {"reasoning_content": "So </script> it is."}
    return Said(
        f"\\boxed{{{GOLD[question]}}}",
        message=thinks,
        likely=[("t", -1.0 - nth, {"t": -1.0 - nth})],
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Of the endpoint, with several samplers, beside those of a model that is at hand."""
    folder = tmp_path_factory.mktemp("reports")
    with served(FakeModel(says=says)) as fake:
        assert isinstance(fake, FakeModel)
        asking = Asking(fake, folder)
        for sampler in ("base", "best_of_n", "self_consistency"):
            several = ["sampler.n=3"] if sampler != "base" else ["replicates=4"]
            main(asking.command(f"sampler={sampler}", *several, *PRICES))
    toy = ["model=toy", "engine=toy", "tracker=none", "max_tokens=8", f"runs={folder / 'runs'}"]
    for sampler in ("base", "power"):
        main(["run", *toy, *TASK, f"sampler={sampler}", "blocks=2", "replicates=4"])
    yield folder / "runs"


def test_the_summary_has_the_bill_and_no_guess(runs: Path) -> None:
    found = {(r.summary.model, r.summary.sampler): r.summary for r in read_all(find_runs([runs]))}
    best = found["thinker", "best_of_n"]
    assert (best.decoded, best.prefilled, best.decoded_per_token) == (3 * 60, 3 * 150, 3.0)
    assert best.dollars == pytest.approx(9 * ONE)
    unknown = (best.logp, best.logp_interval, best.confidence, best.flops, best.gpu_hours)
    assert unknown == (None,) * 5
    assert found["toy", "power"].dollars is None
    assert found["toy", "base"].logp is not None
    assert found["thinker", "base"].truncated == 0.0


def test_the_report_shows_both_kinds_of_models(runs: Path, tmp_path: Path) -> None:
    main(["report", str(runs), "--out", str(tmp_path)])
    report = (tmp_path / "report.md").read_text()
    assert "thinker" in report
    assert "dollars" in report
    asked = "\n".join(line for line in report.splitlines() if "thinker" in line)
    assert "None" not in asked and "nan" not in asked
    page = (tmp_path / "page.html").read_text()
    assert "So \\u003c/script\\u003e it is." in page
    index = json.loads(re.search(r'<script[^>]*id="index"[^>]*>(.*?)</script>', page, re.S)[1])  # type: ignore[index]
    there_are = [i for i, run in enumerate(index["runs"]) if run["model"] == "thinker"]
    for row in index["responses"]:
        there = row["run"] in there_are
        assert (row["logpPerToken"] is None) == (row["confidence"] is None) == there
        assert row["tokens"] == 20 if there else row["tokens"] <= 8


def test_a_report_of_the_endpoint_alone_draws_no_log_likelihood(runs: Path, tmp_path: Path) -> None:
    main(["report", str(runs / "math_mini" / "thinker"), "--out", str(tmp_path)])
    drawn = {file.stem for file in tmp_path.rglob("*.svg")}
    assert "pass_at_k" in drawn
    assert not drawn & {"log_likelihood", "confidence", "compute_likelihood"}


def test_a_comparison_takes_no_response_for_the_likeliest(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["compare", str(runs / "math_mini" / "thinker"), "--out", str(tmp_path)])
    assert "best_of_n" in capsys.readouterr().out
    table = json.loads(
        json.dumps(
            [line.split(",") for line in (tmp_path / "compare_tokens.csv").read_text().splitlines()]
        )
    )
    head = table[0]
    base = next(row for row in table if "base" in row)
    assert float(base[head.index("responses")]) == pytest.approx(3.0)
    assert base[head.index("value")] == ""


def test_an_export_has_text_reasoning_and_bill(runs: Path, tmp_path: Path) -> None:
    main(["export", str(runs / "math_mini" / "thinker"), "--out", str(tmp_path)])
    rows = [row for f in tmp_path.glob("data/*best_of_n*") for row in pq.read_table(f).to_pylist()]
    assert len(rows) == 3
    for row in rows:
        assert (row["logp"], row["entropy"], row["tokens"]) == (None, None, [])
        assert (row["length"], row["decoded"]) == (20, 60)
        assert row["reasoning"] == "So </script> it is."
        assert row["dollars"] == pytest.approx(3 * ONE)


def test_every_folder_is_sound(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["verify", str(runs)])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    assert all(line.endswith(": sound") for line in lines)
