"""Command lines to print: quoted, and runnable from the folder in which the user is."""

import os
import shlex
import shutil
import sys
from pathlib import Path

_WORKFLOWS = Path(__file__).resolve().parents[1] / "workflows"


def workflow(name: str, *arguments: str) -> str:
    """The command that runs workflows/<name>.py with these arguments; what follows it may be added as text."""
    return command(program("python"), script(name), *arguments)


def script(name: str) -> str:
    """Path of workflows/<name>.py: relative where the user is in a folder around it."""
    return _from_here(_WORKFLOWS / f"{name}.py")


def command(*words: str) -> str:
    """These words as a shell reads them."""
    return shlex.join(words)


def program(name: str) -> str:
    """How to call a program of this environment: by its path where the environment is not active."""
    ours = Path(sys.executable).parent / name
    return name if shutil.which(name) == str(ours) or not ours.exists() else _from_here(ours)


def _from_here(path: Path) -> str:
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
