"""Files that came to the sources of a run after its store was made are named; nothing else is said."""

import io
import shutil
from pathlib import Path

import pytest
from helpers import small

from infra.console import Console
from pipelines.corpus.sources import Source, list_inputs
from pipelines.store.format import TokenStore
from workflows.housekeeping.added import added_files, warn_of_added
from workflows.settings.recipe import Recipe


@pytest.fixture
def store(tmp_path, tiny_tokenizer) -> TokenStore:
    """The store of one file, `raw`; its ledger names a second one, of which nothing was kept."""
    made = small.store(tmp_path, tiny_tokenizer)
    (tmp_path / "raw" / "empty.jsonl").write_text("")
    entry = small.ledger.Entry(bytes(16), "corpus", str(tmp_path / "raw" / "empty.jsonl"), 0, "empty", "", 0)
    small.ledger.write_ledger(f"{made.url}/ledger.parquet", [entry])
    return made


def warned(store: TokenStore | None, folder: Path) -> str:
    recipe = Recipe()
    recipe.data.sources = [Source("jsonl", str(folder), name="corpus")]
    recipe.data.root = f"{folder}-data"
    out = io.StringIO()
    warn_of_added(store, recipe, Console(file=out))
    return out.getvalue()


def test_nothing_is_said_of_the_files_that_it_was_made_of(store, tmp_path):
    assert warned(store, tmp_path / "raw") == ""
    shutil.move(tmp_path / "raw", tmp_path / "moved")
    assert warned(store, tmp_path / "moved") == ""
    assert warned(store, tmp_path / "nowhere") == ""
    assert warned(None, tmp_path / "moved") == ""


def test_files_that_were_added_are_named(store, tmp_path):
    for name in ("later", "also", "third", "fourth"):
        shutil.copy(tmp_path / "raw" / "corpus.jsonl", tmp_path / "raw" / f"{name}.jsonl")
    files = list_inputs([Source("jsonl", str(tmp_path / "raw"), name="corpus")])
    assert added_files(store, files) == ["also.jsonl", "fourth.jsonl", "later.jsonl", "third.jsonl"]
    told = warned(store, tmp_path / "raw")
    assert told.startswith("warning: 4 files were added to the sources since the store of this run was made")
    assert "also.jsonl, fourth.jsonl, later.jsonl, ..." in told
