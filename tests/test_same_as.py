"""The comparison with an earlier revision: what it compares with, what it calls equal, and that it runs."""

import contextlib
import json
import subprocess
import sys

import pytest
from helpers import benchmark_modules
from helpers.patience import PATIENCE

ROOT = benchmark_modules.FOLDER.parent


@pytest.fixture(scope="module")
def same_as():
    return benchmark_modules.load("same_as")


@pytest.fixture(scope="module")
def revision():
    return benchmark_modules.load("_revision")


@pytest.fixture(scope="module")
def figures():
    return benchmark_modules.load("_figures")


def git(*arguments: str) -> bytes:
    done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("the history of the repository is not here")
    return done.stdout


def test_figures_that_differ_or_are_missing_are_different(same_as, capsys):
    earlier = {"weights": "a" * 64, "store": "b" * 64, "losses": "c" * 64}
    rows = same_as.compare(earlier, {"weights": "a" * 64, "store": "b" * 63 + "a", "scores": "d"})
    assert [(row.what, row.equal) for row in rows] == [
        ("weights", True),
        ("store", False),
        ("losses", False),
        ("scores", False),
    ]
    assert same_as.show(rows, "1234567") == 3
    table = capsys.readouterr().out.splitlines()
    assert table[1].split() == ["equal", "weights", "a" * 12, "a" * 12]
    assert table[3].split() == ["different", "losses", "c" * 12, "missing"]
    assert table[-2:] == ["equal: 1 of 4 compared", "different: store, losses, scores"]


def test_two_failures_are_not_equal(same_as, capsys):
    failed = {"answers": "failed: ValueError: no such model"}
    assert same_as.show(same_as.compare(failed, failed), "1234567") == 1
    assert "failed: ValueError: no such model" in capsys.readouterr().out


def test_the_same_bytes_cut_elsewhere_have_another_digest(figures):
    assert figures.digest(["ab", "c"]) == figures.digest([b"ab", b"c"])
    assert figures.digest(["ab", "c"]) != figures.digest(["a", "bc"])
    assert figures.digest(["ab"]) != figures.digest(["ab", ""])


def test_the_last_bit_of_a_weight_and_of_a_loss_counts(figures, tmp_path):
    import numpy as np
    from safetensors.numpy import save_file

    def run(name: str, *, weight: np.ndarray, loss: float) -> dict[str, str]:
        folder = tmp_path / name
        (folder / "model").mkdir(parents=True)
        save_file({"w": weight}, folder / "model" / "model.safetensors")
        values = {"train/loss": loss, "data/fingerprint_high": 3.0, "data/fingerprint_low": 4.0}
        lines = [{"step": step, "time": 5.0, "values": values | {"perf/step_s": 0.1 * loss}} for step in (1, 2)]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        (folder / "run.json").write_text(json.dumps({"identity": "1234"}))
        return figures.run_figures(folder, 2)

    def differ(one: dict[str, str], other: dict[str, str]) -> set[str]:
        return {name for name in one if one[name] != other[name]}

    weight = np.ones((2, 3), np.float32)
    base = run("base", weight=weight, loss=1.0)
    assert differ(base, run("again", weight=weight, loss=1.0)) == set()
    assert differ(base, run("loss", weight=weight, loss=float(np.nextafter(1.0, 2.0)))) == {"logged figures"}
    assert differ(base, run("weight", weight=np.nextafter(weight, np.float32(2)), loss=1.0)) == {"weights"}
    assert differ(base, run("shape", weight=weight.T.copy(), loss=1.0)) == {"weights"}


def test_settings_and_sections_that_have_another_name(same_as):
    names = {"train.window": "train.shuffle_window", "data.select": "data.selection"}
    keys = ["train.window", "train.windows", "data.select.duplicates", "data.selected"]
    assert [same_as.rename(key, names) for key in keys] == [
        "train.shuffle_window",
        "train.windows",
        "data.selection.duplicates",
        "data.selected",
    ]


def test_a_checkout_has_the_files_of_the_revision_and_goes_even_after_a_failure(revision):
    readme = git("show", "HEAD:README.md")
    with contextlib.suppress(KeyError), revision.checkout("HEAD") as tree:
        assert (tree / "README.md").read_bytes() == readme
        revision.check_modules(tree)
        raise KeyError
    assert not tree.exists()


def test_a_revision_that_is_not_there_is_named(revision):
    git("rev-parse", "HEAD")
    with pytest.raises(SystemExit, match="no revision no-such-branch"), revision.checkout("no-such-branch"):
        pass


def test_modules_of_another_tree_are_noticed(revision, tmp_path):
    with pytest.raises(AssertionError, match="expected the packages of"):
        revision.check_modules(tmp_path)


def test_a_process_is_ended_where_its_caller_fails(revision, tmp_path):
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    with (
        open(tmp_path / "output.txt", "wb") as file,
        pytest.raises(KeyError),
        revision.started(tmp_path, command, file) as process,
    ):
        raise KeyError
    assert process.returncode == -15


def test_texts_are_the_same_each_time_and_hold_duplicates():
    texts = benchmark_modules.load("_texts")
    found = texts.documents(200, seed=1)
    assert found == texts.documents(200, seed=1)
    assert found != texts.documents(200, seed=2)
    assert len(set(found)) == 200 - 200 // 13
    assert "".join(found).count("。") > 20 < "".join(found).count("ß")


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.integration
@pytest.mark.timeout(1500)
def test_this_revision_does_what_it_did(same_as, tmp_path):
    git("rev-parse", "HEAD")
    report = tmp_path / "same.json"
    command = [sys.executable, str(benchmark_modules.FOLDER / "same_as.py"), "HEAD", "--json", str(report)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1450 * PATIENCE, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    values = json.loads(report.read_text())["values"]
    assert values == {"different": 0, "compared": 28}
    assert done.stdout.splitlines()[-1] == "equal: 28 of 28 compared"
