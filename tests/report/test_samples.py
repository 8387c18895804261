"""A run's samples are read once: what is kept of them, and how some are read in full.

Run: pytest tests/report/test_samples.py
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fabricate import STEPS, grid, sample, verdicts, write_report, write_run

from powerbench.report.samples import read_samples
from powerbench.report.selection import select
from powerbench.report.summary import Results
from powerbench.store import Run
from powerbench.store.records import Damaged
from powerbench.types import Cost, FinishReason, SampleKey, Span

COST = Cost(
    decoded=40,
    prefilled=9,
    seconds=2.0,
    finished=50.0,
    speculated=3,
    earlier=(Span(1.0, 2.0),),
    attended=99.0,
    passes=12,
    rows=50,
)


def test_what_is_kept_is_what_the_samples_hold(tmp_path: Path) -> None:
    written = [
        sample("p0", length=0, text=""),
        sample("p0", 1, length=1, text="é" * 3, finish_reason=FinishReason.LENGTH),
        sample("p1", length=12, cost=COST, steps=STEPS),
    ]
    found, *_ = read_samples(write_run(tmp_path / "power-1", written))
    assert list(found) == [SampleKey("p0", 0), SampleKey("p0", 1), SampleKey("p1", 0)]
    for stats, one in zip(found.values(), written, strict=True):
        assert (stats.tokens, stats.characters) == (len(one.tokens), len(one.text))
        assert (stats.logp, stats.entropy) == (one.logp, one.entropy)
        assert stats.truncated is (one.finish_reason is FinishReason.LENGTH)
    last = found[SampleKey("p1", 0)]
    assert (last.decoded, last.prefilled, last.speculated, last.contexts) == (40, 9, 3, 99.0)
    assert (last.passes, last.rows) == (12, 50)
    assert (last.proposals, last.accepted) == (3, 1)
    assert last.spans == (Span(1.0, 2.0), Span(48.0, 50.0))


def test_a_report_reads_each_sample_once_and_those_that_it_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = grid(5, 2, steps=STEPS)
    runs = [write_run(tmp_path / f"{n}-1", samples, verdicts(samples)) for n in ("base", "power")]
    read, shown = [], []
    located, at = Run.located, Run.at

    def counted(run: Run, *rest: Any) -> Iterator[Any]:
        read.append(run)
        return located(run, *rest)

    def counted_at(run: Run, places: Any) -> Iterator[Any]:
        for one in at(run, places):
            shown.append((run.path.name, one.problem, one.replicate))
            yield one

    monkeypatch.setattr(Run, "located", counted)
    monkeypatch.setattr(Run, "at", counted_at)
    monkeypatch.setattr(select, "__defaults__", (8,))
    write_report(runs, tmp_path / "out")
    assert sorted(run.path.name for run in read) == ["base-1", "power-1"]
    assert len(shown) == len(set(shown)) == 8


def test_some_are_read_in_full_from_where_they_are_stored(tmp_path: Path) -> None:
    samples = grid(3, 2, steps=STEPS)
    results = Results.read(write_run(tmp_path / "power-1", samples))
    keys = [SampleKey("p2", 1), SampleKey("p0", 0)]
    assert list(results.texts(keys)) == keys
    assert results.texts(keys)[keys[0]] == samples[5]
    assert results.texts([]) == {}


def test_a_line_that_was_damaged_since_is_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path / "base-1", grid(3, 1))
    results = Results.read(run)
    content = run.samples_file().read_bytes()
    run.samples_file().write_bytes(content.replace(b"The answer to p1", b"The answer to p7"))
    keys = list(results.samples)
    assert results.texts(keys[:1])
    with pytest.raises(Damaged, match=r"samples\.jsonl line 2 .*checksum"):
        results.texts(keys)
