"""Without the environment that has the packages, a script says how to enter it, instead of a stack trace."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = [path for path in sorted((ROOT / "workflows").glob("*.py")) if path.name != "__init__.py"]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_says_that_its_packages_are_elsewhere(script):
    without_packages = [sys.executable, "-I", "-S", str(script), "--help"]
    done = subprocess.run(without_packages, capture_output=True, text=True)
    (line,) = done.stderr.splitlines()
    assert line.startswith("No module named 'infra': run `source .venv/bin/activate` first")
    assert done.returncode == 1
