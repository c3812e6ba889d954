"""compare.py: differences of settings and data as they are, one page that stands alone, mistakes."""

import json
import sys
from pathlib import Path

import pytest

from glm_model.config import OptimConfig
from infra import config
from infra.errors import run_main
from workflows import compare
from workflows.runs import comparison
from workflows.settings.recipe import Recipe

pytestmark = pytest.mark.integration


def run_of(folder: Path, *, lr: float, fingerprints: dict[int, int], losses: dict[int, float | str]) -> Path:
    folder.mkdir(parents=True)
    recipe = Recipe(optim=OptimConfig(lr=lr))
    (folder / "config.yaml").write_text(config.to_yaml(recipe))
    (folder / "run.json").write_text(json.dumps({"store_digest": "d" * 64}))
    points = [
        {"step": s, "time": 0, "values": {"data/fingerprint_high": f >> 32, "data/fingerprint_low": f % 2**32}}
        for s, f in fingerprints.items()
    ]
    points += [{"step": step, "time": 0, "values": {"train/loss": loss}} for step, loss in losses.items()]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(point) + "\n" for point in points))
    return folder


@pytest.fixture
def two(tmp_path) -> tuple[Path, Path]:
    return (
        run_of(tmp_path / "runs" / "a<b", lr=0.1, fingerprints={1: 7, 10: 2**40 + 1}, losses={1: 9.0, 10: 8.0}),
        run_of(tmp_path / "runs" / "c", lr=0.2, fingerprints={1: 7, 10: 2**40}, losses={1: 9.5, 20: "nan"}),
    )


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    def run(*argv: str) -> tuple[int, str, str]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["compare.py", *argv])
        with pytest.raises(SystemExit) as stopped:
            run_main(compare.main)
        captured = capsys.readouterr()
        return stopped.value.code, captured.out, captured.err

    return run


def test_what_differs_is_shown_and_nothing_else(run, two, tmp_path):
    code, out, _ = run(str(two[0]), "c", "--html=page.html")
    assert code == 0
    assert "the same batches up to step 1, others at step 10" in out
    assert "1 differ" in out
    lines = [line.split() for line in out.splitlines()]
    assert ["optim.lr", "0.1", "0.2"] in lines
    assert ["train/loss", "10", "8", "20", "nan"] in lines
    page = (tmp_path / "page.html").read_text()
    assert page.count("<svg") == 1
    assert "a&lt;b" in page
    assert "a<b" not in page
    assert "<script" not in page


def test_runs_of_one_name_are_told_apart_by_their_places(run, two, tmp_path):
    other = run_of(tmp_path / "elsewhere" / "c", lr=0.3, fingerprints={1: 8}, losses={1: 9.5, 2: 9})
    code, out, _ = run(str(two[1]), str(other))
    assert code == 0
    assert f"{two[1]} and {other}" in out.replace("\n", "")
    assert "other batches from step 1 on" in out
    assert run(str(other), str(other))[0] == 0


def test_a_run_that_has_logged_nothing_yet(run, two):
    (two[1] / "metrics.jsonl").unlink()
    code, out, _ = run(*map(str, two))
    assert (code, "no step was logged by both" in out) == (0, True)


def test_the_page_begins_with_what_a_run_is_judged_by():
    def run(*names: str) -> comparison.RunFigures:
        return comparison.RunFigures("", "", {}, "", {name: {1: 0.0, 2: 0.0} for name in names}, {})

    one = run("data/fingerprint_low", "data/epoch", "perf/tokens_per_second", "perf/data_wait", "train/loss")
    two = run("val/loss/token", "val/bits_per_byte", "train/grad_norm")
    two.curves["train/lr"] = {1: 0.0}
    assert comparison.curve_names(one, two) == [
        *("train/loss", "val/bits_per_byte", "perf/tokens_per_second"),
        *("train/grad_norm", "val/loss/token", "perf/data_wait", "data/epoch"),
    ]


def test_a_setting_that_only_one_run_has():
    assert comparison.differences({"a": "1", "b": "2"}, {"b": "2", "c": "3"}) == [("a", "1", "-"), ("c", "-", "3")]


@pytest.mark.parametrize(
    ("one", "two", "told"),
    [
        ({1: 5, 10: 6}, {1: 5, 10: 6, 20: 7}, "the same batches at all 2 steps that both logged, up to step 10"),
        ({1: 5, 10: 6}, {1: 4, 10: 6}, "other batches from step 1 on, the first that both logged"),
        ({1: 5}, {2: 5}, "not comparable: no step was logged by both"),
    ],
)
def test_data(one, two, told):
    assert comparison.same_data(one, two) == told


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        ([], 2, "expected two runs to compare, got 0"),
        (["runs/c"], 2, "expected two runs to compare, got 1"),
        (["runs/c", "runs/none"], 3, "runs/none is not a run"),
        (["runs/c", "runs/none-*"], 3, "runs/none-* is not a run\n  why: it has no run.json"),
        (["runs/c", "--runs+=runs/none"], 3, "runs/none is not a run"),
    ],
)
def test_mistakes(run, two, tmp_path, monkeypatch, words, code, told):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    got, _, error = run(*words)
    assert (got, told in error) == (code, True), error
