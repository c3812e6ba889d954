"""stores.py: what there is and who needs it is said as it is; nothing that a run needs is removed."""

import os
import shutil
import sys
from pathlib import Path

import pytest
from helpers import small

from infra.config import Count
from infra.console import Console
from infra.errors import run_main
from pipelines.prepare import open_given
from pipelines.store.config import Member
from pipelines.store.format import TokenStore
from workflows import stores as script
from workflows.housekeeping.stores import StoreEntry, list_stores
from workflows.runs.run import Run, open_run, start
from workflows.runs.setup import resolve_setup
from workflows.settings.recipe import Recipe

DAYS_30 = 30 * 86_400


@pytest.fixture
def root(tmp_path, tiny_tokenizer) -> Path:
    """Three stores, written a month ago: `aaaa`, `bbbb`, and `cccc`, which is not finished."""
    made = small.store(tmp_path / "made", tiny_tokenizer)
    other = small.store(tmp_path / "other", tiny_tokenizer, row_width=200)
    folder = tmp_path / "runs" / "data" / "stores"
    shutil.move(made.url, folder / "aaaa")
    shutil.move(other.url, folder / "bbbb")
    shutil.copytree(folder / "bbbb", folder / "cccc")
    (folder / "cccc" / "manifest.json").unlink()
    grow_old(folder)
    return tmp_path / "runs" / "data"


def grow_old(folder: Path) -> None:
    for file in folder.rglob("*"):
        at = file.stat().st_mtime - DAYS_30
        os.utime(file, (at, at))


def run_on(store: TokenStore, folder: Path, name: str = "r") -> Run:
    """A run in this folder that has begun on the store."""
    recipe = Recipe()
    recipe.run.storage_path = str(folder)
    recipe.tracking.enabled = False
    recipe.train.tokens = Count(1000)
    recipe.data.store = store.url
    return start(resolve_setup(recipe, store, Console()), open_run(recipe, name))[0]


def store_named(root: Path, key: str) -> TokenStore:
    return TokenStore.open(str(root / "stores" / key))


def entries(root: Path, *runs: Path) -> dict[str, StoreEntry]:
    return {entry.key: entry for entry in list_stores(str(root), [str(folder) for folder in runs])}


@pytest.fixture
def run(monkeypatch, capsys, root):
    def run(*argv: str) -> tuple[int, str, str]:
        monkeypatch.chdir(root.parent.parent)
        monkeypatch.setattr(sys, "argv", ["stores.py", *argv])
        with pytest.raises(SystemExit) as stopped:
            run_main(script.main)
        captured = capsys.readouterr()
        assert isinstance(stopped.value.code, int)
        return stopped.value.code, captured.out, captured.err

    return run


def test_a_store_is_listed_with_its_source_size_age_and_users(root):
    run_on(store_named(root, "aaaa"), root.parent, "first")
    found = entries(root, root.parent)
    size = sum(file.stat().st_size for file in (root / "stores" / "aaaa").rglob("*") if file.is_file())
    one = found["aaaa"]
    assert (one.name, one.num_bytes, one.runs, one.gone) == ("corpus-aaaa", size, ("first",), ())
    assert one.age_s is not None
    assert 29 < one.age_s / 86_400 < 31
    assert (found["bbbb"].name, found["bbbb"].runs) == ("corpus-bbbb", ())
    assert (found["cccc"].name, found["cccc"].digest) == ("unfinished-cccc", None)


def test_a_run_is_known_wherever_its_folder_lies(root, tmp_path):
    """By its note in the store; and where the folder is not there any more, the store is kept all the same."""
    away = run_on(store_named(root, "aaaa"), tmp_path / "elsewhere")
    assert entries(root, root.parent)["aaaa"].runs == ("r",)
    shutil.rmtree(away.url)
    gone = entries(root, root.parent)["aaaa"]
    assert (gone.runs, gone.gone) == ((), (away.url,))


def test_a_run_that_moved_is_known_by_the_digest_of_its_store(root, tmp_path):
    begun = run_on(store_named(root, "aaaa"), tmp_path / "elsewhere")
    shutil.rmtree(root / "stores" / "aaaa" / "used_by")
    assert entries(root, root.parent)["aaaa"].runs == ()
    shutil.move(begun.url, root.parent / "moved")
    assert entries(root, root.parent)["aaaa"].runs == ("moved",)


def test_the_members_of_a_mix_are_needed_by_its_runs(root, tiny_tokenizer, tmp_path):
    other = small.store(tmp_path / "third", tiny_tokenizer)
    shutil.move(other.url, root / "stores" / "dddd")
    recipe = Recipe()
    recipe.data.root = str(root)
    recipe.data.mix = [Member(str(root / "stores" / key)) for key in ("aaaa", "dddd")]
    run_on(open_given(recipe.data), root.parent, "mixed")
    found = entries(root, root.parent)
    assert found["aaaa"].runs == found["dddd"].runs == ("mixed",)
    assert found["bbbb"].runs == ()


def test_prune_says_what_it_would_remove_and_removes_it_when_told(root, run):
    run_on(store_named(root, "aaaa"), root.parent)
    code, out, _ = run("prune")
    assert (code, "would be removed" in out, "corpus-bbbb" in out, "unfinished-cccc" in out) == (0, True, True, True)
    assert "corpus-aaaa" not in out
    assert (root / "stores" / "bbbb").exists()
    code, out, _ = run("prune", "--yes")
    assert (code, "removed" in out) == (0, True)
    assert sorted(path.name for path in (root / "stores").iterdir()) == ["aaaa"]
    code, out, _ = run("prune", "--yes")
    assert "nothing to remove" in out


def test_a_store_that_a_run_needs_is_not_removed_by_name_either(root, run, tmp_path):
    away = run_on(store_named(root, "aaaa"), tmp_path / "elsewhere", "keep")
    code, _, error = run("prune", "aaaa", "--yes")
    assert code == 2
    assert "the store corpus-aaaa is needed by keep" in error
    shutil.rmtree(away.url)
    code, _, error = run("prune", "corpus-aaaa", "--yes")
    assert code == 2
    assert f"is needed by {away.url}" in error
    assert store_named(root, "aaaa").train.rows
    code, _, _ = run("prune", "corpus-aaaa", "--gone=true", "--yes")
    assert code == 0
    assert not (root / "stores" / "aaaa").exists()


def test_what_is_new_goes_by_name_alone(root, run):
    for file in (root / "stores" / "cccc").rglob("*"):
        os.utime(file)
    run("prune", "--yes")
    assert sorted(path.name for path in (root / "stores").iterdir()) == ["cccc"]
    run("prune", "cccc", "--yes")
    assert not (root / "stores" / "cccc").exists()


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        ((), "expected list or prune, got nothing"),
        (("lst",), "expected list or prune, got lst"),
        (("prune", "corpus-zzzz"), "0 stores are named 'corpus-zzzz'; did you mean 'corpus-"),
        (("list", "--root=runs/dta"), "does not exist"),
    ],
)
def test_mistakes_are_said(run, argv, told):
    code, _, error = run(*argv)
    assert code in (2, 3)
    assert told in error


def test_list_shows_a_table(root, run):
    run_on(store_named(root, "aaaa"), root.parent, "first")
    code, out, _ = run("list")
    assert code == 0
    assert "used by" in out
    assert "first" in out
    assert "nobody" in out
    assert "3 stores, " in out
