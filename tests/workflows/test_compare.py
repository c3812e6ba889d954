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
from workflows.settings.finetune import FinetuneRecipe
from workflows.settings.recipe import Recipe

pytestmark = pytest.mark.integration


def run_of(
    folder: Path,
    *,
    lr: float,
    fingerprints: dict[int, int],
    losses: dict[int, float | str],
    store: str = "d" * 64,
    eval_rows: int = 64,
) -> Path:
    folder.mkdir(parents=True)
    recipe = Recipe(optim=OptimConfig(lr=lr))
    recipe.train.eval_rows = eval_rows
    (folder / "config.yaml").write_text(config.to_yaml(recipe))
    (folder / "run.json").write_text(json.dumps({"store_digest": store}))
    points = [
        {"step": s, "time": 0, "values": {"data/fingerprint_high": f >> 32, "data/fingerprint_low": f % 2**32}}
        for s, f in fingerprints.items()
    ]
    points += [
        {"step": step, "time": 0, "values": {"train/loss": loss, "data/tokens": 100 * step}}
        for step, loss in losses.items()
    ]
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
    assert "1 differs" in out
    lines = [line.split() for line in out.splitlines()]
    assert ["optim.lr", "0.1", "0.2"] in lines
    assert [line for line in lines if len(line) == 4 and line[0] in ("a<b", "c")] == [
        ["a<b", "10", "8", "1k"],
        ["c", "20", "nan", "2k"],
    ]
    assert f"all on the same text: 64 held-out rows of the store {'d' * 16}" in " ".join(out.split())
    page = (tmp_path / "page.html").read_text()
    assert page.count("<svg") == 4, "losses and tokens, each over steps and over tokens"
    assert (page.count("optimizer step</text>"), page.count("training tokens</text>")) == (2, 2)
    assert "a&lt;b" in page
    assert "a<b" not in page
    assert "<script" not in page


def test_settings_that_only_one_kind_of_run_has_are_left_out(run, two):
    recipe = FinetuneRecipe(optim=OptimConfig(lr=0.5))
    (two[1] / "config.yaml").write_text(config.to_yaml(recipe))
    code, out, _ = run(*map(str, two))
    assert code == 0
    words = " ".join(out.split())
    assert "kinds pretraining and fine-tuning: " in words
    lines = [line.split() for line in out.splitlines()]
    assert ["optim.lr", "0.1", "0.5"] in lines
    assert not [line for line in lines if line and line[0].startswith(("task.", "data.", "blanks."))]


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


def test_any_number_of_runs_best_first(run, two, tmp_path):
    third = run_of(tmp_path / "runs" / "third", lr=0.1, fingerprints={1: 7}, losses={1: 9.0, 30: 7.5}, eval_rows=32)
    fourth = run_of(tmp_path / "runs" / "fourth", lr=0.1, fingerprints={}, losses={1: 9.0, 30: 8.5}, store="e" * 64)
    code, out, _ = run(*map(str, two), str(third), str(fourth))
    assert code == 0
    words = " ".join(out.split())
    lines = [line.split() for line in out.splitlines()]
    names = ("a<b", "c", "third", "fourth")
    assert [line[0] for line in lines if len(line) == 4 and line[0] in names] == ["third", "a<b", "fourth", "c"]
    assert ["optim.lr", "0.1", "0.2", "0.1", "0.1"] in lines
    assert ["train.eval_rows", "64", "64", "32", "64"] in lines
    assert "store 2 different ones" in words
    assert "data of third, beside a<b the same batches at all 1 steps" in words
    assert (
        "on different texts, and bits per byte are not comparable: a<b, c on 64 rows of dddddddddddddddd; "
        "third on 32 rows of dddddddddddddddd; fourth on 64 rows of eeeeeeeeeeeeeeee"
    ) in words
    page = (tmp_path / "compare.html").read_text()
    assert page.count("stroke: #2ca02c") >= 2, "the third run has a colour of its own"


def figures(name: str, curves: dict[str, dict[int, float]], **more) -> comparison.RunFigures:
    values = {"settings": {"train.eval_rows": "64"}, "store_digest": "d", "fingerprints": {}, **more}
    return comparison.RunFigures("", name, curves=curves, **values)


def test_the_page_begins_with_what_a_run_is_judged_by():
    def run(*names: str) -> comparison.RunFigures:
        return figures("", {name: {1: 0.0, 2: 0.0} for name in names})

    one = run("data/fingerprint_low", "data/epoch", "perf/tokens_per_second", "perf/data_wait", "train/loss")
    two = run("val/loss/token", "val/bits_per_byte", "train/grad_norm")
    two.curves["train/lr"] = {1: 0.0}
    assert comparison.curve_names([one, two]) == [
        *("train/loss", "val/bits_per_byte", "perf/tokens_per_second"),
        *("train/grad_norm", "val/loss/token", "perf/data_wait", "data/epoch"),
    ]


def test_last_values_of_pretraining_and_of_fine_tuning():
    low, high = (figures(name, {"val/bits_per_byte": {0: 9.0, 5: bits}}) for name, bits in (("a", 2.5), ("b", 1.5)))
    none = figures("c", {})
    columns, rows = comparison.last_values([low, none, high])
    assert columns == ["run", "step", "val/bits_per_byte"]
    assert rows == [["b", "5", "1.5"], ["a", "5", "2.5"], ["c", "0", "-"]]
    worse, better = (figures(name, {"val/accuracy": {5: score}}) for name, score in (("a", 70.0), ("b", 80.0)))
    assert [row[0] for row in comparison.last_values([worse, better])[1]] == ["b", "a"]


def test_a_curve_over_tokens_has_each_point_where_its_step_is():
    run = figures("a", {"val/loss": {0: 3.0, 6: 2.0, 10: 1.0}, "data/tokens": {1: 50.0, 10: 500.0}})
    assert run.curve("val/loss", "steps") == {0: 3.0, 6: 2.0, 10: 1.0}
    assert run.curve("val/loss", "tokens") == {0: 3.0, 300: 2.0, 500: 1.0}
    assert figures("b", {"val/loss": {1: 2.0}}).curve("val/loss", "tokens") == {}


@pytest.mark.parametrize("settings", [{}, {"train.eval_rows": "0"}])
def test_runs_that_do_not_validate_on_a_store_are_not_compared_by_it(settings):
    one, two = figures("a", {}), figures("b", {}, settings=settings)
    assert comparison.same_text([one, two]).startswith("not comparable")
    assert comparison.same_text([one, figures("c", {}, store_digest="")]).startswith("not comparable")


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
        ([], 2, "expected two runs or more to compare, got 0"),
        (["runs/c"], 2, "expected two runs or more to compare, got 1"),
        (["runs/c", "runs/none"], 3, "runs/none is not a run"),
        (["runs/c", "runs/none-*"], 3, "runs/none-* is not a run\n  why: it has no run.json"),
        (["runs/c", "--runs+=runs/none"], 3, "runs/none is not a run"),
    ],
)
def test_mistakes(run, two, tmp_path, monkeypatch, words, code, told):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    got, _, error = run(*words)
    assert (got, told in error) == (code, True), error
