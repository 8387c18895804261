"""What the READMEs walk through works as it stands there, and what they link to exists.

Run: pytest tests/test_readme.py
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import powerbench.samplers
from powerbench import commands, config
from powerbench.cli import main
from powerbench.cluster import sweep
from powerbench.store import find_runs

ROOT = Path(__file__).parents[1]
SAMPLERS = ROOT / "powerbench" / "samplers"
README = (SAMPLERS / "README.md").read_text()
OWN_FOLDERS = (
    "",
    "powerbench/**/",
    "conf/**/",
    "tests/**/",
    "runs/",
    "runs/bench/",
    "runs/example/",
    "runs/answer/",
)
"""Where this repository's READMEs are; a dataset card that a run exported is not one of them."""
READMES = sorted({file for folder in OWN_FOLDERS for file in ROOT.glob(f"{folder}README.md")})


def links(text: str) -> set[str]:
    """The files and folders that a README links to, without the anchors."""
    return {link.partition("#")[0] for link in re.findall(r"\]\(([^):#][^):]*)\)", text)}


def block(path: str, language: str) -> str:
    """The code that the samplers' README shows for a file."""
    after = README.partition(f"`{path}`")[2]
    found = re.search(rf"```{language}\n(.*?)```", after, re.S)
    assert found is not None, path
    return found[1]


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The walk-through's files, where the project finds them."""
    conf, module = tmp_path / "conf", tmp_path / "samplers"
    shutil.copytree(ROOT / "conf", conf)
    module.mkdir()
    sampler = block("powerbench/samplers/fresh_start.py", "python")
    (module / "fresh_start.py").write_text(sampler)
    yaml = block("conf/sampler/fresh_start.yaml", "yaml")
    (conf / "sampler" / "fresh_start.yaml").write_text(yaml)
    law = block("tests/samplers/test_fresh_start.py", "python")
    (tmp_path / "test_fresh_start.py").write_text(law)
    monkeypatch.setattr(
        powerbench.samplers, "__path__", [*powerbench.samplers.__path__, str(module)]
    )
    for each in (config, sweep, commands):
        monkeypatch.setattr(each, "conf_dir", lambda: conf)
    yield tmp_path
    sys.modules.pop("powerbench.samplers.fresh_start", None)


def test_the_sampler_of_the_walk_through_runs(written: Path) -> None:
    toy = ["model=toy", "engine=toy", "tracker=none", f"runs={written / 'runs'}"]
    main(["run", "task=math_mini", "sampler=fresh_start", "max_tokens=8", "limit=3", *toy])
    (run,) = find_runs([written / "runs"])
    assert run.path.name.startswith("fresh_start-")
    assert all(len(s.steps) == 10 for s in run.stream())
    assert len(block("powerbench/samplers/fresh_start.py", "python").splitlines()) <= 45


@pytest.mark.parametrize("broken", ["", "weight(x, self.alpha)", "weight(y, self.alpha)"])
def test_its_law_test_passes_and_fails_where_a_weight_is_wrong(written: Path, broken: str) -> None:
    """In a process of its own, as a reader would run it."""
    file = written / "samplers" / "fresh_start.py"
    if broken:
        assert broken in file.read_text()
        file.write_text(file.read_text().replace(broken, broken.replace("self.alpha", "1.0")))
    start = (
        "import sys, powerbench.samplers, pytest;"
        f"powerbench.samplers.__path__.append({str(written / 'samplers')!r});"
        f"sys.exit(pytest.main(['-q', '-p', 'no:cacheprovider', {str(written / 'test_fresh_start.py')!r}]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", start], capture_output=True, text=True, cwd=written
    )
    assert (done.returncode == 0) == (not broken), done.stdout
    assert "2 passed" in done.stdout or broken


@pytest.mark.parametrize("readme", READMES, ids=lambda f: str(f.relative_to(ROOT)))
def test_every_file_that_a_readme_links_to_is_there(readme: Path) -> None:
    for link in links(readme.read_text()):
        assert (readme.parent / link).exists(), link


def test_the_samplers_readme_names_every_sampler_and_every_file() -> None:
    files = {file.name for file in SAMPLERS.glob("*.py")} - {"__init__.py"}
    assert {link for link in links(README) if link.endswith(".py") and "/" not in link} == files
    table = README.partition("| `sampler=` |")[2].partition("\n\n")[0]
    named = {
        name for row in table.splitlines() for name in re.findall(r"`(\w+)`", row.split("|")[1])
    }
    assert named == set(config.options("sampler"))
