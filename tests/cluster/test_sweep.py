"""Sweeps from the command line: checked before they start, and what is told of jobs that fail.

Run: pytest tests/cluster/test_sweep.py; with real launchers: tests/cluster
"""

import shlex
from pathlib import Path

import pytest

from powerbench.cli import main
from powerbench.cluster import sweep
from powerbench.errors import UserError
from powerbench.store import Run, find_runs
from powerbench.store.shard import Shard, expand
from powerbench.store.writing import sample_writer

TOY = ("model=toy", "engine=toy", "task=math_mini", "limit=4", "max_tokens=8", "blocks=2")
SMALL = (*TOY, "tracker=none")


def run(*settings: str) -> int:
    """The exit code of `powerbench run`."""
    try:
        main(["run", *SMALL, *settings])
    except SystemExit as stopped:
        return int(stopped.code or 0)
    return 0


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (("hydra/launcher=slrum",), "unknown hydra/launcher 'slrum' (did you mean 'slurm'?)"),
        (
            ("hydra/launcher=ray", "hydra.launcher.ray.remote.num_gpus=512"),
            "hydra.launcher.ray.remote.num_gpus=512: this machine has ",
        ),
        (("hydra/launcher=joblib", "limit=3,4"), "two jobs of this sweep would write "),
        (("hydra/launcher=joblib", "shard=1/2,1/4"), "two jobs of this sweep would write "),
        (("shard=all/0",), "shard=all/0: a run has at least one part"),
        (("shard=1/2,3/2",), "shard must be like 2/8"),
        (("sampler=base,powr",), "unknown sampler 'powr'"),
    ],
)
def test_a_sweep_that_cannot_work_starts_no_job(
    settings: tuple[str, ...], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("hydra_plugins.hydra_ray_launcher")
    assert run("-m", *settings, f"runs={tmp_path}") == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert said in line
    assert not list(tmp_path.rglob("samples*"))


def test_a_launcher_that_is_not_installed_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "_there", lambda plugin: False)
    assert run("-m", "hydra/launcher=joblib", f"runs={tmp_path}") == 2
    assert "needs hydra-joblib-launcher: pip install" in capsys.readouterr().err
    monkeypatch.setattr(sweep, "_there", lambda plugin: True)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert run("-m", "hydra/launcher=slurm", f"runs={tmp_path}") == 2
    assert "there is no sbatch here: start the sweep on a login node" in capsys.readouterr().err


def test_a_job_that_fails_stops_no_other_and_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("-m", "sampler=base", f"runs={tmp_path}") == 0
    (base,) = find_runs([tmp_path])
    again = ("-m", "sampler=base,power", "replicates=2", f"runs={tmp_path}")
    with sample_writer(base):
        assert run(*again) == 1
    said = capsys.readouterr().out
    assert f"FAILED {base.path}: " in said
    assert "1 of 2 jobs complete; the same command goes on with the others" in said
    assert sorted(len(each.samples()) for each in find_runs([tmp_path])) == [4, 8]
    assert run(*again) == 0
    assert [len(each.samples()) for each in find_runs([tmp_path])] == [8, 8]


def test_a_job_whose_prompts_are_too_long_for_its_model_ends_no_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lengths = ("-m", "sampler=base", "shard=1/2,2/2", f"runs={tmp_path}")
    assert run(*lengths, "max_tokens=4096,8") == 1
    told, *said = [line for line in capsys.readouterr().out.splitlines() if " FAIL" in f" {line}"]
    assert told.startswith("WILL FAIL ") and told.endswith("; the other jobs go on")
    for line in (told, *said):
        assert "prompt 3 + max_tokens 4096), but toy has a context of 4096" in line
    assert len(said) == 2 and all(line.startswith("FAILED ") for line in said)
    (made,) = find_runs([tmp_path])
    assert len(made.samples()) == 4


def test_a_sweep_of_nothing_but_too_long_prompts_starts_no_job(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("-m", "sampler=base,greedy", "max_tokens=4096", f"runs={tmp_path}") == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "has a context of 4096; set a smaller max_tokens" in line


def test_of_two_jobs_on_one_shard_the_one_that_fails_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("-m", "engine.max_num_seqs=0,8", f"runs={tmp_path}") == 1
    said = capsys.readouterr().out
    (failed,) = [line for line in said.splitlines() if line.startswith("FAILED")]
    assert "engine.max_num_seqs" in failed and "got 0" in failed
    assert "1 of 2 jobs complete" in said


def test_a_folder_may_have_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = tmp_path / "it's a=1, (copy) {b}"
    odd.mkdir()
    monkeypatch.chdir(odd)
    assert run("-m", "sampler=base", "shard=null") == 0
    assert len(find_runs([odd / "runs"])) == 1


def test_all_shards_make_the_whole(tmp_path: Path) -> None:
    assert run("-m", "replicates=5", "shard=all/3", f"runs={tmp_path / 'parts'}") == 0
    assert run("replicates=5", f"runs={tmp_path / 'whole'}") == 0
    (parts,), (whole,) = find_runs([tmp_path / "parts"]), find_runs([tmp_path / "whole"])
    assert parts.shards() == [Shard(n, 3) for n in (1, 2, 3)]

    def made(run: Run) -> dict[object, object]:
        return {key: sample.tokens for key, sample in run.samples().items()}

    assert made(parts) == made(whole)
    sizes = [len(parts.samples_file(shard).read_bytes().splitlines()) for shard in parts.shards()]
    assert max(sizes) - min(sizes) <= 1
    before = {file: file.read_bytes() for file in parts.path.glob("samples*")}
    assert run("-m", "replicates=7", "shard=all/3", f"runs={tmp_path / 'parts'}") == 0
    assert len(parts.samples()) == 28
    assert all(file.read_bytes().startswith(old) for file, old in before.items())


def test_a_run_knows_the_command_that_makes_it_alone(tmp_path: Path) -> None:
    assert run("-m", "sampler=base,power", "shard=1/2,2/2", f"runs={tmp_path}") == 0
    for each in find_runs([tmp_path]):
        command = shlex.split(each.manifest["command"])
        assert command[:2] == ["powerbench", "run"]
        assert set(command[2:]) == {
            *SMALL,
            f"sampler={each.path.name.partition('-')[0]}",
            "shard=1/2",
            f"runs={tmp_path}",
        }


def test_all_of_a_partition_is_written_short() -> None:
    assert expand("shard=all/3") == "shard=1/3,2/3,3/3"
    assert expand("shard=2/3") == "shard=2/3"
    with pytest.raises(UserError):
        expand("shard=all/0")
