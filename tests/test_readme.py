"""What the README walks through works as it stands there.

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
README = (ROOT / "README.md").read_text()


def block(path: str, language: str) -> str:
    """The code that the README shows for a file."""
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
    assert "3 passed" in done.stdout or broken


def test_every_file_that_the_readme_links_to_is_there() -> None:
    for link in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / link).exists(), link
