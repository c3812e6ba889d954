"""Paths of a recipe are absolute before anything uses them, and the recipe that was given stays as it was."""

import copy
from pathlib import Path

import pytest

from infra.errors import UserError
from pipelines.corpus.sources import Source
from pipelines.store.config import Member
from workflows.settings.places import resolve_paths
from workflows.settings.recipe import Recipe


def recipe() -> Recipe:
    made = Recipe()
    made.data.sources = [Source("text", "texts"), Source("pydocs"), Source("jsonl", "s3://bucket/a")]
    made.data.mix = [Member("stores/a")]
    made.data.tokenizer.url = "vocab.txt"
    made.model.init_from = "/models/a"
    return made


def test_relative_paths_are_those_of_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = recipe()
    before = copy.deepcopy(given)
    resolved = resolve_paths(given, in_job=False)
    assert given == before
    assert [source.url for source in resolved.data.sources] == [f"{tmp_path}/texts", "", "s3://bucket/a"]
    assert (resolved.run.storage_path, resolved.data.root) == (f"{tmp_path}/runs", f"{tmp_path}/runs/data")
    assert (resolved.data.mix[0].store, resolved.data.tokenizer.url) == (
        f"{tmp_path}/stores/a",
        f"{tmp_path}/vocab.txt",
    )
    assert (resolved.model.init_from, resolved.data.store, resolved.data.cache) == ("/models/a", None, None)
    assert resolve_paths(resolved, in_job=True) == resolved


def test_an_exclusion_that_lies_in_the_working_directory_is_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").touch()
    given = recipe()
    given.data.select.exclude = ["a.txt", "*.txt", "b.txt", "s3://b/a.txt", "0" * 32]
    resolved = resolve_paths(given, in_job=False).data.select.exclude
    assert resolved == [f"{tmp_path}/a.txt", f"{tmp_path}/*.txt", "b.txt", "s3://b/a.txt", "0" * 32]


def test_inside_a_ray_job_the_first_relative_path_is_refused(monkeypatch):
    given = recipe()
    given.run.storage_path, given.data.root = "/shared/runs", str(Path("/shared/data"))
    with pytest.raises(UserError, match=r"^data\.tokenizer\.url=vocab\.txt is a relative path") as refused:
        resolve_paths(given, in_job=True)
    assert "--data.tokenizer.url=/shared/vocab.txt" in str(refused.value.try_)
