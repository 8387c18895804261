"""Imports go one way: each module only from the layers below it, and siblings never from each other.

Run: pytest tests/test_imports.py
"""

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "powerbench"
LAYERS = [
    ["errors", "types", "cache", "flops"],
    [
        "process",
        "rng",
        "stats",
        "mixing",
        "length_controlled",
        "records",
        "shard",
        "provenance",
        "models",
    ],
    ["checkpoints", "writer", "paired"],
    ["lease"],
    ["store"],
    ["engines", "samplers", "tasks", "verifiers"],
    ["law", "live", "compose"],
    ["runner"],
    ["scoring"],
    ["session"],
    ["report"],
    ["tracking", "display", "doctor", "status", "integrity", "export"],
    ["bench"],
    ["jobs", "slurm", "mending", "likelihood"],
    ["work"],
    ["sweeps"],
    ["cli"],
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
MODULES = sorted(PACKAGE.rglob("*.py"))


def part(module: str) -> str:
    """powerbench.engines.hf.engine -> engines"""
    return module.split(".")[1] if "." in module else ""


def imported(file: Path) -> set[str]:
    """The parts of powerbench that a file imports, at any depth of its code."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("powerbench"):
            found.add(part(node.module or ""))
        elif isinstance(node, ast.Import):
            found |= {part(a.name) for a in node.names if a.name.startswith("powerbench")}
    return found - {""}


@pytest.mark.parametrize("file", MODULES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_a_module_imports_only_from_below(file: Path) -> None:
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
    for file in (PACKAGE / folder).glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom):
                assert node.module not in targets, f"{file.name} imports {node.module}"
