"""Law 22 with real processes: predict.py is killed (SIGKILL) with all that it started, three times, and ends with every
row once and the answers of a plain pass.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import benchmark_modules
from helpers.patience import PATIENCE


@pytest.mark.slow
@pytest.mark.timeout(420)
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_killed_prediction_ends_with_every_row_once(workers, tmp_path):
    script = str(Path(benchmark_modules.FOLDER) / "predict_killed.py")
    sizes = ["--rows", "1200", "--tokens", "8", "--shard-rows", "64", "--check", "150", "--num-workers", workers]
    done = subprocess.run(
        [sys.executable, script, *sizes, "--json", str(tmp_path / "found.json")],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=400 * PATIENCE,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    values = json.loads((tmp_path / "found.json").read_text())["values"]
    assert (values["rows"], values["kills"], values["problems"]) == (1200, 3, 0)
