"""Damage of every kind: named by `powerbench verify`, refused by runs, repaired, and made up for.

Run: pytest tests/store/test_verify.py
"""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from powerbench.cli import main
from powerbench.store import Run, find_runs, records
from powerbench.store.checkpoints import Checkpoints
from powerbench.store.repair import repair
from powerbench.store.shard import Shard
from powerbench.store.verify import verify as verify_run
from powerbench.store.writing import sample_writer
from powerbench.types import Checkpoint, Sample

TOY = ("model=toy", "engine=toy", "task=math_mini", "max_tokens=8", "blocks=2", "tracker=none")
SIZE = ("limit=3", "replicates=2")


def repeat(runs: Path, *settings: str) -> Run:
    """The run's command."""
    main(["run", *TOY, *SIZE, f"runs={runs}", *settings])
    (run,) = find_runs([runs])
    return run


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run, in its folder of runs."""
    return repeat(tmp_path_factory.mktemp("made")).path


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Run:
    """A copy to be damaged."""
    here = tmp_path / made.relative_to(made.parents[2])
    shutil.copytree(made, here)
    return Run(here)


def content(run: Run) -> dict[tuple[str, int], Sample]:
    """All but the cost, which depends on the clock and on interruptions."""
    return {tuple(key): replace(sample, cost=None) for key, sample in run.samples().items()}  # type: ignore[arg-type]


def verify(run: Run, capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, str]:
    """`powerbench verify`: its exit code, and what it prints."""
    capsys.readouterr()
    try:
        main(["verify", *options, str(run.path)])
    except SystemExit as stopped:
        return int(stopped.code or 0), capsys.readouterr().out
    return 0, capsys.readouterr().out


def lines(run: Run, name: str = "samples.jsonl") -> list[bytes]:
    return (run.path / name).read_bytes().splitlines(keepends=True)


def write(run: Run, new: list[bytes], name: str = "samples.jsonl") -> None:
    (run.path / name).write_bytes(b"".join(new))


def flip(line: bytes, at: int = 40) -> bytes:
    return line[:at] + bytes([line[at] ^ 1]) + line[at + 1 :]


def test_a_run_that_nothing_happened_to_is_sound(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = verify(run, capsys)
    assert code == 0
    assert said == f"{run.path}: 6 samples, 6 scores: sound\n"
    before = {file: file.read_bytes() for file in run.path.rglob("*") if file.is_file()}
    assert verify(run, capsys, "--repair") == (0, said)
    assert before == {file: file.read_bytes() for file in run.path.rglob("*") if file.is_file()}


def flipped(run: Run) -> None:
    all_ = lines(run)
    write(run, [all_[0], flip(all_[1]), *all_[2:]])


def doubled(run: Run) -> None:
    all_ = lines(run)
    write(run, [*all_[:2], all_[0], *all_[2:]])


def emptied(run: Run) -> None:
    all_ = lines(run)
    write(run, [all_[0], b"\n", *all_[1:]])


def joined(run: Run) -> None:
    all_ = lines(run)
    write(run, [all_[0], all_[1][:-1] + b" " + all_[2], *all_[3:]])


def another_record(run: Run) -> None:
    write(run, [*lines(run), records.encode({"problem": "p", "replicate": 0, "text": 1})])


@pytest.mark.parametrize(
    ("damage", "said", "lost"),
    [
        (flipped, "samples.jsonl line 2 is damaged: its checksum does not fit", 1),
        (joined, "samples.jsonl line 2 is damaged: its checksum does not fit", 2),
        (doubled, "samples.jsonl line 3 repeats samples.jsonl line 1 (problem ", 0),
        (emptied, "samples.jsonl line 2 is damaged: it ends with no checksum", 0),
        (another_record, "samples.jsonl line 7 is damaged: Expected `str`, got `int`", 0),
    ],
)
def test_damage_is_named_stops_a_run_and_is_made_up_for(
    run: Run,
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[Run], None],
    said: str,
    lost: int,
) -> None:
    whole, runs = content(run), run.path.parents[2]
    damage(run)
    code, told = verify(run, capsys)
    assert code == 1
    assert f"DAMAGED {said}" in told
    assert f"verify --repair {run.path}` quarantines damaged lines" in told
    damaged = (run.path / "samples.jsonl").read_bytes()
    with pytest.raises(SystemExit) as stopped:
        repeat(runs)
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err
    assert (run.path / "samples.jsonl").read_bytes() == damaged
    code, told = verify(run, capsys, "--repair")
    assert code == 0
    assert "quarantined" in told and "samples.jsonl.damaged" in told
    assert whole.items() >= content(run).items()
    assert len(content(run)) == len(whole) - lost
    quarantined = lines(run, "samples.jsonl.damaged")
    assert len(quarantined) == 1 and quarantined[0] in damaged
    assert content(repeat(runs)) == whole
    assert verify(run, capsys)[0] == 0


@pytest.mark.parametrize("name", ["samples.jsonl", "scores/math.jsonl", "problems.jsonl"])
def test_a_last_line_without_its_end_survives_a_repair(
    run: Run, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    first, *others, last = lines(run, name)
    write(run, [flip(first), *others, last[:-1]], name)
    leftover = (run.path / name).with_name(f".{Path(name).name}.node.123")
    leftover.write_bytes(b"of a repair that was killed")
    verify(run, capsys, "--repair")
    assert lines(run, name) == [*others, last]
    assert not leftover.exists()


def test_a_problem_that_is_there_twice_is_named_and_repaired(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    problems = run.problems()
    write(run, [*lines(run, "problems.jsonl"), lines(run, "problems.jsonl")[0]], "problems.jsonl")
    assert "DAMAGED problems.jsonl line 4 repeats problems.jsonl line 1" in verify(run, capsys)[1]
    assert verify(run, capsys, "--repair")[0] == 0
    assert list(run.problems().items()) == list(problems.items())


def test_a_line_with_a_wrong_checksum_is_never_given_a_right_one(run: Run) -> None:
    """Every byte of a line, changed: a repair leaves the other samples as they were, and quarantines it."""
    before, all_ = run.samples(), lines(run)
    for at in range(len(all_[1]) - 1):
        write(run, [all_[0], flip(all_[1], at), *all_[2:]])
        repair(run, 1.0)
        after = run.samples()
        assert before.items() >= after.items()
        assert len(after) == len(before) - 1


def test_a_torn_line_is_a_note(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    all_ = lines(run)
    write(run, [*all_[:-1], all_[-1][:20]])
    code, said = verify(run, capsys)
    assert code == 0
    assert (
        "note    samples.jsonl ends with a torn line of 20 bytes, which the next writer cuts"
        in said
    )


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("manifest.json", "manifest.json: restore it from a copy"),
        ("config.yaml", "config.yaml: repeat the run's command"),
        ("problems.jsonl", "problems.jsonl is missing; the run's command writes it again"),
    ],
)
def test_a_head_that_is_missing_is_named(
    run: Run, capsys: pytest.CaptureFixture[str], name: str, said: str
) -> None:
    (run.path / name).unlink()
    code, told = verify(run, capsys)
    assert code == 1
    assert said in told
    if name == "manifest.json":
        with pytest.raises(SystemExit):
            repeat(run.path.parents[2])
        assert "holds samples but no manifest.json" in capsys.readouterr().err
    else:
        repeat(run.path.parents[2])
        assert verify(run, capsys)[0] == 0


def test_a_configuration_that_was_edited_is_named(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    config = run.path / "config.yaml"
    config.write_text(config.read_text().replace("alpha: 4.0", "alpha: 2.0"))
    code, said = verify(run, capsys)
    assert code == 1
    assert "is not what made the samples: sampler.alpha: 4.0 there, 2.0 asked for" in said
    config.write_text(config.read_text().replace("name: math_mini", "name: math_maxi"))
    assert "task: math_mini there, math_maxi asked for" in verify(run, capsys)[1]


def test_a_manifest_that_was_edited_is_named(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = run.path / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"seed": 0', '"seed": 1'))
    assert "has a digest that is not that of its identity" in verify(run, capsys)[1]
    manifest.write_text("{")
    assert "DAMAGED manifest.json" in verify(run, capsys)[1]


def test_a_problem_that_is_missing_is_named_by_whoever_needs_it(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(run, lines(run, "problems.jsonl")[1:], "problems.jsonl")
    for command in (
        ["report", "--out", str(tmp_path)],
        ["export", "--out", str(tmp_path)],
        ["score"],
    ):
        with pytest.raises(SystemExit) as stopped:
            main([*command, str(run.path)])
        assert stopped.value.code == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert "problems.jsonl lacks problem " in line and "repeat the run's command" in line


def test_one_damaged_run_keeps_no_other_from_being_scored(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    other = Run(run.path.with_name("zz-other"))
    shutil.copytree(run.path, other.path)
    shutil.rmtree(other.path / "scores")
    flipped(run)
    with pytest.raises(SystemExit) as stopped:
        main(["score", str(run.path), str(other.path)])
    assert stopped.value.code == 2
    assert "line 2 is damaged" in capsys.readouterr().err
    assert len(other.scores("math")) == 6


def test_damaged_scores_and_problems_are_made_again(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = run.scores("math")
    for name in ("scores/math.jsonl", "problems.jsonl"):
        first, *others = lines(run, name)
        write(run, [flip(first), *others], name)
    code, said = verify(run, capsys)
    assert code == 1
    assert "DAMAGED scores/math.jsonl line 1" in said
    assert "DAMAGED problems.jsonl line 1" in said
    assert "of which there are 2 samples; the run's command adds it" in said
    verify(run, capsys, "--repair")
    repeat(run.path.parents[2])
    assert verify(run, capsys)[0] == 0
    assert run.scores("math") == scores


def test_checkpoints_that_serve_no_more_are_named_and_removed(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    chains = Checkpoints(run.path / "chains")
    checkpoint = Checkpoint({"block": 1, "tokens": list(range(40))}, 1, 2, 3, (), 9.0)
    problem = next(iter(run.problems()))
    for replicate in (0, 7, 8):
        chains.save(problem, replicate, checkpoint)
    torn = chains.path(problem, 8)
    torn.write_bytes(torn.read_bytes()[:-9])
    code, said = verify(run, capsys)
    assert code == 1
    assert "1 unfinished chains" in said
    assert "is left over: its sample is finished" in said
    assert f"DAMAGED chains/{torn.name} is damaged: its checksum does not fit: its chain" in said
    code, said = verify(run, capsys, "--repair")
    assert (code, said.count("; removed")) == (0, 2)
    assert [file.name for file in chains.folder.iterdir()] == [chains.path(problem, 7).name]


def test_a_clock_that_was_set_back_is_named_and_loses_nothing(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    samples = list(run.stream())
    earlier = replace(samples[3], cost=replace(samples[3].cost, finished=1e6))
    with (run.path / "samples.jsonl").open("wb") as file:
        for sample in (*samples[:3], earlier, *samples[4:]):
            file.write(records.encode(sample))
    code, said = verify(run, capsys)
    assert code == 0
    assert said.count("the clock was set back by ") == 1
    assert f"before problem {earlier.problem!r}, replicate {earlier.replicate}" in said


def test_a_copy_that_lies_beside_is_a_note_and_is_left_alone(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """Made before a repair, as is natural."""
    copy = run.path / "samples-backup.jsonl"
    shutil.copy(run.path / "samples.jsonl", copy)
    samples = run.samples()
    flipped(run)
    code, said = verify(run, capsys, "--repair")
    assert code == 0
    assert "note    samples-backup.jsonl is no shard's: it is not read" in said
    assert len(run.samples()) == len(samples) - 1
    assert len(copy.read_bytes().splitlines()) == len(samples)


def test_a_shard_under_another_name_is_a_note(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    (run.path / "samples.jsonl").rename(run.samples_file(Shard(1, 2)))
    code, said = verify(run, capsys)
    assert code == 0
    assert "samples-1-of-2.jsonl holds 3 samples of other shards than 1/2" in said


def test_what_is_being_written_is_not_repaired(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    flipped(run)
    damaged = (run.path / "samples.jsonl").read_bytes()
    with sample_writer(run):
        code, _ = verify(run, capsys, "--repair")
        assert code == 2
    assert (run.path / "samples.jsonl").read_bytes() == damaged


def test_one_damaged_run_keeps_no_other_from_being_checked(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    other = Run(run.path.with_name("zz-other"))
    shutil.copytree(run.path, other.path)
    flipped(run)
    assert verify_run(other).damaged == 0
    with pytest.raises(SystemExit) as stopped:
        main(["verify", str(run.path.parents[2])])
    assert stopped.value.code == 1
    said = capsys.readouterr().out
    assert "1 DAMAGED" in said
    assert "zz-other: 6 samples, 6 scores: sound" in said


def test_damaged_likelihoods_are_named_quarantined_and_made_again(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["rescore-likelihood", str(run.path), "model=toy", "model.seed=3", "model.name=other"]
    main(command)
    file = run.likelihoods_file("other")
    whole = file.read_bytes()
    file.write_bytes(whole.replace(b'"logp":[-', b'"logp":[+', 1))
    code, said = verify(run, capsys)
    assert code == 1
    assert "6 samples" in said and "5 likelihoods" in said
    assert "DAMAGED likelihoods/other.jsonl line 1" in said
    with pytest.raises(SystemExit):
        main(command)
    assert f"`powerbench verify --repair {run.path}` quarantines it" in capsys.readouterr().err
    assert verify(run, capsys, "--repair")[0] == 0
    main(command)
    assert sorted(file.read_bytes().splitlines()) == sorted(whole.splitlines())
