"""What data.select.exclude names: files where they lie, folders, globs, archives, ids; and never nothing in silence."""

import json
import zipfile
from pathlib import Path

import pytest
from helpers.selections import prose, units_of

from infra.errors import UserError
from pipelines.corpus.sources import InputFile, Source, list_inputs
from pipelines.document import document_id
from pipelines.selection.exclusion import Exclusions, check_ids, find_excluded

NAMES = ("a.txt", "news/1.txt", "news/10.txt", "news/2019/b.txt", "news/[odd].txt", "wiki/a.txt")


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """The working directory; the source `raw` lies in it."""
    for name in NAMES:
        path = tmp_path / "raw" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("A text of more than twenty characters.")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def files(here: Path) -> list[InputFile]:
    return list_inputs([Source("text", f"{here}/raw")])


@pytest.mark.parametrize(
    ("entry", "named"),
    [
        ("raw/news/1.txt", ["news/1.txt"]),
        ("./raw/news/1.txt", ["news/1.txt"]),
        ("raw/../raw/news/1.txt", ["news/1.txt"]),
        ("file://{here}/raw/news/1.txt", ["news/1.txt"]),
        ("{here}/raw/news/2019", ["news/2019/b.txt"]),
        ("raw/news/2019/", ["news/2019/b.txt"]),
        ("raw", sorted(NAMES)),
        ("raw/news/1*.txt", ["news/1.txt", "news/10.txt"]),
        ("{here}/raw/*.txt", ["a.txt"]),
        ("raw/**/a.txt", ["a.txt", "wiki/a.txt"]),
        ("raw/n*s", ["news/1.txt", "news/10.txt", "news/2019/b.txt", "news/[odd].txt"]),
        ("raw/news/[0-9].txt", ["news/1.txt"]),
        ("raw/news/[odd].txt", ["news/[odd].txt"]),
        ("wiki/a.txt", ["wiki/a.txt"]),
        ("./wiki", ["wiki/a.txt"]),
        ("*/1.txt", ["news/1.txt"]),
    ],
)
def test_an_entry_names_files_as_a_source_does_or_below_its_root(here, entry, named):
    entry = entry.format(here=here)
    assert find_excluded([entry], files(here)) == Exclusions((), {("raw", path): entry for path in named})


@pytest.mark.parametrize(
    "entry", ["news/3.txt", "raw/news/1", "{here}/raw/news/3.txt", "raw/*.md", "s3://b/raw", "2019"]
)
def test_an_entry_that_names_no_file_is_refused(here, entry):
    entry = entry.format(here=here)
    with pytest.raises(UserError) as refused:
        find_excluded(["a.txt", entry, "0" * 32], files(here))
    assert refused.value.exit_code == 2
    assert refused.value.message == f"data.select.exclude names no document: {entry}"
    place = entry if "//" in entry or entry.startswith("/") else f"{here}/{entry}"
    assert str(refused.value.why).startswith(f"{place} is not among the 6 files of data.sources")


def test_the_refusal_names_the_nearest_file(here):
    with pytest.raises(UserError, match=rf"the nearest is {here}/raw/news/10\.txt"):
        find_excluded(["raw/new/10.txt"], files(here))


def test_an_empty_entry_is_refused(here):
    with pytest.raises(UserError, match="holds an empty text"):
        find_excluded(["a.txt", ""], files(here))


def test_files_of_remote_sources_and_of_archives(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with zipfile.ZipFile("texts.zip", "w") as archive:
        for name in ("in/1.jsonl", "in/2.jsonl", "3.jsonl"):
            archive.writestr(name, json.dumps({"text": "x"}))
    packed = list_inputs([Source("jsonl", f"zip://::{tmp_path}/texts.zip", name="z")])
    remote = [InputFile(1, "s", "text", {}, f"s3://b/c/{path}", path, 1, "v") for path in ("d/1.txt", "d.txt")]

    def named(entry: str) -> list[tuple[str, str]]:
        return list(find_excluded([entry], packed + remote).files)

    assert named(f"zip://in/1.jsonl::{tmp_path}/texts.zip") == [("z", "in/1.jsonl")]
    assert named("zip://in::texts.zip") == [("z", "in/1.jsonl"), ("z", "in/2.jsonl")]
    assert named("zip://*/2.jsonl::texts.zip") == [("z", "in/2.jsonl")]
    assert named("texts.zip") == [("z", "3.jsonl"), ("z", "in/1.jsonl"), ("z", "in/2.jsonl")]
    assert named("*.zip") == named(".") == named("texts.zip")
    assert named("s3://b/c/d") == [("s", "d/1.txt")]
    assert named("s3://b/c/d.*") == [("s", "d.txt")]
    assert named("s3://b") == [("s", "d.txt"), ("s", "d/1.txt")]


def test_ids_are_those_of_documents_that_were_read_kept_or_dropped(tmp_path):
    units = units_of(tmp_path, a=[[prose(0), prose(1)]])
    broken = sum(len(json.dumps({"text": prose(number)})) + 1 for number in (0, 1))
    kept, dropped = (document_id("a", "0.jsonl", offset).hex() for offset in (0, broken))
    check_ids([kept, dropped], units, f"{tmp_path}/text")
    unknown = kept[:-1] + ("0" if kept[-1] != "0" else "1")
    with pytest.raises(UserError) as refused:
        check_ids([kept, unknown], units, f"{tmp_path}/text")
    assert refused.value.message == f"data.select.exclude names no document: {unknown}"
    assert refused.value.try_ == f"use {kept}, which is alike"
    assert refused.value.why == "none of the 3 documents of data.sources has this id"
