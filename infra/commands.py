"""Command lines to print: quoted, and runnable from the folder in which the user is."""

import os
import shlex
import shutil
import sys
from collections.abc import Sequence
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


def again(argv: Sequence[str]) -> str:
    """The command that goes on with what this one began: without --run.fresh, which would begin once more."""
    words, skips = list[str](), False
    for word, following in zip(argv, [*argv[1:], ""], strict=True):
        if not skips and not word.startswith("--run.fresh"):
            words.append(word)
        skips = word == "--run.fresh" and not following.startswith("-")
    return command(program("python"), *words)


def same_command(*, is_fresh: bool) -> str:
    """How a message calls the command that goes on. is_fresh: whether --run.fresh was given."""
    return "the same command without --run.fresh" if is_fresh else "the same command"


def program(name: str) -> str:
    """How to call a program of this environment: by its path where the environment is not active."""
    ours = Path(sys.executable).parent / name
    return name if shutil.which(name) == str(ours) or not ours.exists() else _from_here(ours)


def _from_here(path: Path) -> str:
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
