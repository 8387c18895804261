"""The page works in a browser: rows, filters, details, a chain step by step, no errors; and it is lazy.

Run: pytest tests/report/test_report_page.py (needs Debian's `chromium`; skipped where it is absent)
"""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from fabricate import STEPS, grid, sample, verdicts, write_report, write_run, write_scores

from powerbench.types import Round, Score, Step

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no `chromium` on the path")

TEXT = "so </script><b>it is</b> 7"
WATCH = """
    const parse = JSON.parse, notes = [];
    let parsed = 0;
    JSON.parse = (text) => { parsed += 1; return parse(text); };
    const note = (text) => { notes.push(text); document.body.dataset.notes = JSON.stringify(notes); };
    const choose = (name, value) => {
        const form = document.getElementById("filters");
        form.elements[name].value = value;
        form.dispatchEvent(new Event("input"));
    };
    const when = (count, then) => {
        const listed = () => document.getElementById("count").textContent === count;
        const wait = setInterval(() => { if (listed()) { clearInterval(wait); then(); } }, 10);
    };
"""
"""Counts the pieces of data that the page parses, and gives a script that plays the reader its verbs."""


class Rendered(NamedTuple):
    """The document after its script has run, and what the browser's console said."""

    rows: list[str]
    count: str
    details: str
    notes: list[Any]
    console: list[str]


def render(page: Path, address: str = "", after: str = "") -> Rendered:
    """Load the page as a file; `after` is a script that plays the reader."""
    played = page.with_name("played.html")
    text = page.read_text().replace("<head>", f"<head><script>{WATCH}</script>", 1)
    played.write_text(text.replace("</body>", f"<script>{after}</script></body>"))
    flags = "--headless --no-sandbox --disable-gpu --disable-background-networking --dump-dom"
    done = subprocess.run(
        [
            str(CHROMIUM),
            *flags.split(),
            "--enable-logging=stderr",
            f"--user-data-dir={page.parent / 'profile'}",
            "--virtual-time-budget=20000",
            f"file://{played}{address}",
        ],
        capture_output=True,
        text=True,
        timeout=180,
        check=True,
    )
    rows = re.findall(r'<tr class="response.*?</tr>', done.stdout, flags=re.S)
    count = re.search(r'<span id="count" role="status">(.*?)</span>', done.stdout)
    details = re.search(r'<td class="detail".*?</td>', done.stdout, flags=re.S)
    notes = re.search(r'<body data-notes="(.*?)">', done.stdout, flags=re.S)
    return Rendered(
        [html.unescape(re.sub(r"<[^>]*>", "|", row)) for row in rows],
        count[1] if count else "",
        details[0] if details else "",
        json.loads(html.unescape(notes[1])) if notes else [],
        [line for line in done.stderr.splitlines() if "CONSOLE" in line],
    )


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two samplers, 15 problems, 2 replicates: 60 responses, one of them undecided."""
    folder = tmp_path_factory.mktemp("page")
    plain, chains = grid(15, 2, text=TEXT), grid(15, 2, text=TEXT, steps=STEPS)
    scores = verdicts(chains) | {("p3", 1): Score(reason="timed out")}
    runs = [
        write_run(folder / "base-1", plain, verdicts(plain), prompt=f"{TEXT} {{}}"),
        write_run(folder / "power-2", chains, scores, prompt=f"{TEXT} {{}}"),
    ]
    return write_report(runs, folder / "out")


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """4,000 responses of some 680 tokens, p0 to p499, in 40 chunks; three mention a needle."""
    folder = tmp_path_factory.mktemp("large")
    needles = {("base", 0, 1), ("base", 250, 0), ("low_temp", 499, 3)}
    runs = []
    for name in ("base", "low_temp"):
        samples = [
            sample(
                f"p{i}",
                r,
                length=680,
                text="and so we have " * 180
                + ("a Needle" if (name, i, r) in needles else "an end"),
            )
            for i in range(500)
            for r in range(4)
        ]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                "os.fsync", lambda file: None
            )  # twice a response, and nobody needs it here
            runs.append(write_run(folder / f"{name}-1", samples, verdicts(samples)))
    return write_report(runs, folder / "out")


def test_the_first_page_of_responses_is_listed(page: Path) -> None:
    shown = render(page)
    assert len(shown.rows) == 50
    assert shown.count == "1 to 50 of 60"
    assert "✓" in shown.rows[0] and "|p0|" in shown.rows[0] and TEXT in shown.rows[0]
    assert shown.details == ""
    assert shown.console == []


@pytest.mark.parametrize("loaded", [True, False])
def test_an_address_opens_its_response(page: Path, loaded: bool) -> None:
    address = "#response/math500/tiny/power/p3/1"
    follow = f'choose("sampler", "base"); when("1 to 30 of 30", () => {{ location.hash = "{address}"; }});'
    shown = render(page, address) if loaded else render(page, after=follow)
    text = html.escape(TEXT, quote=False)
    assert f'<pre class="prompt">{text} p3</pre>' in shown.details
    assert f'<pre class="text">{text}</pre>' in shown.details
    assert "? undecided" in shown.details and "timed out" in shown.details
    assert "gold of p3" in shown.details
    assert shown.console == []


def test_a_reader_filters_sorts_and_opens(page: Path) -> None:
    after = """
        choose("sampler", "base");
        choose("text", "P14");
        when("1 to 2 of 2", () => {
            const press = (name) => document.querySelector(`#list th.${name} button`).click();
            press("tokens");
            press("tokens");
            document.querySelector("#list tr.response").click();
        });
    """
    shown = render(page, after=after)
    assert shown.count == "1 to 2 of 2"
    assert [re.findall(r"\|(\d+)\|", row)[:2] for row in shown.rows] == [["1", "19"], ["0", "18"]]
    assert "replicate 1" in shown.details
    assert shown.console == []


def test_a_reader_finds_where_two_verifiers_disagree(tmp_path: Path) -> None:
    samples = grid(3, 1)
    run = write_run(tmp_path / "base-1", samples, verdicts(samples, every=1))
    others = {("p0", 0): Score(correct=True), ("p2", 0): Score(correct=False, reason="units")}
    write_scores(run, "strict", others)
    after = """
        choose("score", "verifiers disagree");
        when("1 to 1 of 1", () => document.querySelector("#list tr.response").click());
    """
    page = write_report([run], tmp_path / "out")
    assert "choose “verifiers disagree”" in page.read_text()
    shown = render(page, after=after)
    assert shown.count == "1 to 1 of 1"
    assert "|p2|" in shown.rows[0]
    assert "✗ wrong (units)" in shown.details
    assert shown.console == []


def test_a_chain_is_drawn(page: Path) -> None:
    shown = render(page, "#response/math500/tiny/power/p3/1")
    drawn = re.sub(r'<g class="now">.*?</g>', "", shown.details, flags=re.S)
    kinds = ["accepted", "rejected", "stayed", "proposed accepted", "proposed rejected"]
    assert [drawn.count(f'<circle class="{kind}"') for kind in kinds] == [1, 2, 1, 1, 1]
    assert "beyond the axis" not in drawn
    assert shown.console == []


def test_a_proposal_far_off_is_drawn_at_the_axis_edge(tmp_path: Path) -> None:
    steps = (*STEPS, Step(1, 2, -7.0, -500.0, 2, False))
    run = write_run(tmp_path / "power-1", [sample(steps=steps)])
    page = write_report([run], tmp_path / "out")
    shown = render(page, "#response/math500/tiny/power/p0/0")
    assert shown.details.count('<circle class="proposed rejected"') == 1
    assert shown.details.count('<path class="proposed rejected"') == 1
    assert "beyond the axis (1)" in shown.details
    assert shown.console == []


def test_a_reader_goes_through_a_chain_step_by_step(page: Path) -> None:
    after = """
        const [back, on] = document.querySelectorAll(".stepper button");
        const slider = document.querySelector(".stepper input");
        const [facts, band, now] = [".facts", ".band", ".now"].map((name) => document.querySelector(name));
        const step = () => note([
            facts.textContent, slider.value, band.getAttribute("x"),
            now.querySelector("circle").getAttribute("class"), `${back.disabled} ${on.disabled}`]);
        step();
        on.click(); step();
        on.click(); step();
        slider.value = 4; slider.dispatchEvent(new Event("input")); step();
        back.click(); step();
    """
    shown = render(page, "#response/math500/tiny/power/p3/1", after)
    facts, values, places, marked, ends = zip(*shown.notes, strict=True)
    assert facts == (
        "step 1 of 4 · block 1 · restart at 1 · 3 tokens decoded"
        " · log p −9.00, proposed −7.00 (+2.00) · accepted",
        "step 2 of 4 · block 1 · restart at 2 · 1 token decoded"
        " · log p −7.00 · rejected early, after 1 token",
        "step 3 of 4 · block 1 · restart at 6 · 0 tokens decoded"
        " · log p −7.00 · stayed: restart past the end",
        "step 4 of 4 · block 2 · restart at 0 · 4 tokens decoded"
        " · log p −7.00, proposed −8.00 (−1.00) · rejected",
        facts[2],
    )
    assert values == ("1", "2", "3", "4", "3")
    assert list(map(float, places[:4])) == sorted(set(map(float, places)))
    assert places[4] == places[2]
    assert marked == ("accepted", "rejected", "stayed", "rejected", "stayed")
    assert ends == ("true false", "false false", "false false", "false true", "false false")
    assert shown.console == []


def test_a_reader_goes_through_rounds_of_candidates(tmp_path: Path) -> None:
    rounds = (
        Round(0, 0, (-9.0, -7.5, -8.0), (0.2, 0.6, 0.2), (1, 1, 2)),
        Round(1, 4, (-12.0, -14.0), (0.9, 0.1), (0,)),
    )
    run = write_run(tmp_path / "power_smc-1", [sample(rounds=rounds)])
    page = write_report([run], tmp_path / "out")
    after = """
        const on = document.querySelectorAll(".stepper button")[1];
        const facts = document.querySelector(".facts");
        note([facts.textContent]); on.click(); note([facts.textContent, String(on.disabled)]);
    """
    shown = render(page, "#response/math500/tiny/power_smc/p0/0", after)
    assert shown.details.count('<circle class="accepted"') == 3
    assert shown.details.count('<circle class="rejected"') == 2
    (first,), (second, ended) = shown.notes
    assert first == (
        "round 1 of 2 · block 1 · from position 0 · 3 candidates · effective number 2.3"
        " · 2 went on: log p −7.50 (weight 0.60), −8.00 (weight 0.20)"
    )
    assert second.startswith("round 2 of 2 · block 2 · from position 4 · 2 candidates")
    assert ended == "true"
    assert shown.console == []


def test_texts_are_in_the_chunks_and_each_prompt_is_held_once_or_twice(large: Path) -> None:
    pieces = dict(
        re.findall(r'<script type="application/json" id="(.*?)">(.*?)</script>', large.read_text())
    )
    index = json.loads(pieces.pop("index"))
    chunks = list(map(json.loads, pieces.values()))
    assert {len(r["excerpt"]) for r in index["responses"]} == {159}
    assert [len(chunk["responses"]) for chunk in chunks] == [100] * 40
    assert min(len(r["text"]) for chunk in chunks for r in chunk["responses"]) > 2500
    assert 500 <= sum(len(chunk["problems"]) for chunk in chunks) < 500 + len(chunks)


def test_a_chunk_is_parsed_when_one_of_its_responses_is_opened(large: Path) -> None:
    after = """
        note(parsed);
        document.getElementById("next").click();
        choose("sampler", "low_temp");
        when("1 to 50 of 2,000", () => {
            note(parsed);
            for (const place of [0, 1]) {
                document.querySelectorAll("#list tr.response")[place].click();
                note(parsed);
            }
        });
    """
    shown = render(large, after=after)
    index = 1
    assert shown.notes == [index, index, index + 1, index + 1]
    assert shown.count == "1 to 50 of 2,000"
    assert "and so we have" in shown.details
    assert shown.console == []


def test_an_address_needs_one_chunk(large: Path) -> None:
    shown = render(large, "#response/math500/tiny/low_temp/p499/3", "note(parsed);")
    assert shown.notes == [2]
    assert shown.count == "3,951 to 4,000 of 4,000"
    assert "a Needle</pre>" in shown.details and "gold of p499" in shown.details
    assert shown.console == []


def test_a_text_is_found_in_chunks_that_are_parsed_one_by_one(large: Path) -> None:
    after = """
        const count = document.getElementById("count");
        new MutationObserver(() => note([parsed, count.textContent])).observe(count, { childList: true });
        choose("text", "needle");
    """
    shown = render(large, after=after)
    before, last = shown.notes[:-1], shown.notes[-1]
    assert [parsed for parsed, _ in shown.notes] == list(range(1, 42))
    assert all(count.endswith("searching …") for _, count in before)
    assert before[1] == [2, "1 to 1 of 1 so far, searching …"]
    assert last == [41, "1 to 3 of 3"]
    assert ["|p0|" in r or "|p250|" in r or "|p499|" in r for r in shown.rows] == [True] * 3
    assert shown.console == []


def test_a_search_reads_no_chunk_that_the_menus_leave_out(tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path / f"{task}/base-1", grid(100, 2), task=task, prompt=f"{task} {{}}")
        for task in ("gpqa", "math500")
    ]
    after = """
        choose("task", "gpqa");
        choose("text", "answer to p7 is");
        when("1 to 2 of 2", () => note(parsed));
    """
    shown = render(write_report(runs, tmp_path / "out"), after=after)
    assert shown.notes == [3]
    assert shown.count == "1 to 2 of 2"
    assert shown.console == []
