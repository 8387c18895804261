"""The console: log lines as they are, once each, also above a progress bar; tables with whole names.

Run: pytest tests/test_console.py
"""

import io
import logging
import sys

import pytest
from rich.progress import Progress

from powerbench.console import console, show_log
from powerbench.report.tables.table import Column, Table
from powerbench.run.progress import print_any

LOG = logging.getLogger("powerbench.somewhere")
LINE = "[bold]a/b[/bold] :smile: 100% " + "x" * 300


def test_a_line_is_printed_as_it_is_and_once(capsys: pytest.CaptureFixture[str]) -> None:
    """Also where a launcher or a tracker has put a handler on the root, and in a process of many commands."""
    other = logging.StreamHandler(sys.stdout)
    logging.getLogger().addHandler(other)
    try:
        for _ in range(2):
            show_log()
        LOG.info(LINE)
    finally:
        logging.getLogger().removeHandler(other)
    assert capsys.readouterr().out == LINE + "\n"


def test_a_line_appears_above_a_progress_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(console(), "_force_terminal", True)
    monkeypatch.setattr(console(), "is_interactive", True)
    show_log()
    with Progress(console=console(), auto_refresh=False) as bar:
        bar.add_task("at work", total=2)
        bar.refresh()
        LOG.info("news")
        before, after = out.getvalue().split("news")
    assert before.endswith("\x1b[2K")  # in the place of the bar, which was there
    assert "at work" in before
    assert after.startswith("\n") and "at work" in after


def test_a_line_that_cannot_be_printed_stops_no_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*given: object, **more: object) -> None:
        raise OSError(28, "No space left on device")

    show_log()
    monkeypatch.setattr(console(), "print", full)
    LOG.warning("paused")


def test_a_name_is_not_broken_in_a_narrow_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Numbers with their intervals take two lines instead."""
    monkeypatch.setattr(console(), "_width", 80)
    numbers = [Column(f"value {i} [95%]") for i in range(5)]
    rows = [["scalable_power_tokens", *["0.199 [0.097, 0.300]"] * 5]]
    print_any(Table("t", "Values", [Column("sampler"), *numbers], rows))
    said = capsys.readouterr().out
    assert "scalable_power_tokens" in said
    for number in ("0.199", "0.097", "0.300"):
        assert said.count(number) == 5
