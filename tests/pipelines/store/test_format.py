"""The token store (law 12): what is written is read, what is unfinished, foreign or damaged is refused, and what the
digest covers.
"""

import itertools
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import small
from hypothesis import given
from hypothesis import strategies as st

from infra.errors import DataError
from pipelines.corpus.ledger import DocumentCounts, SourceBalance
from pipelines.ragged import Segments
from pipelines.selection.contamination import SetReport
from pipelines.store import format
from pipelines.store.format import TokenStore, read_rows, token_dtype, write_shard
from pipelines.store.manifest import Manifest

U2, U4 = np.dtype("<u2"), np.dtype("<u4")


def segments(*parts: list[int]) -> Segments:
    """Segments with ids 1000, 1001, ... and 10 bytes per token."""
    sizes = [len(part) for part in parts]
    count = len(parts)
    ids = np.arange(1000, 1000 + count, dtype=np.uint64)
    tokens = np.array([t for part in parts for t in part], np.uint32)
    return Segments(tokens, np.cumsum([0, *sizes]), ids, 10 * np.array(sizes, np.int64))


def write(
    folder, parts: Segments, rows, *, dtype=U2, rows_per_group=2, name="train/shard-00000.parquet"
) -> format.Shard:
    arrays = [np.array(row) for row in rows]
    return write_shard(
        f"{folder}/{name}", parts, arrays, dtype=dtype, rows_per_group=rows_per_group, expected_fill=0.5, path=name
    )


PARTS = segments([1, 5, 6], [1, 7], [1, 8, 9, 0], [1, 65_535], [1, 3])
ROWS = [[2, 0], [1], [4, 3]]


def test_a_shard_tells_what_it_holds(tmp_path):
    shard = write(tmp_path, PARTS, ROWS)
    assert shard.groups == (2, 1)
    assert (shard.rows, shard.segments, shard.tokens, shard.num_bytes) == (3, 5, 13, 130)
    assert (shard.path, shard.expected_fill) == ("train/shard-00000.parquet", 0.5)
    assert format.shard_of(json.loads(json.dumps(shard.__dict__))) == shard, "an entry of the manifest gives it back"


@pytest.mark.parametrize("dtype", [U2, U4])
def test_rows_are_read_as_written(tmp_path, dtype):
    write(tmp_path, PARTS, ROWS, dtype=dtype)
    rows = read_rows(pq.read_table(tmp_path / "train/shard-00000.parquet"), dtype)
    assert rows.tokens.dtype == dtype
    assert rows.tokens.tolist() == [1, 8, 9, 0, 1, 5, 6, 1, 7, 1, 3, 1, 65_535]
    assert rows.offsets.tolist() == [0, 4, 7, 9, 11, 13]
    assert rows.ids.tolist() == [1002, 1000, 1001, 1004, 1003]
    assert rows.num_bytes.tolist() == [40, 30, 20, 20, 20]
    assert rows.row_offsets.tolist() == [0, 2, 3, 5]


def test_row_groups_are_read_one_by_one(tmp_path):
    shards = [
        write(tmp_path, PARTS, ROWS),
        write(tmp_path, segments([1, 4]), [[0]], name="train/shard-00001.parquet"),
    ]
    split = format.Split(str(tmp_path), shards, U2)
    assert split.group_rows.tolist() == [2, 1, 1]
    assert split.group_places == [(0, 0), (0, 1), (1, 0)]
    assert (split.rows, split.tokens, split.segments) == (4, 15, 6)
    assert [split.read_group(g).tokens.tolist() for g in (2, 0, 1)] == [
        [1, 4],
        [1, 8, 9, 0, 1, 5, 6, 1, 7],
        [1, 3, 1, 65_535],
    ]


@st.composite
def packed(draw):
    sizes = draw(st.lists(st.integers(1, 6), min_size=1, max_size=12))
    tokens = draw(st.lists(st.integers(0, 65_535), min_size=sum(sizes), max_size=sum(sizes)))
    order = draw(st.permutations(range(len(sizes))))
    cuts = sorted(draw(st.sets(st.integers(1, len(sizes)), max_size=4)) | {0, len(sizes)})
    return sizes, tokens, [list(order[a:b]) for a, b in itertools.pairwise(cuts)], draw(st.integers(1, 4))


@given(packed())
def test_any_rows_survive_the_round_trip(tmp_path_factory, case):
    sizes, tokens, rows, rows_per_group = case
    offsets = np.cumsum([0, *sizes])
    parts = [tokens[a:b] for a, b in itertools.pairwise(offsets)]
    folder = tmp_path_factory.mktemp("round")
    shard = write(folder, segments(*parts), rows, rows_per_group=rows_per_group)
    split = format.Split(str(folder), [shard], U2)
    read = []
    for group in range(len(split.group_places)):
        batch = split.read_group(group)
        for a, b in zip(batch.row_offsets[:-1], batch.row_offsets[1:], strict=True):
            read.append([batch.tokens[batch.offsets[i] : batch.offsets[i + 1]].tolist() for i in range(a, b)])
    assert read == [[parts[i] for i in row] for row in rows]


def test_tokens_take_two_bytes_up_to_65536_and_then_four():
    assert [token_dtype(n) for n in (10, 65_536, 65_537)] == [U2, U2, U4]


def test_a_shards_digest_is_that_of_its_content(tmp_path):
    base = write(tmp_path, PARTS, ROWS).digest
    assert write(tmp_path, PARTS, ROWS, rows_per_group=1).digest == base, "how rows are grouped is not content"
    assert write(tmp_path / "elsewhere", PARTS, ROWS).digest == base
    other_token = segments([1, 5, 6], [1, 7], [1, 8, 9, 0], [1, 65_534], [1, 3])
    other_id = replace(PARTS, ids=PARTS.ids + np.uint64(1))
    other_bytes = replace(PARTS, num_bytes=PARTS.num_bytes + 1)
    digests = {write(tmp_path, parts, ROWS).digest for parts in (other_token, other_id, other_bytes)}
    digests |= {write(tmp_path, PARTS, rows).digest for rows in ([[2, 0], [4, 3], [1]], [[0, 2], [1], [4, 3]])}
    digests |= {write(tmp_path, PARTS, [[2], [0, 1], [4, 3]]).digest}
    assert len(digests | {base}) == 7


MANIFEST = Manifest(
    tokenizer_digest="t",
    vocab_size=100,
    dtype="<u2",
    settings={"row_width": 16, "seed": 1},
    documents=DocumentCounts(read=3, kept=2, dropped=1),
    sources=(SourceBalance("news", 3, 2, 70, dropped={"empty": 1}, repaired={}),),
    contamination=(SetReport("boolq", entries=9, too_short=1, found=2, documents=3),),
    text_digests=("a", "b"),
)


def publish(folder, manifest, shards) -> str:
    return format.publish(str(folder), manifest, {"train": shards, "validation": [], "test": []})


def test_a_stores_digest_covers_tokenizer_settings_and_shards_and_nothing_else(tmp_path):
    shard = write(tmp_path, PARTS, ROWS)
    base = publish(tmp_path, MANIFEST, [shard])
    assert publish(tmp_path / "elsewhere", replace(MANIFEST, without_tokens=5), [shard]) == base
    changed = [
        publish(tmp_path, replace(MANIFEST, tokenizer_digest="u"), [shard]),
        publish(tmp_path, replace(MANIFEST, settings={"row_width": 16, "seed": 2}), [shard]),
        publish(tmp_path, MANIFEST, [shard, shard]),
        publish(tmp_path, MANIFEST, []),
    ]
    assert len({base, *changed}) == 5
    assert len(base) == 64


def test_a_store_is_opened_as_published(tmp_path):
    shard = write(tmp_path, PARTS, ROWS)
    digest = publish(tmp_path, MANIFEST, [shard])
    store = TokenStore.open(str(tmp_path))
    assert store.digest == digest
    assert (store.train.shards, store.validation.shards) == ([shard], [])
    assert store.validation.rows == store.validation.tokens == 0
    assert store.train.read_group(0).ids.tolist() == [1002, 1000, 1001]
    assert store.manifest == MANIFEST


def test_a_store_without_its_manifest_does_not_exist(tmp_path):
    write(tmp_path, PARTS, ROWS)
    with pytest.raises(
        DataError, match=r"is not a finished token store(.|\n)*workflows/prepare.py(.|\n)*continues"
    ) as error:
        TokenStore.open(str(tmp_path))
    assert str(tmp_path) in str(error.value)
    with pytest.raises(DataError, match="is not a finished token store"):
        TokenStore.open(str(tmp_path / "nowhere"))


def test_a_store_of_another_format_is_refused(tmp_path):
    for manifest, words in (({"format": 99}, "99"), ({}, "None")):
        (tmp_path / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(DataError, match=f"has store format {words}, and this version reads format 2"):
            TokenStore.open(str(tmp_path))
    (tmp_path / "manifest.json").write_text('{"format": 1')
    with pytest.raises(DataError, match="is not valid JSON"):
        TokenStore.open(str(tmp_path))


@pytest.mark.parametrize("damage", ["gone", "cut", "empty", "garbled"])
def test_a_damaged_shard_is_named_with_the_remedy(tmp_path, tiny_store, damage):
    shutil.copytree(tiny_store.url, tmp_path / "store")
    store = TokenStore.open(str(tmp_path / "store"))
    path = tmp_path / "store" / store.train.shards[0].path
    data = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        garbled = data[:8] + bytes(len(data) // 2) + data[8 + len(data) // 2 :]
        path.write_bytes({"cut": data[: len(data) // 2], "empty": b"", "garbled": garbled}[damage])
    with pytest.raises(DataError, match=r"cannot read(.|\n)*missing or damaged(.|\n)*remove that file") as error:
        store.train.read_group(0)
    assert store.train.shards[0].path in str(error.value)


def test_threads_that_read_at_a_time_read_what_is_there(tiny_store):
    """With a file in common, the process ended by a segmentation fault after some thousand groups."""
    split = tiny_store.train
    expected = [split.read_group(group).tokens.sum() for group in range(len(split.group_rows))]

    def read(_: int) -> bool:
        return all([split.read_group(g).tokens.sum() for g in range(len(expected))] == expected for _ in range(40))

    with ThreadPoolExecutor(4) as threads:
        assert [*threads.map(read, range(4))] == [True] * 4


def test_a_write_leaves_whole_files_only(tmp_path):
    write(tmp_path, PARTS, ROWS)
    assert [p.name for p in (tmp_path / "train").iterdir()] == ["shard-00000.parquet"]


def test_the_tiny_store_holds_what_its_documents_table_says(tiny_store):
    for split in ("train", "validation"):
        rows = getattr(tiny_store, split)
        table = pa.concat_tables(
            [pq.read_table(f"{tiny_store.url}/documents/{split}-{shard.path.rsplit('/')[-1]}") for shard in rows.shards]
        )
        assert sum(table["tokens"].to_pylist()) == rows.tokens
        assert sum(table["pieces"].to_pylist()) == rows.segments
        assert sum(table["num_bytes"].to_pylist()) == sum(shard.num_bytes for shard in rows.shards)
    assert small.settings().row_width == tiny_store.manifest.row_width


def test_a_damaged_shard_is_found_by_its_digest(tiny_store, tmp_path):
    shard = tiny_store.train.shards[0]
    url = f"{tiny_store.url}/{shard.path}"
    assert format.verify_shard(url, shard.digest) is None
    table = pq.read_table(url)
    changed = table.slice(1).append_column("x", pa.array(range(len(table) - 1)))
    pq.write_table(changed, tmp_path / "changed.parquet")
    assert "has digest" in str(format.verify_shard(f"{tmp_path}/changed.parquet", shard.digest))
    pq.write_table(table, tmp_path / "same.parquet", row_group_size=1, compression="zstd")
    assert format.verify_shard(f"{tmp_path}/same.parquet", shard.digest) is None, "of the content, not of the file"
    (tmp_path / "cut.parquet").write_bytes(Path(url).read_bytes()[:-100])
    assert "ArrowInvalid" in str(format.verify_shard(f"{tmp_path}/cut.parquet", shard.digest))
    assert "FileNotFoundError" in str(format.verify_shard(f"{tmp_path}/gone.parquet", shard.digest))


def test_a_manifest_of_an_earlier_version_lacks_what_was_not_known_then():
    entry = {**MANIFEST.to_json(), "format": 2, "splits": {}}
    del entry["members"], entry["without_tokens"]
    assert Manifest.of_json(entry) == MANIFEST
