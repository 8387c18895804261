"""Which runs are a sampler's own, which are variants of it, and how they are told apart.

Run: pytest tests/report/test_variants.py
"""

import re
from pathlib import Path
from typing import Any

import pytest
from fabricate import grid, sample, summarise, verdicts, write_run

from powerbench.config import compose, conf_dir
from powerbench.report.labels import labels, main_runs, sampler_sort_key
from powerbench.report.series import series
from powerbench.report.summary import Results
from powerbench.report.variants import changes, format_settings, sampler_order
from powerbench.store import Run


def power(path: Path, name: str, alpha: float = 4.0, **changed: Any) -> Run:
    """A run of power sampling; its shared alpha is 4."""
    settings = {"max_tokens": 128, "alpha": alpha, "blocks": 4, "steps": 4, "top_k": None} | changed
    shared = {"max_tokens": 128, "alpha": 4.0, "blocks": 4, "steps": 4}
    samples = grid(3, 1)
    return write_run(
        path / f"power-{name}", samples, verdicts(samples), settings=settings, **shared
    )


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], {}),
        (["alpha=2", "max_tokens=64", "blocks=2"], {}),
        (["sampler.alpha=2"], {"alpha": 2}),
        (
            ["sampler.early_rejection=false", "sampler.top_k=50"],
            {"top_k": 50, "early_rejection": False},
        ),
        (["sampler=power_official"], {}),
        (["sampler=power_official", "without=top_k"], {"top_k": None}),
        (["task=alpaca_eval"], {}),
        (["sampler=base", "sampler.top_k=50"], {"top_k": 50}),
    ],
)
def test_what_is_set_for_a_sampler_alone_is_a_change(
    overrides: list[str], expected: dict[str, Any]
) -> None:
    assert changes(compose(overrides).settings()) == expected


def test_a_sampler_without_a_yaml_changes_nothing() -> None:
    assert changes({"sampler": {"name": "mine", "alpha": 3}}) == {}


def test_every_sampler_has_a_place_of_its_own_in_the_order() -> None:
    yamls = (conf_dir() / "sampler").glob("*.yaml")
    places = [re.findall(r"^# order: (\d+)$", file.read_text(), re.M) for file in yamls]
    assert all(len(place) == 1 for place in places)
    assert len({place for (place,) in places}) == len(places)
    assert sampler_order()[:4] == ["greedy", "base", "low_temp", "power"]


def test_a_sampler_without_a_place_follows_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sampler").mkdir()
    for name, order in (("b", ""), ("a", ""), ("y", "# order: 2\n"), ("z", "# order: 1\n")):
        (tmp_path / "sampler" / f"{name}.yaml").write_text(f"# a sampler\n{order}")
    monkeypatch.setattr("powerbench.report.variants.conf_dir", lambda: tmp_path)
    assert sampler_order() == ["z", "y", "a", "b"]
    assert sorted(["c", "b", "y"], key=sampler_sort_key) == ["y", "b", "c"]


def test_settings_are_written_as_on_the_command_line() -> None:
    assert format_settings({"alpha": 2.0, "top_k": None, "eos_only": False, "k": 3}) == (
        "alpha=2, top_k=null, eos_only=false, k=3"
    )


def test_labels_say_what_is_changed_or_differs_or_else_the_hash(tmp_path: Path) -> None:
    runs = [power(tmp_path, "a"), power(tmp_path, "b", alpha=2.0), power(tmp_path, "c", top_k=50)]
    assert labels([summarise(r) for r in runs]) == ["power", "power alpha=2", "power top_k=50"]
    alike = [
        write_run(tmp_path / f"mine-{x}", [sample()], settings={"k": k}) for x, k in ("d1", "e2")
    ]
    assert labels([summarise(r) for r in alike]) == ["mine k=1", "mine k=2"]
    same = [write_run(tmp_path / f"own-{x}", [sample()], settings={"k": 1}) for x in "fg"]
    assert labels([summarise(r) for r in same]) == ["own f", "own g"]


def test_variants_stand_aside_where_a_sampler_has_a_run_of_its_own(tmp_path: Path) -> None:
    own, other = power(tmp_path, "a"), power(tmp_path, "b", alpha=2.0)
    read = [Results.read(r) for r in (own, other)]
    assert [r.run for r in main_runs(read)] == [own]
    assert [r.run for r in main_runs(read[1:])] == [other]


def test_runs_that_differ_in_one_number_are_a_curve(tmp_path: Path) -> None:
    runs = [power(tmp_path, f"a{a}", alpha=a) for a in (8.0, 1.0, 4.0)]
    runs += [power(tmp_path, "s", steps=8), power(tmp_path, "x", alpha=2.0, steps=8)]
    (found,) = series([Results.read(r) for r in runs])
    assert (found.sampler, found.setting) == ("power", "alpha")
    assert [p.x for p in found.points] == [1.0, 4.0, 8.0]
    assert found.points[1].results.summary.changes == {}
    more = [*runs, power(tmp_path, "zero", steps=0)]
    by_setting = {
        s.setting: [p.x for p in s.points] for s in series([Results.read(r) for r in more])
    }
    assert by_setting == {"alpha": [1, 4, 8], "steps": [0, 4, 8]}
