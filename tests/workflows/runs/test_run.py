"""A run's folder: nothing is written or removed before `start`; a run keeps its settings and its store."""

from pathlib import Path

import pytest
from helpers import small

from infra import storage, tracking
from infra.checkpoint import CheckpointWriter
from infra.config import Count
from infra.console import Console
from infra.errors import DataError, UserError
from workflows.runs.moved import own_store
from workflows.runs.run import Run, has_begun, locked, open_run, start
from workflows.runs.setup import resolve_setup
from workflows.settings.identity import run_name
from workflows.settings.recipe import Recipe


def recipe_in(folder: Path, *, fresh: bool = False, tokens: int = 1000) -> Recipe:
    recipe = Recipe()
    recipe.run.storage_path, recipe.run.fresh = str(folder), fresh
    recipe.tracking.enabled = False
    recipe.train.tokens = Count(tokens)
    return recipe


def begin(recipe: Recipe, run: Run, store) -> Run:
    return start(resolve_setup(recipe, store, Console()), run)[0]


def started(recipe: Recipe, store, *, checkpoint: bool = True) -> Run:
    run = begin(recipe, open_run(recipe, "r"), store)
    if checkpoint:
        writer = CheckpointWriter(run.checkpoints_url)
        writer.save(5, {}, {"state": {}, "param_groups": []}, {})
        writer.wait()
    return run


def test_opening_writes_nothing(tmp_path):
    run = open_run(recipe_in(tmp_path), "r")
    assert not run.record.finished
    assert not storage.exists(run.url)


def test_a_started_run_is_continued(tmp_path, tiny_store):
    started(recipe_in(tmp_path), tiny_store)
    again = open_run(recipe_in(tmp_path), "r")
    own = own_store(again, recipe_in(tmp_path))
    assert own is not None
    assert own.digest == tiny_store.digest


def test_other_settings_are_refused(tmp_path, tiny_store):
    started(recipe_in(tmp_path), tiny_store)
    with pytest.raises(UserError, match=r"train\.tokens was 1000, is 2000"):
        open_run(recipe_in(tmp_path, tokens=2000), "r")


def test_a_run_that_took_no_step_frees_its_name(tmp_path, tiny_store):
    started(recipe_in(tmp_path), tiny_store, checkpoint=False)
    left = tmp_path / "r" / "examples.html"
    left.write_text("of the run before")
    (tmp_path / "r" / "metrics.jsonl").write_text('{"step": 0, "time": 1.0, "values": {"val/loss": 9.0}}\n')
    other = recipe_in(tmp_path, tokens=2000)
    assert not has_begun(other, "r")
    run = open_run(other, "r")
    assert left.exists(), "opening removes nothing"
    begun = begin(other, run, tiny_store)
    assert begun.record.settings["train.tokens"] == "2000"
    assert not left.exists()
    assert not (tmp_path / "r" / "metrics.jsonl").exists()


def test_a_run_that_logged_a_step_keeps_its_name(tmp_path, tiny_store):
    started(recipe_in(tmp_path), tiny_store, checkpoint=False)
    (tmp_path / "r" / "metrics.jsonl").write_text('{"step": 3, "time": 1.0, "values": {"train/loss": 9.0}}\n')
    with pytest.raises(UserError, match=r"train\.tokens was 1000, is 2000"):
        open_run(recipe_in(tmp_path, tokens=2000), "r")


def test_fresh_removes_the_old_run_when_the_new_one_starts(tmp_path, tiny_store):
    started(recipe_in(tmp_path), tiny_store)
    place = tmp_path / "r" / "checkpoints" / "step-00000005" / "manifest.json"
    fresh = recipe_in(tmp_path, fresh=True, tokens=2000)
    run = open_run(fresh, "r")
    assert place.exists()
    assert own_store(run, fresh) is None
    begin(fresh, run, tiny_store)
    assert not place.exists()


@pytest.mark.parametrize("fresh", [False, True])
def test_a_folder_that_is_no_run_is_left_alone(tmp_path, fresh):
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="is not a run"):
        open_run(recipe_in(tmp_path, fresh=fresh), "r")
    assert (tmp_path / "r" / "thesis.txt").exists()


@pytest.mark.parametrize("name", ["..", ".", "a/b", "/etc", "a b", "-x"])
def test_a_name_that_is_no_folder_of_its_own_is_refused(tmp_path, name):
    recipe = recipe_in(tmp_path)
    recipe.run.name = name
    with pytest.raises(UserError, match="cannot be a run's name"):
        run_name(recipe, "quickstart")


def test_a_run_goes_on_with_its_own_store_only(tmp_path, tiny_store, tiny_tokenizer):
    """Its store is used while it exists; when it is gone, another one is refused instead of trained on."""
    other = small.store(tmp_path / "other", tiny_tokenizer, row_width=200)
    mine = small.store(tmp_path / "mine", tiny_tokenizer)
    assert other.digest != mine.digest
    run = started(recipe_in(tmp_path), mine)
    storage.remove_tree(mine.url)
    assert own_store(run, recipe_in(tmp_path)) is None
    with pytest.raises(DataError, match="was trained on another store"):
        begin(recipe_in(tmp_path), open_run(recipe_in(tmp_path), "r"), other)


def test_a_run_without_a_checkpoint_may_take_another_store(tmp_path, tiny_tokenizer):
    mine, other = (small.store(tmp_path / n, tiny_tokenizer, row_width=w) for n, w in (("mine", 160), ("other", 200)))
    started(recipe_in(tmp_path), mine, checkpoint=False)
    storage.remove_tree(mine.url)
    again = started(recipe_in(tmp_path), other)
    assert again.record.store_digest == other.digest


def test_a_run_is_held_by_one(tmp_path):
    run = Run.of(recipe_in(tmp_path), "a")
    with (
        locked(run),
        pytest.raises(UserError, match="is being trained by another process"),
        locked(run),
    ):
        pytest.fail("both hold it")
    with locked(run):
        assert not storage.exists(run.url), "the lock lies beside the run"


@pytest.mark.integration
def test_going_on_without_mlflow_keeps_the_tracking_run(mlflow_root, tiny_store):
    tracked = recipe_in(mlflow_root)
    tracked.tracking = tracking.TrackingConfig()
    run = started(tracked, tiny_store)
    known = run.record.mlflow_run_id
    assert known
    assert started(recipe_in(mlflow_root), tiny_store).record.mlflow_run_id == known
