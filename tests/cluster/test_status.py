"""How far runs are: what is told of shards at work, finished, killed, silent and not begun.

Run: pytest tests/cluster/test_status.py
"""

import io
import json
import platform
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from powerbench.cli import main
from powerbench.cluster import status
from powerbench.cluster.outcome import Kind, writer_state
from powerbench.cluster.status import line, rows
from powerbench.store import Run, find_runs
from powerbench.store.owner import Writer, file_of, myself, write
from powerbench.store.shard import Shard
from powerbench.store.writing import create
from powerbench.types import Problem, Progress, Prompt

NOW = 1e9
ELSEWHERE = Writer(
    host="node7",
    boot_id="b",
    pid=12,
    create_time="1",
    job="slurm 3_1",
    restart=0,
    log="logs/3_1.txt",
    started=NOW - 700,
    seconds=600.0,
    heartbeat=60,
    progress=Progress(total=50, done=30, made_here=20, decoded=60_000, running=8),
    last_heartbeat=NOW - 5,
)
FAR = ELSEWHERE.progress


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Ten problems, of each ten responses asked for."""
    run = Run(tmp_path / "task/model/power-0")
    problems = [Problem(f"p{i}", Prompt("?"), "1") for i in range(10)]
    create(run, "limit: null\nreplicates: 10\nlease_timeout: 60\n", {}, problems)
    return run


def put(run: Run, shard: Shard, writer: Writer) -> None:
    (run.path / "writers").mkdir(exist_ok=True)
    write(file_of(run.path / "writers", f"samples{shard.suffix}", 1), writer)


def row(run: Run, shard: str) -> status.StatusRow:
    return next(each for each in rows(run, time.time()) if each.shard == shard)


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({}, Kind.AT_WORK, "at work on node7, slurm 3_1"),
        ({"last_heartbeat": NOW - 80}, Kind.AT_WORK, "at work on node7, slurm 3_1"),
        (
            {"last_heartbeat": NOW - 600},
            Kind.SILENT,
            "silent for 10 min on node7, slurm 3_1: lost, or cut off",
        ),
        ({"last_heartbeat": NOW + 3600}, Kind.UNCLEAR, "clocks differ"),
        ({"ended": "complete", "last_heartbeat": NOW - 1e6}, Kind.ENDED, "complete"),
        ({"ended": "interrupted"}, Kind.ENDED, "interrupted"),
    ],
)
def test_what_a_writer_elsewhere_does(changes: dict[str, Any], kind: Kind, words: str) -> None:
    found = writer_state(replace(ELSEWHERE, **changes), 60.0, NOW)
    assert found.kind is kind
    assert words in found.words


def test_a_dead_process_of_this_machine_was_killed() -> None:
    dead = replace(myself(), create_time="1", last_heartbeat=NOW)
    assert writer_state(dead, 60.0, NOW).words == f"killed (pid {dead.pid} on this machine)"
    assert (
        writer_state(replace(myself(), last_heartbeat=NOW), 60.0, NOW).words
        == f"at work on {platform.node()}"
    )


@pytest.mark.parametrize(
    ("job_end", "words"),
    [
        ("OUT_OF_MEMORY", "killed (OUT_OF_MEMORY, pid 12 on node7)"),
        ("FAILED", "killed (pid 12 on node7)"),
        ("", "killed (pid 12 on node7)"),
        (None, "at work on node7, slurm 3_1"),
    ],
)
def test_a_writer_elsewhere_whose_job_is_over_was_killed(job_end: str | None, words: str) -> None:
    assert writer_state(ELSEWHERE, 60.0, NOW, job_end).words == words
    ended = replace(ELSEWHERE, ended="interrupted")
    assert writer_state(ended, 60.0, NOW, job_end).words == "interrupted"


def test_a_process_that_lives_here_is_at_work_whatever_its_job_ended_as() -> None:
    assert writer_state(myself(), 60.0, NOW, "COMPLETED").kind is Kind.AT_WORK


def test_rate_and_estimated_end_follow_from_what_a_writer_made(run: Run) -> None:
    put(run, Shard(1, 2), ELSEWHERE)
    found = row(run, "1/2")
    assert (found.done, found.total, found.running) == (30, 50, 8)
    assert found.per_minute == pytest.approx(2.0)  # 20 in 600 s
    assert found.tokens_per_second == pytest.approx(100.0)
    assert found.left == pytest.approx(600.0)  # 20 more
    assert (
        "30/50 samples, at work on node7, slurm 3_1, 2 responses/min, 100 tokens/s, 10 min left"
        in (line(found))
    )


def test_the_run_is_the_sum_of_its_shards(run: Run) -> None:
    put(run, Shard(1, 3), ELSEWHERE)
    put(
        run, Shard(2, 3), replace(ELSEWHERE, progress=replace(FAR, made_here=10, done=20, total=33))
    )
    assert [each.shard for each in rows(run, time.time())] == ["1/3", "2/3", "3/3", "all"]
    waits, whole = row(run, "3/3"), row(run, "all")
    assert (waits.done, waits.total, waits.state.words) == (0, 33, "not started")
    assert (whole.done, whole.total) == (50, 50 + 33 + 33)
    assert whole.per_minute == pytest.approx(3.0)
    assert whole.left is None  # when the third begins is not known
    assert whole.state.words == "2 at work, 1 not started"
    put(
        run,
        Shard(3, 3),
        replace(ELSEWHERE, ended="complete", progress=replace(FAR, total=33, done=33)),
    )
    assert row(run, "all").left == pytest.approx(13 / 10 * 600)  # the slowest's


def test_a_copy_without_writers_is_counted(run: Run) -> None:
    for samples, words in ((100, "complete"), (99, "not known: its writers/ is not here")):
        run.samples_file().write_bytes(b"{}\n" * samples)
        found = row(run, "1/1")
        assert (found.done, found.total, found.state.words) == (samples, 100, words)


def test_what_was_asked_for_later_is_counted(run: Run) -> None:
    put(
        run,
        Shard(1, 1),
        replace(ELSEWHERE, ended="complete", progress=replace(FAR, total=50, done=50)),
    )
    found = row(run, "1/1")
    assert (found.done, found.total) == (50, 100)
    assert found.state.words == "was complete; more is asked for by now"


def test_of_a_bad_end_the_log_is_named(run: Run) -> None:
    put(run, Shard(1, 1), replace(ELSEWHERE, ended="failed: no such model"))
    assert line(row(run, "1/1")).endswith(
        "failed: no such model, 2 responses/min, 100 tokens/s (log: logs/3_1.txt)"
    )
    put(
        run,
        Shard(1, 1),
        replace(ELSEWHERE, ended="complete", progress=replace(FAR, total=100, done=100)),
    )
    assert "log:" not in line(row(run, "1/1"))


def test_samples_are_counted_where_a_writer_came_to_no_beat(run: Run) -> None:
    """Such as one that was killed early, or that is waiting for space on a full disk."""
    run.samples_file(Shard(1, 1)).write_bytes(b"{}\n" * 41)
    dead = replace(myself(), create_time="1", progress=Progress(total=100, done=30))
    for writer, state_ in (
        (dead, "killed"),
        (replace(dead, create_time=myself().create_time), "at work"),
    ):
        put(run, Shard(1, 1), writer)
        found = row(run, "1/1")
        assert (found.done, found.total) == (41, 100)
        assert state_ in found.state.words


@pytest.mark.parametrize(
    "config", [None, "", "[", "limit: three\nreplicates: x\nlease_timeout: y\n"]
)
def test_a_damaged_head_keeps_nothing_from_being_shown(run: Run, config: str | None) -> None:
    put(run, Shard(1, 2), ELSEWHERE)
    if config is None:
        (run.path / "config.yaml").unlink()
    else:
        (run.path / "config.yaml").write_text(config)
    assert row(run, "1/2").done == 30


TOY = ("model=toy", "engine=toy", "task=math_mini", "max_tokens=8", "blocks=2", "tracker=none")


def test_the_command_shows_runs_and_gives_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["run", *TOY, "limit=3", f"runs={tmp_path}"])
    (run,) = find_runs([tmp_path])
    capsys.readouterr()
    main(["status", str(tmp_path)])
    assert capsys.readouterr().out.startswith(f"{run.path}: 3/3 samples, complete")
    main(["status", "--json", str(tmp_path)])
    (only,) = json.loads(capsys.readouterr().out)
    assert (only["done"], only["total"], only["state"]["kind"]) == (3, 3, "ended")
    main(["run", *TOY, "limit=3", "replicates=2", "shard=2/2", f"runs={tmp_path}"])
    main(["run", *TOY, "limit=3", "replicates=2", "shard=2/3", f"runs={tmp_path}"])
    capsys.readouterr()
    main(["status", str(tmp_path)])
    said = capsys.readouterr().out.splitlines()
    shown = [text.removeprefix(str(run.path)).split(" samples")[0] for text in said]
    assert shown == [": 3/6", " 1/3: 0/2", " 2/2: 3/3", " 2/3: 2/2", " 3/3: 0/2", " all: 2/6"]


def test_watching_waits_for_the_first_job(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = []

    def sleep(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 1:
            main(["run", *TOY, "limit=1", f"runs={tmp_path}"])
        else:
            raise KeyboardInterrupt

    monkeypatch.setattr(status.time, "sleep", sleep)
    main(["status", "--watch", "5", str(tmp_path)])
    said = capsys.readouterr().out
    assert "holds no run" in said and "waiting for one" in said
    assert "1/1 samples, complete" in said
    assert looks == [5.0, 5.0]


def test_a_terminal_is_shown_a_table(run: Run) -> None:
    put(run, Shard(1, 2), ELSEWHERE)
    out = io.StringIO()
    status.show([run.path], Console(file=out, force_terminal=True, width=120))
    assert "30/50" in out.getvalue() and "node7" in out.getvalue()
