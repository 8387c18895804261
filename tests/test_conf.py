"""Every yaml composes and instantiates; every mistake is one line that names the value.

Run: pytest tests/test_conf.py
"""

import re
import shlex
import subprocess
import sys
import zipfile
from functools import partial
from pathlib import Path

import pytest

from powerbench.cli import main
from powerbench.config import GROUPS, compose, conf_dir, expand, options
from powerbench.console import EXIT_BAD_INPUT
from powerbench.errors import UserError

ROOT = Path(__file__).parents[1]
PARTIAL = ("experiment", "edition", "without", "ladder")
"""Groups that set what others hold."""
GIVEN = {
    ("model", "hf"): ["model.id=some/model"],
    ("model", "endpoint"): ["model.id=some/model", "model.base_url=http://127.0.0.1:9/v1"],
    ("task", "math_set"): ["task.path=some/set"],
    ("task", "code_set"): ["task.path=some/set"],
    ("task", "choice_set"): ["task.path=some/set"],
}
"""What a yaml leaves to the user."""
CHOICES = [(g, name) for g in GROUPS if g not in PARTIAL for name in options(g)]


@pytest.mark.parametrize(("group", "name"), CHOICES)
def test_every_yaml_composes_and_instantiates(
    group: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    job = compose([f"{group}={name}", *GIVEN.get((group, name), [])])
    given = {"ask": lambda text, options: [0.5, 0.5]} if name == "judge_standin" else {}
    built = job.build(group, **given)
    assert isinstance(built, partial) == (group == "engine")
    assert options(group)[name], f"conf/{group}/{name}.yaml has no one-line description"


@pytest.mark.parametrize("name", options("experiment"))
def test_every_job_of_every_experiment_composes(name: str) -> None:
    jobs = expand([f"experiment={name}"], multirun=False).runs
    artefact, _, rest = name.partition("/")
    edition = artefact if artefact == "answer" else rest.partition("_")[0]
    for overrides in jobs:
        job = compose(overrides)
        job.build("sampler")
        assert job.values.runs == f"runs/{edition}"
    assert options("experiment")[name]


@pytest.mark.parametrize(
    "folder",
    sorted(p for p in (conf_dir() / "experiment").iterdir() if p.is_dir() and p.name != "answer"),
    ids=lambda f: f.name,
)
def test_every_artefact_has_two_editions_and_a_target(folder: Path) -> None:
    assert {"mini.yaml", "paper.yaml"} <= {file.name for file in folder.iterdir()}
    makefile = (ROOT / "Makefile").read_text()
    targets = makefile.partition("ARTEFACTS :=")[2].partition(".PHONY")[0]
    assert f" {folder.name}" in targets


def test_the_answer_has_the_papers_alpha_and_steps_and_each_problem_it_names() -> None:
    """Of every model that `make answer` may be asked for; a part of a set is chosen by rule."""
    models = set()
    for name in (name for name in options("experiment") if name.startswith("answer/")):
        for overrides in expand([f"experiment={name}"], multirun=False).runs:
            job = compose(overrides)
            config, task = job.values, job.settings()["task"]
            models.add(config.model.name)
            assert name.startswith(f"answer/{config.model.name}_")
            sampler = job.settings()["sampler"]
            swept = {o.partition("=")[0] for o in overrides}
            for setting, papers in (("alpha", 4), ("steps", 10)):
                asked = sampler.get(setting, papers)
                assert asked == papers or f"sampler.{setting}" in swept
            assert (config.limit is None) == (task["name"] != "gsm8k")
    assert models == {"gemma-3-270m", "qwen2.5-coder-0.5b", "qwen2.5-coder-1.5b"}


def test_the_paper_edition_has_the_papers_settings() -> None:
    for overrides in expand(["experiment=table1/paper"], multirun=False).runs:
        config = compose(overrides).values
        assert (config.max_tokens, config.blocks, config.steps, config.alpha) == (3072, 16, 10, 4.0)
        assert (config.limit, config.replicates) == (None, 1)
    humaneval = compose(["experiment=fig7_9/paper_power", "task=humaneval"]).values
    assert (humaneval.alpha, humaneval.replicates) == (1.67, 16)
    assert compose(["experiment=fig7_9/paper_power", "task=gpqa_diamond"]).values.alpha == 4.0


@pytest.mark.parametrize("edition", ["mini", "paper"])
def test_humanevals_alpha_changes_power_sampling_alone(edition: str) -> None:
    """Figure 8: low temperature stays at 1/4, and so shares its runs with Table 1."""
    seen = set()
    for part in ("", "_power"):
        for overrides in expand([f"experiment=fig7_9/{edition}{part}"], multirun=False).runs:
            job = compose(overrides)
            if not job.values.task.name.startswith("humaneval"):
                continue
            own = job.settings()["sampler"]
            seen.add((own["name"], own.get("alpha"), own.get("temperature")))
    assert seen == {("base", None, None), ("low_temp", 4.0, None), ("power", 1.67, None)}


def test_low_temperature_is_a_setting_of_its_own_on_alpaca_eval() -> None:
    """As the paper's text has it for proposals, 0.5, or as the official script has it: 1/alpha."""

    def temperature(*overrides: str) -> float:
        sampler = compose(["task=alpaca_eval", "sampler=low_temp", *overrides]).build("sampler")
        return sampler.temperature or 1 / sampler.alpha

    assert temperature() == 0.5
    assert temperature("low_temperature=null") == 0.25
    assert temperature("experiment=table1/paper") == 0.25
    assert temperature("sampler.temperature=0.3", "experiment=table1/paper") == 0.3
    judged = compose(["task=alpaca_eval", "sampler=power", "experiment=table1/paper"])
    assert judged.build("sampler").tau == 0.5


def test_the_readme_says_how_the_official_scripts_run() -> None:
    """Each command, on one model: its samplers truncated to 50 tokens, its verifier, its seeds."""
    readme = (conf_dir() / "experiment" / "README.md").read_text()
    commands = re.findall(r"^powerbench run -m (experiment=table1/paper .+)$", readme, re.M)
    found = set()
    for command in commands:
        for overrides in expand([*shlex.split(command), "model=qwen2.5-7b"], multirun=True).runs:
            job = compose(overrides)
            sampler = job.build("sampler")
            assert sampler.top_k == 50
            tau = {"base": 1.0, "low_temp": 0.25}.get(job.choices["sampler"])
            assert tau is None or (getattr(sampler, "temperature", 1.0) or 1 / sampler.alpha) == tau
            v = job.values
            order = v.task.get("order_seed", v.seed)
            assert order == v.seed
            found.add((v.task.name, job.choices["verifier"], v.seed, v.replicates))
    assert found == {
        ("math500", "math_official", 0, 8),
        ("humaneval", "code_official", 0, 8),
        *(("gpqa_diamond", "choice_official", seed, 1) for seed in range(8)),
        ("alpaca_eval", "judge", 0, 1),
    }


def test_phi_stops_where_its_generation_config_says() -> None:
    """<|endoftext|>, <|end|> and <|assistant|>: 32000, 32007 and 32001 (microsoft/Phi-3.5-mini-instruct)."""
    phi = compose(["model=phi-3.5-mini"]).build("model")
    assert set(phi.stop_tokens) == {"<|endoftext|>", "<|end|>", "<|assistant|>"}


def test_the_papers_figures_have_the_papers_models_and_samplers() -> None:
    """Figure 6, left: power sampling, all models; right: both Qwen; Figures 7 to 9: Qwen2.5-Math-7B alone."""
    three = {"qwen2.5-math-7b", "qwen2.5-7b", "phi-3.5-mini"}
    for name, models in (
        ("fig6_alpha", three),
        ("fig6_steps", three - {"phi-3.5-mini"}),
        ("fig7_9", {"qwen2.5-math-7b"}),
    ):
        jobs = expand([f"experiment={name}/paper"], multirun=False).runs
        found = [dict(o.split("=", 1) for o in job) for job in jobs]
        assert {job["model"] for job in found} == models
        samplers = {job["sampler"] for job in found}
        assert samplers == {"power"} or name == "fig7_9"


@pytest.mark.parametrize("edition", ["mini", "paper"])
def test_the_frontier_has_every_sampler(edition: str) -> None:
    names = [name for name in options("experiment") if name.startswith(f"frontier/{edition}")]
    jobs = [job for name in names for job in expand([f"experiment={name}"], multirun=False).runs]
    assert {dict(o.split("=", 1) for o in job)["sampler"] for job in jobs} == set(
        options("sampler")
    )


def test_a_sweep_may_set_what_only_its_values_have() -> None:
    jobs = expand(["sampler=low_temp,power", "sampler.alpha=2"], multirun=True).runs
    assert [sorted(job) for job in jobs] == [
        ["sampler.alpha=2", "sampler=low_temp"],
        ["sampler.alpha=2", "sampler=power"],
    ]
    assert len(expand(["model=hf", "model.id=a/b,c/d"], multirun=True).runs) == 2
    assert (
        "task=math500" in expand(["experiment=table1/mini", "task=math500"], multirun=False).runs[0]
    )


def test_the_papers_settings_are_the_defaults() -> None:
    power = compose(["task=math500", "sampler=power"]).build("sampler")
    assert (power.max_tokens, power.blocks, power.steps, power.alpha) == (3072, 16, 10, 4.0)
    assert power.tau == 0.25
    judged = compose(["task=alpaca_eval", "sampler=power"]).build("sampler")
    assert (judged.alpha, judged.tau) == (4.0, 0.5)
    official = compose(["task=alpaca_eval", "sampler=power_official"]).build("sampler")
    assert official.power == 2.0
    assert official.top_k == 50


@pytest.mark.parametrize("name", [each for each in options("ladder") if each != "none"])
def test_every_printed_ladder_is_one_of_parallel_temperings(name: str) -> None:
    config = compose([f"ladder={name}", "sampler=parallel_tempering"])
    sampler, values = config.build("sampler"), config.values
    assert sampler.ladder == tuple(values.sampler.alphas) != ()
    assert (sampler.alpha, sampler.max_tokens) == (values.alpha, values.max_tokens)
    assert options("ladder")[name].startswith("parallel tempering as printed")


def test_gsm8ks_printed_ladder_is_that_of_the_paper() -> None:
    sampler = compose(["ladder=qwen3_gsm8k", "sampler=parallel_tempering"]).build("sampler")
    assert sampler.ladder == (2.0, 2.3, 2.6, 3.0, 3.5, 4.0)
    assert (sampler.max_tokens, sampler.blocks, sampler.steps) == (3072, 16, 10)


def test_the_command_line_wins_over_the_tasks_verifier() -> None:
    assert compose(["task=humaneval"]).choices["verifier"] == "code"
    assert compose(["task=humaneval", "verifier=math"]).choices["verifier"] == "math"


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            ["sampler=powr"],
            "unknown sampler 'powr' (did you mean 'power'?); known: apps, aps, base, ",
        ),
        (["model=gpt-9"], "unknown model 'gpt-9'; known: endpoint, gemma-3-270m, hf"),
        (["sampler.stepz=3"], "unknown setting 'sampler.stepz' (did you mean 'sampler.steps'?)"),
        (["sampler=base,power"], "is a sweep: add -m"),
        (["sampler.alpha=0"], "sampler.alpha must be > 0"),
        (["sampler=low_temp", "sampler.temperature=-1"], "sampler.temperature must be > 0"),
        (["blocks=7"], "sampler.blocks=7 must divide max_tokens=3072"),
        (["steps=-1"], "sampler.steps must be an integer >= 0, got -1"),
        (["sampler.top_k=0"], "sampler.top_k must be an integer >= 1"),
        (["steps=1.5"], "sampler.steps must be an integer >= 0, got 1.5"),
        (["sampler=null"], "unknown sampler 'None'"),
        (["model=toy"], "model=toy and engine=toy go together"),
        (["limit=-1"], "limit must be an integer >= 1, got -1"),
        (["replicates=0"], "replicates must be an integer >= 1, got 0"),
        (["model=hf"], "model.id has no value"),
        (["task=math_set"], "task.path has no value"),
        (["task=code_set", "task.path=/nowhere.csv"], "/nowhere.csv: there is no such file"),
        (["model=hf", "model.id=/nowhere/m.gguf"], "there is no GGUF file /nowhere/m.gguf"),
        (["model=hf", "model.id=package:no_such_package/m.gguf"], "not installed"),
        (["task=math500", "task.path=/nowhere.jsonl"], "/nowhere.jsonl"),
        (["model=toy", "engine=toy", "max_tokens=4096"], "has a context of 4096"),
        (["model=toy", "engine=toy", "runs=/proc/nothing"], "cannot write the run folder"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    overrides: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["run", *overrides])
    assert stopped.value.code == EXIT_BAD_INPUT
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith("powerbench: ")
    assert said in error


def test_an_empty_task_file_is_refused(tmp_path: Path) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    with pytest.raises(UserError, match=r"empty\.jsonl is empty"):
        compose(["task=math500", f"task.path={empty}"]).build("task").problems("base")


def test_conf_is_inside_an_installed_wheel(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    ask = "from powerbench.config import conf_dir, options; print(conf_dir(), *options('sampler'))"
    command = [sys.executable, "-c", ask]
    env = {"PYTHONPATH": str(tmp_path / "site"), "PATH": ""}
    out = subprocess.run(command, env=env, cwd=tmp_path, check=True, capture_output=True, text=True)
    where, *samplers = out.stdout.split()
    assert Path(where) == tmp_path / "site/powerbench/conf"
    assert "power" in samplers


def test_conf_is_found_beside_the_package_in_a_clone() -> None:
    assert conf_dir() == ROOT / "conf"
