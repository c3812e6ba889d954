"""A file that cannot be read fails with its name, and the others are answered (law 22): exit code 3 above `max_lost`,
and the same command answers what was missing when the file is mended.
"""

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import asked

WORDS = {"bad": "dog", "good": "ran"}


@pytest.fixture(scope="module")
def model(tmp_path_factory, tiny_tokenizer) -> str:
    return asked.teach(asked.model_folder(tmp_path_factory.mktemp("models") / "small", tiny_tokenizer), WORDS)


@pytest.fixture
def folder(tmp_path) -> Path:
    """Three Parquet files of 10 rows each, of which the second is damaged."""
    rows = asked.rows(30)
    (tmp_path / "in").mkdir()
    for number in range(3):
        part = pa.Table.from_pylist(rows[10 * number : 10 * number + 10])
        pq.write_table(part, tmp_path / "in" / f"{number}.parquet", compression="none", use_dictionary=False)
    damage(tmp_path / "in" / "1.parquet")
    return tmp_path


def damage(path: Path) -> None:
    """Make the pages of a file unreadable, and leave its footer."""
    whole = path.read_bytes()
    path.with_suffix(".whole").write_bytes(whole)
    path.write_bytes(whole[:4] + b"\xff" * 200 + whole[204:])


def mend(folder: Path) -> None:
    (folder / "in" / "1.whole").replace(folder / "in" / "1.parquet")


def ids(folder: Path) -> list[str]:
    return pq.read_table(folder / "out")["id"].to_pylist()


def manifest(folder: Path) -> Path:
    return folder / "out" / "_manifest.json"


def test_the_others_are_answered_and_the_command_fails_with_its_name(run, folder):
    code, _, err = run("--input=in", "--shard_rows=4")
    assert code == 3
    assert "1 of 3 files of" in err
    assert f"cannot read {folder}/in/1.parquet" in err
    assert ids(folder) == [f"item-{n}" for n in (*range(10), *range(20, 30))]
    assert not manifest(folder).exists()


def test_the_same_command_answers_the_mended_file_alone(run, folder, monkeypatch):
    run("--input=in", "--shard_rows=4")
    before = {path.name: path.stat().st_mtime_ns for path in folder.glob("out/*.parquet")}
    mend(folder)
    assert run("--input=in", "--shard_rows=4")[0] == 0
    after = {path.name: path.stat().st_mtime_ns for path in folder.glob("out/*.parquet")}
    assert (len(before), len(after)) == (6, 9)
    assert {name: after[name] for name in before} == before
    assert ids(folder) == [f"item-{n}" for n in range(30)]


def test_the_share_that_may_be_lost_is_a_setting_and_what_is_lost_is_kept_in_the_manifest(run, folder):
    code, out, _ = run("--input=in", "--max_lost=0.4")
    assert code == 0
    assert f"warning: cannot read {folder}/in/1.parquet" in out
    assert "20 rows in" in out
    told = json.loads(manifest(folder).read_text())
    assert (told["rows"], [*told["lost"]]) == (20, [f"{folder}/in/1.parquet"])
    mend(folder)
    assert run("--input=in", "--max_lost=0.4")[0] == 0
    assert json.loads(manifest(folder).read_text())["lost"] == {}
    assert ids(folder) == [f"item-{n}" for n in range(30)]


def test_a_compressed_file_that_breaks_off_is_lost_whole(run, tmp_path):
    text = "".join(json.dumps(row) + "\n" for row in asked.rows(200))
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jsonl.gz").write_bytes(gzip.compress(text.encode())[:-200])
    asked.write(tmp_path / "in" / "b.jsonl", asked.rows(3))
    code, _, err = run("--input=in")
    assert (code, "a.jsonl.gz breaks off" in err) == (3, True)
    assert ids(tmp_path) == ["item-0", "item-1", "item-2"]


def test_nothing_is_answered_where_no_file_can_be_read(run, tmp_path):
    (tmp_path / "in.parquet").write_bytes(b"PAR1 and nothing else")
    code, _, err = run("--input=in.parquet", "--max_lost=1")
    assert (code, "cannot read" in err) == (3, True)
    assert not (tmp_path / "out").exists()
