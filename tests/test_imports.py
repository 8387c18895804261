"""Imports go one way: each room only from the rows above it in the package's map, siblings never from siblings.

Run: pytest tests/test_imports.py
"""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import powerbench

PACKAGE = Path(__file__).parents[1] / "powerbench"
ROWS = re.findall(r"^ {4}(\S.*)$", powerbench.__doc__ or "", re.M)
LEVEL = {name: level for level, row in enumerate(ROWS) for name in row.split()}
MODULES = sorted(PACKAGE.rglob("*.py"))


def part(module: str) -> str:
    """powerbench.engines.hf.engine -> engines"""
    return module.split(".")[1] if "." in module else ""


def imported(file: Path) -> set[str]:
    """The parts of powerbench that a file imports, at any depth of its code."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "") == "powerbench":
            found |= {a.name for a in node.names} & {*LEVEL}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("powerbench"):
            found.add(part(node.module or ""))
        elif isinstance(node, ast.Import):
            found |= {part(a.name) for a in node.names if a.name.startswith("powerbench")}
    return found - {""}


def test_the_map_names_every_room() -> None:
    files = {f.stem for f in PACKAGE.glob("*.py")} - {"__init__"}
    folders = {f.parent.name for f in PACKAGE.glob("*/__init__.py")}
    assert {*LEVEL} == files | folders
    assert len(ROWS) <= 8
    assert len(files) <= 8


def test_the_readme_shows_the_same_map() -> None:
    readme = (PACKAGE.parent / "README.md").read_text()
    lines = readme.partition("powerbench/\n")[2].partition("```")[0].splitlines()
    shown = [line.strip().partition("   ")[0].replace("/", "").split() for line in lines]
    assert [name for names in shown for name in names] == [n for row in ROWS for n in row.split()]


@pytest.mark.parametrize("file", MODULES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_a_module_imports_only_from_above(file: Path) -> None:
    own = file.relative_to(PACKAGE).with_suffix("").parts[0]
    if own == "__init__":
        assert not imported(file)
        return
    for other in imported(file) - {own}:
        assert LEVEL[other] < LEVEL[own], f"{own} imports {other}"


@pytest.mark.parametrize("folder", ["samplers", "tasks", "verifiers"])
def test_one_file_does_not_know_another_of_its_kind(folder: str) -> None:
    """What a yaml names as a `_target_` shares code through helpers, never through a sibling."""
    group = folder.removesuffix("s")
    yamls = (PACKAGE.parent / "conf" / group).glob("*.yaml")
    targets = {m[1] for f in yamls for m in re.finditer(r"^_target_: (.+)\.", f.read_text(), re.M)}
    assert targets
    for file in (PACKAGE / folder).rglob("*.py"):
        own = ".".join(file.relative_to(PACKAGE.parent).parent.parts)
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module in targets:
                assert own == node.module, f"{file.name} imports {node.module}"


def test_a_report_loads_neither_torch_nor_transformers() -> None:
    """Which take seconds and hundreds of megabytes."""
    ask = (
        "import sys, powerbench.report.build, powerbench.run.progress;"
        "print(*{'torch', 'transformers'} & {*sys.modules})"
    )
    assert subprocess.check_output([sys.executable, "-c", ask], text=True).strip() == ""


def test_a_run_loads_transformers_only_for_a_model_of_the_library(tmp_path: Path) -> None:
    ask = (
        "import sys; from powerbench.cli import main;"
        f"main('run model=toy engine=toy task=math_mini limit=1 tracker=none runs={tmp_path}'.split());"
        "sys.exit('transformers' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", ask], check=True)
