"""Two processes that compute together, as two workers do."""

import os
import subprocess
import sys
from pathlib import Path

from helpers.patience import PATIENCE

ROOT = Path(__file__).resolve().parents[2]


def run_two_ranks(script: str, folder: Path, *places: Path) -> None:
    """Run a script as rank 0 and as rank 1, with the folder and the rank as its arguments, until both have ended well.

    places: where it finds more modules than those of the project.
    """
    path = os.pathsep.join(map(str, (ROOT, *places)))
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(folder), str(rank)], env=environment, stderr=subprocess.PIPE, text=True
        )
        for rank in range(2)
    ]
    try:
        errors = [rank.communicate(timeout=50 * PATIENCE)[1] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert [rank.returncode for rank in ranks] == [0, 0], errors
