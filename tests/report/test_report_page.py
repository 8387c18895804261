"""The page works in a browser: rows, filters, details, the drawing of a chain, no errors.

Run: pytest tests/report/test_report_page.py (needs Debian's `chromium`; skipped where it is absent)
"""

import html
import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest
from fabricate import STEPS, grid, verdicts, write_run, write_scores

from powerbench.report.build import write_report
from powerbench.types import Score

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no `chromium` on the path")

TEXT = "so </script><b>it is</b> 7"


class Rendered(NamedTuple):
    """The document after its script has run, and what the browser's console said."""

    rows: list[str]
    count: str
    details: str
    console: list[str]


def render(page: Path, address: str = "", after: str = "") -> Rendered:
    """Load the page as a file; `after` is a script that plays the reader."""
    played = page.with_name("played.html")
    played.write_text(page.read_text().replace("</body>", f"<script>{after}</script></body>"))
    flags = "--headless --no-sandbox --disable-gpu --disable-background-networking --dump-dom"
    done = subprocess.run(
        [
            str(CHROMIUM),
            *flags.split(),
            "--enable-logging=stderr",
            f"--user-data-dir={page.parent / 'profile'}",
            "--virtual-time-budget=2000",
            f"file://{played}{address}",
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    rows = re.findall(r'<tr class="response.*?</tr>', done.stdout, flags=re.S)
    count = re.search(r'<span id="count" role="status">(.*?)</span>', done.stdout)
    details = re.search(r'<td class="detail".*?</td>', done.stdout, flags=re.S)
    return Rendered(
        [html.unescape(re.sub(r"<[^>]*>", "|", row)) for row in rows],
        count[1] if count else "",
        details[0] if details else "",
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


def test_the_first_page_of_responses_is_listed(page: Path) -> None:
    shown = render(page)
    assert len(shown.rows) == 50
    assert shown.count == "1 to 50 of 60"
    assert "✓" in shown.rows[0] and "|p0|" in shown.rows[0] and TEXT in shown.rows[0]
    assert shown.details == ""
    assert shown.console == []


def test_an_address_opens_its_response(page: Path) -> None:
    shown = render(page, "#response/math500/tiny/power/p3/1")
    text = html.escape(TEXT, quote=False)
    assert f'<pre class="prompt">{text} p3</pre>' in shown.details
    assert f'<pre class="text">{text}</pre>' in shown.details
    assert "? undecided" in shown.details and "timed out" in shown.details
    assert "gold of p3" in shown.details
    assert shown.details.count('<circle class="accepted"') == 1
    assert shown.details.count('<circle class="rejected"') == 2
    assert shown.details.count('<circle class="stayed"') == 1
    assert shown.console == []


def test_a_reader_filters_sorts_and_opens(page: Path) -> None:
    after = """
        const form = document.getElementById("filters");
        form.elements.sampler.value = "base";
        form.elements.text.value = "P14";
        form.dispatchEvent(new Event("input"));
        setTimeout(() => {
            const press = (name) => document.querySelector(`#list th.${name} button`).click();
            press("tokens");
            press("tokens");
            document.querySelector("#list tr.response").click();
        }, 500);
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
        const form = document.getElementById("filters");
        form.elements.verdict.value = "verifiers disagree";
        form.dispatchEvent(new Event("input"));
        setTimeout(() => document.querySelector("#list tr.response").click(), 500);
    """
    page = write_report([run], tmp_path / "out")
    assert "choose “verifiers disagree”" in page.read_text()
    shown = render(page, after=after)
    assert shown.count == "1 to 1 of 1"
    assert "|p2|" in shown.rows[0]
    assert "✗ wrong (units)" in shown.details
    assert shown.console == []
