"""From pieces of text to a shard: which piece goes where, which document is held out, and what the shard then holds."""

import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from helpers import small

from pipelines.corpus import units as text
from pipelines.corpus.clean import CleanConfig
from pipelines.corpus.units import PIECES
from pipelines.document import document_keys, segment_ids
from pipelines.selection import dropped
from pipelines.store import format
from pipelines.store import shards as tokens
from pipelines.store.shards import assign_pieces, build_shard


def pieces_of(units: int, *, num_bytes: int = 1000) -> list[dict]:
    rng = np.random.default_rng(1)
    return [
        {
            "unit": f"{unit:02x}" * 12,
            "digest": f"{unit:02x}" * 16,
            "source": "s",
            "piece": piece,
            "group": piece,
            "documents": 3,
            "num_bytes": num_bytes + int(n),
        }
        for unit in range(units)
        for piece, n in enumerate(rng.integers(0, num_bytes, PIECES))
    ]


def names(shards) -> list[list[tuple[str, int]]]:
    return [[(p["unit"], p["piece"]) for p in shard] for shard in shards]


def test_each_piece_is_in_one_shard_of_about_the_wanted_size():
    pieces = pieces_of(20)
    total = sum(p["num_bytes"] for p in pieces)
    shards = assign_pieces(pieces, shard_bytes=50_000, seed=1)
    assert len(shards) == round(total / 50_000)
    assert sorted(n for shard in names(shards) for n in shard) == sorted((p["unit"], p["piece"]) for p in pieces)
    for shard in shards:
        assert abs(sum(p["num_bytes"] for p in shard) - total / len(shards)) < 2 * 2000


def test_the_order_of_the_list_does_not_matter_and_the_seed_does():
    pieces = pieces_of(10)
    base = names(assign_pieces(pieces, shard_bytes=50_000, seed=1))
    assert names(assign_pieces(pieces[::-1], shard_bytes=50_000, seed=1)) == base
    assert names(assign_pieces(pieces, shard_bytes=50_000, seed=2)) != base


def test_the_names_of_units_do_not_matter():
    """They hold the times of files."""
    pieces = pieces_of(10)
    renamed = [{**piece, "unit": f"{index:024x}"} for index, piece in enumerate(pieces)]
    places = [
        [[(p["digest"], p["piece"]) for p in shard] for shard in assign_pieces(given, shard_bytes=50_000, seed=1)]
        for given in (pieces, renamed)
    ]
    assert places[0] == places[1]


def test_a_shard_mixes_units():
    shards = assign_pieces(pieces_of(20), shard_bytes=50_000, seed=1)
    assert all(len({p["unit"] for p in shard}) > 8 for shard in shards)


def test_a_small_corpus_is_still_cut_into_a_few_shards():
    assert len(assign_pieces(pieces_of(4, num_bytes=300_000), shard_bytes=64_000_000, seed=1)) == 7  # 28 MB by 4 MB
    assert len(assign_pieces(pieces_of(2), shard_bytes=64_000_000, seed=1)) == 1
    assert assign_pieces([], shard_bytes=10, seed=1) == []


def test_more_shards_than_pieces_leave_no_shard_empty():
    shards = assign_pieces(pieces_of(1)[:3], shard_bytes=10, seed=1)
    assert [len(shard) for shard in shards] == [1, 1, 1]


def test_documents_of_no_bytes_have_a_shard_too():
    pieces = [{**p, "num_bytes": 0} for p in pieces_of(1)]
    assert [len(shard) for shard in assign_pieces(pieces, shard_bytes=1000, seed=1)] == [PIECES]


def test_document_keys_are_those_of_their_ids():
    ids = [bytes(range(i, i + 16)) for i in range(100)]
    keys = document_keys(ids)
    assert (keys.dtype, len(set(keys.tolist()))) == (np.uint64, 100)
    assert document_keys(ids[7:8])[0] == keys[7]
    halves = [bytes(16), bytes(8) + b"\1" + bytes(7), b"\1" + bytes(15)]
    assert len(set(document_keys(halves).tolist())) == 3, "both halves count"


@pytest.fixture(scope="module")
def cleaned(tmp_path_factory, tiny_tokenizer):
    """(text url, store url with a tokenizer, record of a unit of 150 documents, the documents)."""
    folder = tmp_path_factory.mktemp("cleaned")
    texts = [*small.documents(149), "☃" * 30]  # the last one has a single unknown token
    record = small.clean_unit(small.corpus(folder / "raw", texts), CleanConfig(), f"{folder}/text/00112233445566778899")
    tiny_tokenizer.save(f"{folder}/store")
    return f"{folder}/text", f"{folder}/store", record, texts


def build(
    cleaned, split: str, limit: int, *, name: str = "shard-00000", pieces=None, url=None, tails=None, **changes
) -> dict:
    text_url, store_url, record, _ = cleaned
    held = [{"unit": record["path"], "source": record["source"], **p} for p in record["pieces"]]
    return build_shard(
        name,
        split,
        held if pieces is None else [held[i] for i in pieces],
        {record["source"]: (limit, 2**64 - 1)}
        if split == "train"
        else {record["source"]: (0, limit - 1)}
        if limit
        else {},
        tails=tails or {},
        text_url=text_url,
        store_url=url or store_url,
        settings=small.settings(**changes),
    )


def documents_of(cleaned, split: str, name: str = "shard-00000") -> list[dict]:
    return pq.read_table(f"{cleaned[1]}/documents/{split}-{name}.parquet").to_pylist()


def rows_of(cleaned, record: dict) -> format.RowBatch:
    shard = format.shard_of(record["shard"])
    split = format.Split(cleaned[1], [shard], np.dtype("<u2"))
    return format.read_rows(pq.read_table(f"{cleaned[1]}/{shard.path}"), split.dtype)


def test_a_shard_holds_each_document_whole(cleaned, tiny_tokenizer):
    record = build(cleaned, "train", 0)
    rows = rows_of(cleaned, record)
    segments = {int(i): rows.tokens[a:b] for i, a, b in zip(rows.ids, rows.offsets[:-1], rows.offsets[1:], strict=True)}
    assert len(segments) == record["shard"]["segments"]
    table = documents_of(cleaned, "train")
    assert (record["documents"], len(table), record["without_tokens"]) == (150, 150, 0)
    texts = {text.encode(): text for text in cleaned[3]}
    by_offset = dict(zip(sorted(row["offset"] for row in table), texts.values(), strict=True))
    special = tiny_tokenizer.special
    for document in table:
        ids = segment_ids(np.repeat(document_keys([document["id"]]), document["pieces"]), np.arange(document["pieces"]))
        parts = [segments.pop(int(i)) for i in ids]
        assert all(part[0] == special.cls for part in parts)
        assert parts[-1][-1] == special.eos
        text = by_offset[document["offset"]]
        content = [t for part in parts for t in part.tolist() if t not in (special.cls, special.eos)]
        assert content == tiny_tokenizer.encode(text).tolist()
        assert document["tokens"] == sum(map(len, parts)) <= 32 * document["pieces"]
        assert (document["characters"], document["num_bytes"]) == (len(text), len(text.encode()))
        assert (document["source"], document["path"]) == ("corpus", "corpus.jsonl")
    assert segments == {}, "every segment belongs to a document"


def test_rows_fit_and_are_filled(cleaned):
    record = build(cleaned, "train", 0)
    rows = rows_of(cleaned, record)
    tokens_of_rows = np.add.reduceat(np.diff(rows.offsets), rows.row_offsets[:-1])
    assert tokens_of_rows.max() < 160
    assert 0.7 < record["shard"]["expected_fill"] < 1
    assert set(record["shard"]["groups"][:-1]) == {4}


def test_the_limit_on_keys_parts_the_splits(cleaned):
    limit = 1 << 62  # a quarter of the keys
    held_out, trained = build(cleaned, "validation", limit), build(cleaned, "train", limit)
    validation, train = documents_of(cleaned, "validation"), documents_of(cleaned, "train")
    assert held_out["documents"] + trained["documents"] == 150
    assert {d["id"] for d in validation} & {d["id"] for d in train} == set()
    assert 15 < held_out["documents"] < 65
    below = [key for key, _ in dropped.documents_by_key(cleaned[0], [cleaned[2]]) if key < limit]
    assert held_out["documents"] == len(below)


def test_a_shard_without_documents(cleaned):
    record = build(cleaned, "validation", 0, name="empty")
    assert (record["documents"], record["shard"]["groups"], record["shard"]["tokens"]) == (0, (), 0)
    assert documents_of(cleaned, "validation", "empty") == []


def test_a_shard_is_the_same_when_built_again_and_however_its_text_is_batched(cleaned, monkeypatch):
    first = build(cleaned, "train", 1 << 62)
    assert build(cleaned, "train", 1 << 62) == first
    monkeypatch.setattr(tokens, "_BATCH_BYTES", 300)
    assert build(cleaned, "train", 1 << 62)["shard"]["digest"] == first["shard"]["digest"]
    assert build(cleaned, "train", 1 << 62, rows_per_group=1)["shard"]["digest"] == first["shard"]["digest"]
    assert build(cleaned, "train", 1 << 62, sequence_length=30)["shard"]["digest"] != first["shard"]["digest"]


def test_the_record_is_written_last_and_is_what_is_returned(cleaned, tmp_path):
    shutil.copytree(cleaned[1], tmp_path / "store")
    record = build(cleaned, "train", 0, name="shard-00009", url=str(tmp_path / "store"), pieces=[0, 1, 2])
    from infra import storage

    read = storage.read_json(str(tmp_path / "store" / "work" / "train-shard-00009.json"))
    assert format.shard_of(read["shard"]) == format.shard_of(record["shard"])
    assert {k: v for k, v in read.items() if k != "shard"} == {k: v for k, v in record.items() if k != "shard"}
    assert (tmp_path / "store" / record["shard"]["path"]).exists()


def test_the_end_of_a_document_is_held_out(cleaned):
    keys = [key for key, _ in dropped.documents_by_key(cleaned[0], [cleaned[2]])]
    whole = build(cleaned, "train", 0)
    pieces = {d["id"]: d["pieces"] for d in documents_of(cleaned, "train")}
    tails = {keys[5]: 0.3, keys[77]: 0.5}
    trained, held_out = (build(cleaned, split, 0, tails=tails) for split in ("train", "validation"))
    assert trained["shard"]["tokens"] + held_out["shard"]["tokens"] == whole["shard"]["tokens"]
    assert trained["shard"]["segments"] + held_out["shard"]["segments"] == whole["shard"]["segments"]
    assert (trained["documents"], held_out["documents"]) == (whole["documents"], 0), "each is listed once"
    assert {d["id"]: d["pieces"] for d in documents_of(cleaned, "train")} == pieces
    ids = {"train": rows_of(cleaned, trained).ids, "validation": rows_of(cleaned, held_out).ids}
    table = text.read_pieces(
        f"{cleaned[0]}/{cleaned[2]['path']}.parquet", list(range(len(cleaned[2]["pieces"]))), ["id", "key"]
    )
    for key, share in tails.items():
        (identity,) = [row["id"] for row in table.to_pylist() if row["key"] == key]
        its = segment_ids(np.repeat(document_keys([identity]), pieces[identity]), np.arange(pieces[identity]))
        held = min(max(round(share * pieces[identity]), 1), pieces[identity] - 1)
        assert set(its[: len(its) - held]) <= set(ids["train"])
        assert set(its[len(its) - held :]) <= set(ids["validation"])
