"""Output in whatever encoding, to a full disk, a closed pipe, or nowhere; files in UTF-8 whatever the locale.

Run: pytest tests/test_streams.py
"""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import powerbench
from powerbench.store import find_runs

TOY = ["model=toy", "engine=toy", "task=math_mini", "max_tokens=8", "blocks=2", "tracker=none"]
RUN = ["run", *TOY, "sampler=base", "limit=2"]
ASCII = {
    "LC_ALL": "POSIX",
    "PYTHONUTF8": "0",
    "PYTHONCOERCECLOCALE": "0",
}


def command(
    *arguments: str,
    after: str = "",
    env: dict[str, str] | None = None,
    monkeypatch: pytest.MonkeyPatch,
) -> subprocess.CompletedProcess[bytes]:
    """A command in a shell, which redirects its output as `after` says."""
    for name, value in (env or {}).items():
        monkeypatch.setenv(name, value)
    line = f'"$@" {after}'
    python = [sys.executable, "-m", "powerbench.cli"]
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", line, "bash", *python, *arguments], capture_output=True
    )


@pytest.mark.parametrize(
    "env",
    [
        pytest.param({"PYTHONIOENCODING": "latin-1"}, id="latin-1"),
        pytest.param({"PYTHONIOENCODING": "ascii:strict"}, id="ascii", marks=pytest.mark.faults),
        pytest.param({"PYTHONIOENCODING": "cp437"}, id="cp437", marks=pytest.mark.faults),
        pytest.param(ASCII, id="POSIX"),
    ],
)
def test_a_run_and_its_report_need_no_utf_8_console(
    tmp_path: Path, env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    done = command(*RUN, f"runs={tmp_path}", env=env, monkeypatch=monkeypatch)
    assert (done.returncode, done.stderr) == (0, b"")
    done = command("report", str(tmp_path), monkeypatch=monkeypatch)
    assert (done.returncode, done.stderr) == (0, b"")
    text = (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    assert not text.isascii()
    (tmp_path / "report" / "page.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("what", ["list", "doctor", "--help"])
def test_what_prints_much_prints_in_ascii(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    done = command(what, env=ASCII, monkeypatch=monkeypatch)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize(
    "after",
    [">&-", "<&- >&-", "<&- >&- 2>&-", "> /dev/full", "> /dev/full 2>&1", "| true", "| head -c 1"],
)
def test_a_run_goes_on_whatever_becomes_of_its_output(
    tmp_path: Path, after: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = command(*RUN, f"runs={tmp_path}", after=after, monkeypatch=monkeypatch)
    assert (done.returncode, done.stderr) == (0, b"")
    (run,) = find_runs([tmp_path])
    assert len(run.samples()) == len(run.scores("math")) == 2
    assert {file.name for file in run.path.iterdir()} >= {"samples.jsonl", "metrics.json"}


def test_what_is_to_be_printed_and_cannot_be_ends_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done = command("list", after="> /dev/full", monkeypatch=monkeypatch)
    assert done.returncode == 2
    assert done.stderr.startswith(b"powerbench: standard output: No space left on device")
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize("after", ["| true", "| head -n 1"])
def test_a_reader_that_has_enough_is_no_error(after: str, monkeypatch: pytest.MonkeyPatch) -> None:
    done = command("list", after=after, monkeypatch=monkeypatch)
    assert done.returncode in (0, 1, 141)  # 1: rich's own
    assert done.stderr == b""


def test_mistakes_are_told_in_a_line_of_any_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    done = command("run", "sampler=öde", env=ASCII, monkeypatch=monkeypatch)
    assert done.returncode == 2
    assert done.stderr.count(b"\n") == 1
    assert done.stderr.startswith(b"powerbench: unknown sampler")


def test_a_folder_with_any_name_is_made_in_any_locale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = command(*RUN, f"runs={tmp_path}/ünï", env=ASCII, monkeypatch=monkeypatch)
    assert (done.returncode, done.stderr) == (0, b"")
    (run,) = find_runs([tmp_path / "ünï"])
    assert len(run.samples()) == 2


def test_a_setting_that_is_no_text_ends_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    python = [sys.executable, "-m", "powerbench.cli"]
    done = subprocess.run([*python, *RUN, b"runs=o/\xff"], capture_output=True)
    assert done.returncode == 2
    assert done.stderr.count(b"\n") == 1
    assert b"is not text in UTF-8" in done.stderr


PACKAGE = Path(powerbench.__file__).parent
PROBED = {"probe.py"}
"""Code for programs that are judged, which write nothing of ours."""


@pytest.mark.parametrize(
    "file", sorted(PACKAGE.rglob("*.py")), ids=lambda f: str(f.relative_to(PACKAGE))
)
def test_no_file_is_read_or_written_in_the_locales_encoding(file: Path) -> None:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call) or file.name in PROBED:
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else ast.unparse(node.func)
        given = {keyword.arg for keyword in node.keywords}
        where = f"{file}:{node.lineno}"
        if name in ("read_text", "write_text"):
            assert "encoding" in given, where
        if name == "open" and ast.unparse(node.func) not in ("os.open", "self._open"):
            modes = [a.value for a in node.args if isinstance(a, ast.Constant)]
            binary = any(isinstance(mode, str) and "b" in mode for mode in modes)
            assert binary or "encoding" in given, where
        if ast.unparse(node.func).startswith("subprocess."):
            assert not {"text", "universal_newlines"} & given, where
