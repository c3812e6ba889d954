"""The benchmark of start-up takes medians of pairs, counts whole processes, and runs."""

import json
import subprocess
import sys

import pytest
from helpers import benchmark_modules
from helpers.patience import PATIENCE


@pytest.fixture(scope="module")
def startup():
    return benchmark_modules.load("startup")


def test_ratios_are_medians_of_pairs_and_not_of_sides(startup):
    rounds = [{"help": pair} for pair in [(4.0, 2.0), (1.0, 1.0), (2.0, 1.0)]]
    values, ratios = startup.summarise(rounds)
    assert values == {"help_old_cpu_s": 2.0, "help_new_cpu_s": 1.0}
    assert ratios == {"help": 0.5, "help_low": 0.5, "help_high": 1.0}


def test_an_interval_of_nine_leaves_out_the_lowest_and_the_highest(startup):
    """As tables of the sign test have it: 1 of 9, 5 of 20, and nothing of 6 to 8."""
    assert [startup.outer_rank(count) for count in (1, 5, 6, 8, 9, 20)] == [0, 0, 0, 0, 1, 5]
    rounds = [{"help": (1.0, float(ratio))} for ratio in (9, 1, 8, 2, 7, 3, 6, 4, 5)]
    _, ratios = startup.summarise(rounds)
    assert ratios == {"help": 5.0, "help_low": 2.0, "help_high": 8.0}


def test_all_that_a_process_computes_is_counted(startup, tmp_path):
    busy = "import time\nwhile time.process_time() < {}: pass\n"
    (tmp_path / "short.py").write_text(busy.format(0.1))
    (tmp_path / "long.py").write_text(busy.format(0.5))
    short, long = (startup.cpu_s(tmp_path, [name]) for name in ("short.py", "long.py"))
    assert 0.1 <= short < 0.5 <= long < 2


def test_a_script_that_fails_is_no_figure(startup, tmp_path):
    (tmp_path / "fails.py").write_text("raise SystemExit(3)")
    with pytest.raises(SystemExit, match=r"fails.py in .* ended with exit code 3"):
        startup.cpu_s(tmp_path, ["fails.py"])


@pytest.mark.slow
@pytest.mark.integration
@pytest.mark.timeout(400)
def test_the_startup_benchmark_runs(tmp_path):
    if subprocess.run(["git", "-C", str(benchmark_modules.FOLDER), "rev-parse", "HEAD"], check=False).returncode:
        pytest.skip("the history of the repository is not here")
    report = tmp_path / "startup.json"
    options = ["--base", "HEAD", "--rounds", "1", "--json", str(report)]
    command = [sys.executable, str(benchmark_modules.FOLDER / "startup.py"), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=390 * PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(report.read_text())
    commands = {"pretrain_help", "generate_help", "pretrain_print_config"}
    assert set(found["ratios"]) == {f"{name}{end}" for name in commands for end in ("", "_low", "_high")}
    assert all(value > 0.01 for value in found["values"].values())
