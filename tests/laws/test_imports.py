"""Who may import whom, and what an import may cost."""

import ast
import graphlib
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
# Inside a package: what stands to the left may not import what stands to its right. It is the order of the data.
# A folder is one entry, whatever it holds; so is a module beside the folders. New ones are put where they belong.
ORDER = {
    "pipelines": "keyed sentence_marks token_classes stages plugins document ragged csv_records readers corpus "
    "objectives blanks questions tasks metrics selection store feed views config names store_text estimate prepare",
    "glm_model": "config decoding ids urls checks dropout layout device_layout tokenizer attention outline cache saved "
    "logprobs products model loss resize muon train candidates classifier generation",
    # and then the scripts
    "workflows": "settings answering training runs housekeeping finetuning evaluation campaigns prediction",
    "infra": "errors commands children console config storage checkpoint tracking cluster",
}
PLUGINS = ("pipelines.readers", "pipelines.objectives", "pipelines.tasks")
FACES = ("infra.config", "infra.storage", "infra.tracking", "glm_model.tokenizer", "glm_model.attention")
SCRIPTS = [path for path in sorted((ROOT / "workflows").glob("*.py")) if path.name != "__init__.py"]
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


NAMES = {name_of(path) for path in MODULES}


def modules_imported(tree: ast.AST) -> set[str]:
    """Our modules that a module imports: at its top, in its functions, and for annotations alone."""
    found = set()
    for name in imported(tree, everywhere=True):
        while name and name not in NAMES:
            name = name.rpartition(".")[0]
        found |= {name} - {""}
    return found


def place_of(module: str) -> tuple[str, str]:
    """(package, the folder or module inside it): ("pipelines", "store") for pipelines.store.format."""
    package, *inside = module.split(".")
    return package, inside[0] if inside else ""


def out_of_order(module: str, others: set[str]) -> set[str]:
    """Those of its imports that stand to the right of it."""
    package, own = place_of(module)
    order = ORDER[package].split()
    position = {name: index for index, name in enumerate(order)}
    last = len(order)  # scripts, and the package itself
    places = {other: place_of(other)[1] for other in others if place_of(other)[0] == package}
    return {
        other for other, name in places.items() if name != own and position.get(name, last) >= position.get(own, last)
    }


def test_the_order_is_told_from_left_to_right():
    assert (
        out_of_order("pipelines.corpus.units", {"pipelines.keyed", "pipelines.corpus.clean", "infra.errors"}) == set()
    )
    assert out_of_order("pipelines.corpus.units", {"pipelines.store.format", "pipelines.prepare"}) == {
        "pipelines.store.format",
        "pipelines.prepare",
    }
    assert out_of_order("workflows.pretrain", {"workflows.runs.run", "workflows.prepare"}) == {"workflows.prepare"}
    hidden = "if TYPE_CHECKING:\n    from pipelines import prepare\ndef f():\n    import pipelines.views.render"
    assert modules_imported(ast.parse(hidden)) == {"pipelines.prepare", "pipelines.views.render"}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_go_down_the_order_of_the_package(path):
    """Also those inside functions and for annotations: an import against the order tells of a thing that lies wrong."""
    module = name_of(path)
    package, own = place_of(module)
    script = package == "workflows" and path in SCRIPTS
    assert own in ORDER[package].split() or script or not own, "give it a place in ORDER"
    assert out_of_order(module, modules_imported(ast.parse(path.read_text()))) == set()


def test_no_module_imports_itself_by_a_circle():
    graph = {name_of(path): modules_imported(ast.parse(path.read_text())) - {name_of(path)} for path in MODULES}
    list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError, which names the circle


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_plug_ins_are_found_by_their_name_alone(path):
    for folder in PLUGINS:
        others = {name for name in modules_imported(ast.parse(path.read_text())) if name.startswith(f"{folder}.")}
        assert not others or begins(name_of(path), (folder,)), f"{folder} has find()"


@pytest.mark.parametrize("path", SCRIPTS, ids=name_of)
def test_a_script_is_a_command_that_reads_like_its_story(path):
    assert len(path.read_text().splitlines()) <= 120
    assert "run_script(main)" in path.read_text()


@pytest.mark.parametrize("face", FACES)
def test_faces_hand_on_names_and_define_nothing(face):
    docstring, *rest = ast.parse((ROOT / face.replace(".", "/") / "__init__.py").read_text()).body
    assert isinstance(docstring, ast.Expr)
    listed = [node for node in rest if not isinstance(node, ast.ImportFrom)]
    assert [ast.unparse(node).partition(" = ")[0] for node in listed] == ["__all__"]


@pytest.mark.parametrize("path", [p for p in MODULES if p.relative_to(ROOT).parts[0] == "pipelines"], ids=name_of)
def test_pipelines_never_imports_torch(path):
    names = imported(ast.parse(path.read_text()), everywhere=True)
    assert {name for name in names if begins(name, ("torch",))} == set()


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


def loaded_by(*modules: str, among: tuple[str, ...] = ("torch", "ray", "mlflow")) -> set[str]:
    """Which of `among` a fresh process holds after importing `modules`."""
    code = f"""
import sys
{"; ".join(f"import {module}" for module in modules)}
print([name for name in {among} if name in sys.modules])
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


@pytest.mark.integration
def test_scripts_read_their_settings_before_they_load_what_works():
    """So that --help, --print_config and misspelt settings take half a second of CPU time instead of four."""
    among = ("torch", "ray", "mlflow", "pyarrow", "pandas", "scipy")
    assert loaded_by(*(name_of(script) for script in SCRIPTS), among=among) == set()
