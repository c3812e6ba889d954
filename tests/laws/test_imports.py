"""Who may import whom, and what an import may cost."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OURS = ("workflows", "pipelines", "glm_model", "infra")
# package -> prefixes of ours that it may import besides itself
ALLOWED = {
    "workflows": ("pipelines", "glm_model", "infra"),
    "pipelines": ("glm_model.layout", "glm_model.tokenizer", "glm_model.tokenizer.published", "infra"),
    "glm_model": (),
    "infra": (),
}
MODULES = sorted(path for package in OURS for path in (ROOT / package).rglob("*.py"))
WITHOUT_TORCH = ("layout", "tokenizer")  # of glm_model: what data workers import


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def imported(tree: ast.AST, *, everywhere: bool) -> set[str]:
    """Full names that a module imports: everywhere, or only what runs when it is imported."""
    found: set[str] = set()
    waiting = list(ast.iter_child_nodes(tree))
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        if everywhere or not (
            is_type_checking(node) or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        ):
            waiting += ast.iter_child_nodes(node)
    return found


def begins(name: str, prefixes: tuple[str, ...]) -> bool:
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)


def test_the_reading_of_imports_is_right():
    source = """
import os.path
from pipelines import a, b
if TYPE_CHECKING:
    import torch
def f():
    from ray.data import c
class D:
    import numpy
"""
    tree = ast.parse(source)
    assert imported(tree, everywhere=False) == {"os.path", "pipelines.a", "pipelines.b", "numpy"}
    assert imported(tree, everywhere=True) == {"os.path", "pipelines.a", "pipelines.b", "numpy", "torch", "ray.data.c"}
    assert begins("glm_model.layout.Marks", ("glm_model.layout",))
    assert not begins("glm_model.layouts", ("glm_model.layout",))
    assert len(MODULES) > 40


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_import_directions(path):
    package = path.relative_to(ROOT).parts[0]
    ours = {name for name in imported(ast.parse(path.read_text()), everywhere=True) if begins(name, OURS)}
    wrong = {name for name in ours if not begins(name, (package, *ALLOWED[package]))}
    assert wrong == set(), f"{package} may import {', '.join(ALLOWED[package]) or 'nothing of ours but itself'}"


def worker_code() -> list[Path]:
    """What Ray Data workers import: all of pipelines, infra, and the light modules of glm_model."""
    light = [p for p in MODULES if begins(name_of(p), tuple(f"glm_model.{name}" for name in WITHOUT_TORCH))]
    return [p for p in MODULES if p.relative_to(ROOT).parts[0] in ("pipelines", "infra")] + light


@pytest.mark.parametrize("path", worker_code(), ids=name_of)
def test_worker_code_does_not_import_torch_ray_or_mlflow_at_module_level(path):
    names = imported(ast.parse(path.read_text()), everywhere=False)
    assert {name for name in names if begins(name, ("torch", "ray", "mlflow"))} == set()


@pytest.mark.parametrize("path", [p for p in MODULES if p.relative_to(ROOT).parts[0] == "glm_model"], ids=name_of)
def test_the_model_never_imports_ray_or_mlflow(path):
    names = imported(ast.parse(path.read_text()), everywhere=True)
    assert {name for name in names if begins(name, ("ray", "mlflow"))} == set()


def loaded_by(*modules: str) -> set[str]:
    """Which of torch, ray and mlflow a fresh process holds after importing `modules`."""
    code = f"""
import sys
{"; ".join(f"import {module}" for module in modules)}
print([name for name in ("torch", "ray", "mlflow") if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(ast.literal_eval(done.stdout.strip()))


@pytest.mark.integration
def test_what_data_workers_import_loads_no_torch():
    everything = [name_of(p) for p in MODULES if p.relative_to(ROOT).parts[0] == "pipelines"]
    assert {
        "pipelines.store.shards",
        "pipelines.corpus.units",
        "pipelines.feed.stored_blanks",
        "pipelines.prepare",
        "pipelines.feed.micro_batches",
    } <= set(everything)
    assert loaded_by("glm_model", *(f"glm_model.{name}" for name in WITHOUT_TORCH), *everything) == set()


@pytest.mark.integration
def test_the_model_and_the_feed_load_neither_ray_nor_mlflow():
    assert loaded_by("glm_model", "glm_model.model", "glm_model.train", "pipelines.feed.micro_batches") == {"torch"}
