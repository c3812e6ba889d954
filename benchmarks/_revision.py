"""An earlier revision of this repository as a folder of files, and the environment of a process that runs its code."""

import contextlib
import io
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parents[1]
BASELINE = "c1f8ea3"
"""The last revision before modules moved into folders by what they make."""
_PACKAGES = ("glm_model", "infra", "pipelines", "workflows")


@contextlib.contextmanager
def checkout(revision: str) -> Iterator[Path]:
    """The files of a revision in a temporary folder that goes at the end. The repository itself is only read.

    Ends the program where there is no such revision.
    """
    commit = _git("rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}").decode().strip()
    if not commit:
        sys.exit(f"error: this repository has no revision {revision}\n  try: git log --oneline")
    # Not `git worktree add`: it writes into .git, where a killed process would leave it.
    archive = _git("archive", "--format=tar", commit)
    with tempfile.TemporaryDirectory(prefix="glm-revision-", ignore_cleanup_errors=True) as folder:
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            tar.extractall(folder, filter="data")
        yield Path(folder).resolve()


def environment(tree: Path) -> dict[str, str]:
    """What a process of this tree gets: modules of the tree first, one thread, no settings of Ray or MLflow."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "MLFLOW_"))}
    return kept | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}


def call(tree: Path, command: list[str]) -> None:
    """Run a process of this tree, in its folder, to its end. Ends the program where it fails."""
    done = subprocess.run(command, cwd=tree, env=environment(tree), capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"error: {' '.join(command)} in {tree} ended with {done.returncode}\n{done.stdout}{done.stderr}")


@contextlib.contextmanager
def started(tree: Path, command: list[str], output: IO[bytes]) -> Iterator[subprocess.Popen]:
    """A process of this tree, in its folder; it is ended where the caller fails."""
    process = subprocess.Popen(command, cwd=tree, env=environment(tree), stdout=output, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()  # the Ray that it started ends with it
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(30)
            process.kill()
            process.wait()


def check_modules(tree: Path) -> None:
    """Make sure that a process with this environment imports the tree's packages, and not those that are installed.

    Raises AssertionError.
    """
    code = f"for name in {_PACKAGES}: print(__import__(name).__path__[0])"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tree, env=environment(tree), capture_output=True, text=True, check=True)
    found = [str(Path(path).resolve()) for path in done.stdout.split("\n") if path]
    assert found == [str(tree / name) for name in _PACKAGES], f"expected the packages of {tree}, got {found}"


def _git(*arguments: str) -> bytes:
    """What git writes; empty where it finds nothing."""
    done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, check=False)
    if done.returncode and done.stderr:
        sys.exit(f"error: git {arguments[0]} failed: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout
