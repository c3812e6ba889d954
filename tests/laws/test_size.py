"""Files and functions stay short enough to be read in one sitting."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("glm_model", "pipelines", "infra", "workflows", "benchmarks")
MODULES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
FILE_LINES, COMMAND_LINES, FUNCTION_LINES, FILES_SIDE_BY_SIDE = 350, 120, 70, 20
# A catalogue, of which each file is found by its name and reads none of the others: who adds one reads one.
CATALOGUES = {"pipelines/tasks": 40}


def lines_of_functions(source: str) -> dict[str, int]:
    """Name -> lines of each function's body, without its docstring."""
    found = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            found[node.name] = (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_is_one_concept(path):
    source = path.read_text()
    most = COMMAND_LINES if path.parent == ROOT / "workflows" else FILE_LINES
    assert len(source.splitlines()) <= most
    assert {name: lines for name, lines in lines_of_functions(source).items() if lines > FUNCTION_LINES} == {}


@pytest.mark.parametrize("package", ["glm_model", "pipelines", "infra", "workflows"])
def test_a_folder_is_no_hall(package):
    folders = [ROOT / package, *(path for path in (ROOT / package).rglob("*") if path.is_dir())]
    halls = {str(folder.relative_to(ROOT)): len(list(folder.glob("*.py"))) for folder in folders}
    assert {name: files for name, files in halls.items() if files > CATALOGUES.get(name, FILES_SIDE_BY_SIDE)} == {}


def test_lines_are_counted_without_docstrings():
    source = 'def f():\n    """One.\n\n    Two.\n    """\n    a = 1\n\n    return a\n\ndef g():\n    pass\n'
    assert lines_of_functions(source) == {"f": 3, "g": 1}
