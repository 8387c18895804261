"""What papers publish, source by source: every interval, every quote, every disagreement.

Run: pytest tests/report/test_literature.py
"""

import csv
import io
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import yaml
from fabricate import grid, summarise, verdicts, write_run
from scipy import stats as reference

from powerbench.cli import main
from powerbench.config import options
from powerbench.report.literature import (
    apart,
    arm,
    disputes,
    independent,
    literature,
    published_values,
    swap_acceptance,
    values_for,
)
from powerbench.report.tables.sources import all_sources
from powerbench.report.tables.table import text
from powerbench.stats.intervals import Interval

FACTS = Path(__file__).parents[3] / "shared/RIVALS.md"
THREE = ("math500", "humaneval", "gpqa_diamond")

if_facts = pytest.mark.skipif(not FACTS.exists(), reason="the rivals' facts are not at hand")


def cells(source: str, model: str, method: str) -> dict[str, float]:
    return literature().sources[source].values[model][method]


def same(source: str, model: str, method: str, tasks: tuple[str, ...], expected: Any) -> None:
    found = cells(source, model, method)
    assert found == pytest.approx(dict(zip(tasks, expected, strict=True))), (source, model, method)


def test_every_name_is_known() -> None:
    found = literature()
    values = published_values()
    assert {v.model for v in values} == set(found.models)
    assert {v.method for v in values} == set(found.methods)
    assert {v.task for v in values} == set(found.tasks)
    assert all(0 <= v.value <= 1 for v in values)
    assert all(each.cite and each.where for each in found.sources.values())
    assert len({each.short for each in found.sources.values()}) == len(found.sources)
    ours = {m.sampler for m in found.methods.values() if m.sampler}
    assert ours <= set(options("sampler"))


def test_every_interval_is_what_n_implies() -> None:
    """By scipy for a number of right answers; a mean of several runs lies between two such numbers."""
    seen = 0
    for v in published_values():
        if v.estimate is None:
            assert v.quoted or v.n is None or v.task == "alpaca_eval"
            continue
        low, high = (
            reference.binomtest(k, v.n).proportion_ci(0.95, method="wilson")
            for k in (int(v.value * v.n), min(v.n, int(v.value * v.n) + 1))
        )
        assert low.low - 1e-12 <= v.estimate.interval.low <= high.low + 1e-12
        assert low.high - 1e-12 <= v.estimate.interval.high <= high.high + 1e-12
        seen += 1
    assert seen > 250


def test_a_subset_has_a_wider_interval() -> None:
    logs = next(v for v in published_values() if v.source == "azizi2026_logs")
    assert (logs.model, logs.task, logs.n) == ("qwen2.5-7b", "math500", 378)
    expected = reference.binomtest(round(0.405 * 378), 378).proportion_ci(0.95, method="wilson")
    assert logs.estimate is not None
    assert logs.estimate.interval == pytest.approx((expected.low, expected.high))


def test_who_prints_the_papers_three_numbers_quotes_it() -> None:
    paper = literature().sources["karan2025"].values
    for name, source in literature().sources.items():
        for model, methods in source.values.items() if name != "karan2025" else ():
            for method, tasks in methods.items():
                own = paper.get(model, {}).get(method, {})
                copied = len(tasks) > 1 and all(own.get(t) == value for t, value in tasks.items())
                quoted = source.quotes.get(model, {}).get(method) == "karan2025"
                assert copied == quoted, (name, model, method)


def test_a_quoted_value_is_never_a_second_measurement() -> None:
    groups = independent()
    assert all(v.quoted is None for group in groups for v in group)
    assert any(v.quoted for v in published_values())
    where = {(g[0].model, g[0].task, arm(g[0].method)) for g in groups}
    assert ("qwen2.5-math-7b", "math500", "power") in where  # RwS, and PPT with the official code
    assert ("deepseek-math-7b", "math500", "power") not in where  # SPS alone


def test_values_that_both_intervals_leave_out_are_disputed() -> None:
    found = {frozenset((one.source, other.source)) for one, other in disputes()}
    assert frozenset(("ji2026", "cbs2026")) in found  # .708 and .450 for one arm
    assert frozenset(("karan2025", "karan2025_issue")) in found  # .496 and .314
    for one, other in disputes():
        assert one.estimate and other.estimate and one.source != other.source
        assert (one.model, one.task) == (other.model, other.task)
        gap = abs(one.value - other.value)
        assert gap > (one.estimate.interval.high - one.estimate.interval.low) / 2
    assert not apart(Interval(0.1, 0.3), Interval(0.3, 0.5))
    assert apart(Interval(0.31, 0.5), Interval(0.1, 0.3))


def test_the_table_says_who_disagrees_and_who_quotes() -> None:
    rows = [r for r in all_sources().rows if r[:3] == ("Qwen2.5-7B", "MATH500", "base")]
    shown = {text(row[3]): (text(row[4]), text(row[6]), text(row[7])) for row in rows}
    assert shown["SPS, quotes RwS"] == ("0.498", "500", "–")
    assert shown["RwS"][2] == "Entropy-Cut 0.359, CBS 0.326"
    assert shown["Power-SMC logs"][1] == "378 of 500"
    assert shown["PPT"][1] == "500 × 5"


def test_the_command_shows_and_writes_all_sources(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    main(["report", "--published", "--out", str(tmp_path)])
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= 100
    assert "Qwen2.5-7B · MATH500" in said and "SPS, quotes RwS" in said
    assert "Entropy-Cut 0.359" in said and "arXiv 2609.38104, Table 8" in said
    read = list(csv.DictReader(io.StringIO((tmp_path / "sources.csv").read_text())))
    assert len(read) == len(published_values())
    quoted = [row for row in read if row["quotes"]]
    assert quoted and not any(row["value, low"] for row in quoted)
    assert "# All sources" in (tmp_path / "published.md").read_text()
    assert "0.446" in (tmp_path / "swaps.csv").read_text()
    (small,) = (row for row in read if (row["method"], row["task"]) == ("RLOO on p^alpha", "GSM8K"))
    assert (small["pass@4"], small["pass@32"], small["n"]) == ("0.5925", "0.858", "500")


def test_a_run_finds_the_values_of_its_arm(tmp_path: Path) -> None:
    samples = grid(4, 1)

    def found(sampler: str, model: str = "qwen2.5-7b", **settings: Any) -> list[str]:
        folder = tmp_path / f"{model}-{settings}" / f"{sampler}-1"
        run = write_run(folder, samples, verdicts(samples), model=model, settings=settings)
        return [v.source for v in values_for(summarise(run))]

    every = ["karan2025", "zhou2026", "azizi2026_logs", "ppt2026"]
    assert found("power") == every and found("power_official") == every
    assert found("base", "qwen2.5-math-7b-grpo") == ["karan2025", "ppt2026"]
    assert found("best_of_n", n=32) == ["ji2026"]
    assert found("best_of_n", n=8) == []
    assert found("scalable_power", proposal_temperature=0.25) == ["cbs2026"]
    assert found("power", "smollm2-135m") == []


def test_published_swaps_are_found_by_task_and_model() -> None:
    assert swap_acceptance("humaneval", "qwen2.5-7b") == 0.580
    assert swap_acceptance("math500", "smollm2-135m") is None
    assert literature().swap_acceptance.source in literature().sources


# -- against the facts as they were collected --------------------------------------------------------


@if_facts
def test_the_facts_in_yaml_are_ours() -> None:
    facts = yaml.safe_load(re.findall(r"```yaml\n(.*?)```", FACTS.read_text(), re.S)[0])
    ours = {
        "ji2026_sps": "ji2026",
        "xiao2026_aps": "xiao2026",
        "guo2026_egps": "guo2026",
        "zhou2026_entropy_cut": "zhou2026",
        "azizi2026_logs": "azizi2026_logs",
    }
    assert set(facts) == {"karan2025", *ours}
    for name, source in ours.items():
        models = facts[name]
        assert set(models) == set(literature().sources[source].values)
        for model, methods in models.items():
            named = {{"best_of_n32": "best_of_n"}.get(m, m): each for m, each in methods.items()}
            assert set(named) == set(literature().sources[source].values[model])
            for method, values in named.items():
                if isinstance(values, dict):
                    tasks = tuple({"gpqa": "gpqa_diamond"}.get(t, t) for t in values)
                    same(source, model, method, tasks, values.values())
                else:
                    same(source, model, method, THREE, values)


@if_facts
def test_the_facts_in_tables_are_ours() -> None:
    facts = FACTS.read_text()
    six = ("math500", "gpqa_diamond", "humaneval", "gsm8k", "aime_2024_2025", "livecodebench_v5")
    titles = {
        each.title.removesuffix("-instruct"): name for name, each in literature().models.items()
    }
    rows = re.findall(r"^\| ([\w.-]+)(?: \(GPQA/AIME/LCB\))? \| ([\d./]+ \|.*)\|$", facts, re.M)
    methods = ("base", "low_temp", "power_official", "power_smc", "grpo", "parallel_tempering")
    seen = defaultdict(set)
    for name, rest in rows:
        cells_ = [cell.strip() for cell in rest.split("|")]
        if name not in titles or len(cells_) != 6:
            continue
        for method, cell in zip(methods, cells_, strict=True):
            if cell != "–":
                values = [float(x) / 100 for x in cell.split("/")]
                tasks = six if len(values) == 6 else ("gpqa_diamond", *six[4:])
                same("ppt2026", titles[name], method, tasks, values)
                seen[titles[name]].add(method)
    ppt = literature().sources["ppt2026"].values
    assert seen == {model: set(each) for model, each in ppt.items()}
    five = ("math500", "gsm8k", "aime_2022_2024", "gpqa_diamond", "humaneval")
    (ccps,) = re.findall(r"^CCPS \(%.*$", facts, re.M)
    for name, first, second in re.findall(r"(Qwen[\w.-]+) ([\d./]+), ([\d./]+)[;.]", ccps):
        for method, cell in (("power_smc_2", first), ("ccps", second)):
            values = [float(x) / 100 for x in cell.rstrip(".").split("/")]
            same("ahmadi2026", titles[name], method, five, values)
    (cbs,) = re.findall(r"^CBS' table: (.*)\.$", facts, re.M)
    ours = literature().sources["cbs2026"].values["qwen2.5-7b"]
    found = [[float(x) for x in each.split()[-1].split("/")] for each in cbs.split(", ")]
    assert [[each[t] for t in THREE] for each in ours.values()] == found


@if_facts
def test_the_small_models_facts_and_swaps_are_ours() -> None:
    facts = FACTS.read_text()
    (line,) = re.findall(r"^Small model.*$", facts, re.M)
    small = literature().sources["sangsq"]
    numbers = re.findall(r"([\d.]+)/([\d.]+)/([\d.]+\d)", line.split("pass@1/4/32:")[1])
    for (one, four, most), (method, values) in zip(
        numbers, small.values["qwen2.5-0.5b"].items(), strict=True
    ):
        k = small.pass_at_k["qwen2.5-0.5b"][method]["gsm8k"]
        found = [100 * x for x in (values["gsm8k"], k[4], k[32])]
        assert found == pytest.approx([float(one), float(four), float(most)])
    (line,) = re.findall(r"^Swap acceptance.*$", facts, re.M)
    swaps = literature().swap_acceptance.values
    named = re.findall(r"(\w+) (\.\d+)", line.split("run's: ")[1].split(";")[0])
    assert [float(x) for _, x in named] == list(swaps["qwen2.5-math-7b"].values())
    others = re.findall(r"(?:Qwen2.5|Phi) ((?:\.\d+/){5}\.\d+)", line)
    assert [[float(x) for x in each.split("/")] for each in others] == [
        list(swaps["qwen2.5-7b"].values()),
        list(swaps["phi-3.5-mini"].values()),
    ]


@if_facts
def test_deepconfs_facts_are_ours() -> None:
    facts = FACTS.read_text()
    (line,) = re.findall(r"^Published \(paper, via.*$", facts, re.M)
    offline, online = line.split(" Online ")
    found = re.findall(
        r"(?:(DeepSeek-8B|Qwen3-32B|gpt-oss-120b) )?(\w+\d\d) ((?:[\d.]+/){4}[\d.]+)", offline
    )
    methods = ("pool", "majority", "deepconf_mean", "deepconf_bottom", "deepconf_tail")
    model = ""
    for name, task, values in found:
        model = name.lower() or model
        for method, x in zip(methods, values.split("/"), strict=True):
            assert cells("fu2025", model, method)[task.lower()] == pytest.approx(
                float(x.rstrip(".")) / 100
            )
    assert len(found) == 6
    numbers = {float(x) for x in re.findall(r"(\d\d\.\d)(?=[;, ])", online)}
    for methods_ in literature().sources["fu2025"].values.values():
        for method in ("online_majority", "deepconf_online_high", "deepconf_online_low"):
            for x in methods_.get(method, {}).values():
                assert round(100 * x, 1) in numbers
