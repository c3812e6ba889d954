"""A run is known by the names of its sources and the digest of its store: places change together or alone."""

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from helpers import small

from infra import storage
from infra.checkpoint import CheckpointWriter
from infra.config import Count
from infra.console import Console
from infra.errors import DataError, UserError, run_main
from pipelines.corpus.sources import Source
from pipelines.prepare import open_given
from pipelines.store.config import Member
from workflows import pretrain
from workflows.runs.moved import check_finished, find_again, own_store
from workflows.runs.run import Run, open_run, start
from workflows.runs.setup import resolve_setup
from workflows.settings.identity import identity
from workflows.settings.recipe import Recipe


def recipe_in(folder: Path, **data) -> Recipe:
    recipe = Recipe()
    recipe.run.storage_path, recipe.data.root = f"{folder}/runs", f"{folder}/data"
    recipe.data.sources = [Source("jsonl", f"{folder}/raw", name="news")]
    recipe.tracking.enabled = False
    recipe.train.tokens = Count(1000)
    recipe.data = replace(recipe.data, **data)
    return recipe


@pytest.fixture
def begun(tmp_path, tiny_tokenizer) -> Path:
    """A folder with raw text, a store, and a run that has a checkpoint."""
    folder = tmp_path / "a"
    made = small.store(folder / "made", tiny_tokenizer)
    shutil.move(made.url, folder / "data" / "stores" / "key")
    shutil.move(folder / "made" / "raw", folder / "raw")
    recipe = recipe_in(folder)
    store = small.stores.TokenStore.open(f"{folder}/data/stores/key")
    run, _ = start(resolve_setup(recipe, store, Console()), open_run(recipe, "r"))
    writer = CheckpointWriter(run.checkpoints_url)
    writer.save(5, {}, {"state": {}, "param_groups": []}, {})
    writer.wait()
    return folder


def place_of_store(recipe: Recipe) -> str | None:
    store = own_store(open_run(recipe, "r"), recipe)
    return store and store.url


def test_the_name_of_a_run_does_not_say_where_anything_lies(tmp_path):
    recipe = recipe_in(tmp_path / "a")
    assert identity(recipe_in(tmp_path / "b")) == identity(recipe)
    assert identity(recipe_in(tmp_path / "a", sources=[Source("jsonl", "s3://b/raw", name="news")])) == identity(recipe)
    unnamed = recipe_in(tmp_path, sources=[Source("jsonl", "/x/raw")])
    assert identity(unnamed) == identity(recipe_in(tmp_path, sources=[Source("jsonl", "/y/raw/", name="raw")]))
    for other in (Source("jsonl", "/x/raw", name="other"), Source("text", "/x/raw"), Source("jsonl", "/x/other")):
        assert identity(recipe_in(tmp_path, sources=[other])) != identity(unnamed)
    model = [Recipe(), Recipe(), Recipe()]
    for one, place in zip(model, ("/x/runs/r/model", "/y/r/model", "/x/runs/s/model"), strict=True):
        one.model.init_from = place
    assert identity(model[0]) == identity(model[1]) != identity(model[2])


def test_nothing_moved(begun):
    assert place_of_store(recipe_in(begun)) == f"{begun}/data/stores/key"


def test_all_moved_with_a_folder_above(begun, tmp_path):
    b = begun.rename(tmp_path / "b")
    assert place_of_store(recipe_in(b)) is None, "the moved text tells by the store that it makes"
    as_recorded = recipe_in(b, sources=[Source("jsonl", f"{begun}/raw", name="news")])
    assert place_of_store(as_recorded) == f"{b}/data/stores/key", "without the text"
    run = open_run(as_recorded, "r")
    found = find_again(run.record, run.url)
    assert found is not None
    assert found.url == f"{b}/data/stores/key", "for commands that are given the run alone"


def test_the_run_moved_alone(begun, tmp_path):
    shutil.move(begun / "runs", tmp_path / "elsewhere")
    recipe = recipe_in(begun)
    recipe.run.storage_path = f"{tmp_path}/elsewhere"
    assert place_of_store(recipe) == f"{begun}/data/stores/key"


def test_the_run_and_its_store_moved_to_other_depths_with_their_folder(begun, tmp_path):
    shutil.move(begun, tmp_path / "deep" / "er" / "a")
    run = Run.of(recipe_in(tmp_path / "deep" / "er" / "a"), "r").url
    found = find_again(open_run(recipe_in(tmp_path / "deep" / "er" / "a"), "r").record, run)
    assert found is not None
    assert found.url == f"{tmp_path}/deep/er/a/data/stores/key"


def test_the_store_moved_alone(begun, tmp_path):
    shutil.move(begun / "data" / "stores" / "key", tmp_path / "renamed")
    assert place_of_store(recipe_in(begun)) is None
    for sources in ([], recipe_in(begun).data.sources):
        recipe = recipe_in(begun, store=f"{tmp_path}/renamed", sources=sources, sequence_length=32, row_width=160)
        assert place_of_store(recipe) == f"{tmp_path}/renamed"
    shutil.move(tmp_path / "renamed", begun / "other_root" / "stores" / "key")
    assert place_of_store(replace_root(begun)) == f"{begun}/other_root/stores/key"


def replace_root(begun: Path) -> Recipe:
    return recipe_in(begun, root=f"{begun}/other_root")


def test_a_store_of_the_same_place_and_another_digest_is_not_taken(begun, tmp_path, tiny_tokenizer):
    other = small.store(tmp_path / "other", tiny_tokenizer, row_width=200)
    shutil.rmtree(begun / "data" / "stores" / "key")
    shutil.move(other.url, begun / "data" / "stores" / "key")
    assert place_of_store(recipe_in(begun)) is None
    for given in ({"store": f"{begun}/data/stores/key"}, {"mix": [Member(f"{begun}/data/stores/key")]}):
        recipe = recipe_in(begun, sources=[], **given)
        with pytest.raises((DataError, UserError), match=r"was trained on another store|exists with other settings"):
            place_of_store(recipe)


def test_what_moved_to_an_object_store_is_found_by_its_digest(begun):
    run = open_run(recipe_in(begun), "r")
    for path in (begun / "data" / "stores" / "key").rglob("*"):
        if path.is_file():
            storage.write_bytes(f"memory://moved/a/{path.relative_to(begun)}", path.read_bytes())
    shutil.rmtree(begun / "data")
    place = "memory://moved/a/data/stores/key"
    for url, root in (("memory://moved/a/runs/r", None), (run.url, "memory://moved/a/data")):
        found = find_again(run.record, url, root=root)
        assert found is not None
        assert found.url == place
    assert place_of_store(recipe_in(begun, store=place, sources=[])) == place


def test_a_mix_is_known_by_its_members(begun, tmp_path, tiny_tokenizer):
    shutil.move(small.store(tmp_path / "made", tiny_tokenizer).url, begun / "data" / "stores" / "other")

    def recipe(folder: Path) -> Recipe:
        members = [Member(f"{folder}/data/stores/{name}", weight) for name, weight in (("key", 3.0), ("other", 1.0))]
        return recipe_in(folder, mix=members, sources=[])

    mixed = open_given(recipe(begun).data)
    start(resolve_setup(recipe(begun), mixed, Console()), open_run(recipe(begun), "mixed"))
    run = open_run(recipe(begun), "mixed")
    assert own_store(run, recipe(begun)) is not None
    moved = recipe(begun.rename(tmp_path / "b"))
    again = own_store(open_run(moved, "mixed"), moved)
    assert again is not None
    assert again.digest == mixed.digest
    assert again.url.startswith(f"{tmp_path}/b/data/mixes/")
    assert again.train.read_group(0).ids.tolist(), "its members are those that were given"


def test_mlflows_database_may_move_with_the_run(begun, tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    recipe = recipe_in(begun)
    recipe.tracking.enabled = True
    run = open_run(recipe, "r")
    for recorded, now in (
        (f"sqlite:///{tmp_path}/gone/mlflow.db", f"sqlite:///{begun}/runs/mlflow.db"),
        (f"sqlite:///{begun}/runs/r/run.json", f"sqlite:///{begun}/runs/r/run.json"),
        ("http://mlflow:5000", "http://mlflow:5000"),
    ):
        run.with_record(tracking_uri=recorded).write()
        assert open_run(recipe, "r").record.tracking_uri == now


def test_a_finished_run_of_text_that_lies_elsewhere_is_shown_only_where_it_is_the_same(begun, tmp_path):
    recipe = recipe_in(begun)
    run = open_run(recipe, "r").with_record(finished=True)
    run.write()
    check_finished(open_run(recipe, "r"), recipe)
    shutil.copytree(begun / "raw", tmp_path / "other" / "raw")
    elsewhere = recipe_in(begun, sources=[Source("jsonl", f"{tmp_path}/other/raw", name="news")])
    with pytest.raises(UserError, match="was trained on text that lay elsewhere") as refused:
        check_finished(open_run(elsewhere, "r"), elsewhere)
    assert refused.value.why == f"data.sources.0.url was {begun}/raw, is {tmp_path}/other/raw"


def test_a_name_that_was_given_by_hand_belongs_to_one_configuration(begun, monkeypatch, capsys):
    argv = ["pretrain.py", f"--data.sources=[{{reader: jsonl, url: {begun}/raw, name: news}}]", "--train.tokens=1000"]
    argv += [f"--data.root={begun}/data", f"--run.storage_path={begun}/runs", "--tracking.enabled=false"]
    monkeypatch.setattr("infra.cluster.connect.connect", lambda *_, **__: pytest.fail("Ray starts"))
    monkeypatch.setattr(sys, "argv", [*argv, "--run.name=r", "--optim.lr=0.5", "--data.seed=5"])
    with pytest.raises(SystemExit) as stopped:
        run_main(pretrain.main)
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert "the run 'r' exists with other settings: data.seed was 1234, is 5; optim.lr was " in error
    assert f"{begun}/runs/r was started with them, and a run keeps its settings" in error
    assert "choose another --run.name, or --run.fresh=true" in error


def test_records_of_earlier_versions_are_compared_by_what_they_say(begun):
    recipe = recipe_in(begun)
    run = open_run(recipe, "r")
    early = {"data.select.duplicates": "auto", "data.select.similarity": "0.8", "train.batch_tokens": "32768"}
    run.with_record(identity="0" * 64, url=None, settings=run.record.settings | early).write()
    assert place_of_store(recipe) == f"{begun}/data/stores/key"
    assert storage.exists(f"{begun}/runs/r/run.json")
