"""What the packages import is declared, pinned and explained."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PYTHONS = {*sys.stdlib_module_names, "compression"}  # the latter from Python 3.14 on
OURS = ("glm_model", "pipelines", "workflows", "infra")


def name_of(requirement: str) -> str:
    """pip's normal form of a distribution's name."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\[<>=!~ ;]", requirement)[0]).lower()


def imported() -> dict[str, str]:
    """Top-level modules that are neither ours nor Python's own -> a file that imports them."""
    found = {}
    for path in (path for package in OURS for path in sorted((ROOT / package).rglob("*.py"))):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                names.append(node.module)
            found |= {name.split(".")[0]: str(path.relative_to(ROOT)) for name in names}
    return {name: path for name, path in found.items() if name not in {*OURS, *PYTHONS}}


def test_every_import_is_a_declared_pinned_and_explained_dependency():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = project["dependencies"] + [
        requirement
        for extra, group in project["optional-dependencies"].items()
        if extra != "dev"
        for requirement in group
    ]
    declared = {name_of(requirement) for requirement in needed}
    pinned = {name_of(line) for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line}
    explained = {
        name_of(word) for word in re.findall(r"[\w.-]+", (ROOT / "docs/decisions/dependencies.md").read_text())
    }
    distributions = packages_distributions()
    modules = imported()
    assert {"torch", "yaml"} <= set(modules)
    for module, path in modules.items():
        if module not in distributions and name_of(module) not in declared:  # an extra may be absent
            pytest.fail(f"{path} imports {module}, which is not installed: declare where it comes from")
        names = {name_of(name) for name in distributions.get(module, [module])}
        assert names & declared, f"{path} imports {module} of {names}"
    assert declared - pinned <= {"s3fs", "gcsfs"}  # installed by those who need them
    assert declared <= explained
