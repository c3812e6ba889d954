"""From buckets of text to a shard: which bucket goes where, which document is held out, what the shard then holds."""

import shutil
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq
import pytest
from helpers import small

from infra import storage
from pipelines.corpus.clean import CleanConfig
from pipelines.corpus.records import BUCKETS, Bucket, Unit, UnitBucket, buckets_of
from pipelines.document import document_keys, segment_ids
from pipelines.selection.dropped import SelectedText, documents_by_key
from pipelines.store import format, shards
from pipelines.store.held_out import Cuts
from pipelines.store.shards import BuiltShard, ShardJob, assign_buckets, build_shard, read_built


def buckets_of_units(units: int, *, num_bytes: int = 1000) -> list[UnitBucket]:
    rng = np.random.default_rng(1)
    return [
        UnitBucket(f"{unit:02x}" * 12, f"{unit:02x}" * 16, "s", Bucket(number, number, 3, num_bytes + int(n)))
        for unit in range(units)
        for number, n in enumerate(rng.integers(0, num_bytes, BUCKETS))
    ]


def places(shards: list[list[UnitBucket]]) -> list[list[tuple[str, int]]]:
    return [[(place.digest, place.bucket.number) for place in shard] for shard in shards]


def test_each_bucket_is_in_one_shard_of_about_the_wanted_size():
    buckets = buckets_of_units(20)
    total = sum(place.bucket.num_bytes for place in buckets)
    shards = assign_buckets(buckets, shard_bytes=50_000, seed=1)
    assert len(shards) == round(total / 50_000)
    assert sorted(place for shard in places(shards) for place in shard) == sorted(places([buckets])[0])
    for shard in shards:
        assert abs(sum(place.bucket.num_bytes for place in shard) - total / len(shards)) < 2 * 2000


def test_the_order_of_the_list_does_not_matter_and_the_seed_does():
    buckets = buckets_of_units(10)
    base = places(assign_buckets(buckets, shard_bytes=50_000, seed=1))
    assert places(assign_buckets(buckets[::-1], shard_bytes=50_000, seed=1)) == base
    assert places(assign_buckets(buckets, shard_bytes=50_000, seed=2)) != base


def test_the_paths_of_units_do_not_matter():
    """They change with the times of files."""
    buckets = buckets_of_units(10)
    renamed = [replace(place, unit=f"{index:024x}") for index, place in enumerate(buckets)]
    one, other = (places(assign_buckets(given, shard_bytes=50_000, seed=1)) for given in (buckets, renamed))
    assert one == other


def test_a_shard_mixes_units():
    shards = assign_buckets(buckets_of_units(20), shard_bytes=50_000, seed=1)
    assert all(len({place.unit for place in shard}) > 8 for shard in shards)


def test_a_small_corpus_is_still_cut_into_a_few_shards():
    large = buckets_of_units(4, num_bytes=300_000)  # 28 MB
    assert len(assign_buckets(large, shard_bytes=64_000_000, seed=1)) == 7, "of 4 MB"
    assert len(assign_buckets(buckets_of_units(2), shard_bytes=64_000_000, seed=1)) == 1
    assert assign_buckets([], shard_bytes=10, seed=1) == []


def test_more_shards_than_buckets_leave_no_shard_empty():
    shards = assign_buckets(buckets_of_units(1)[:3], shard_bytes=10, seed=1)
    assert [len(shard) for shard in shards] == [1, 1, 1]


def test_documents_of_no_bytes_have_a_shard_too():
    empty = [replace(place, bucket=replace(place.bucket, num_bytes=0)) for place in buckets_of_units(1)]
    assert [len(shard) for shard in assign_buckets(empty, shard_bytes=1000, seed=1)] == [BUCKETS]


def test_document_keys_are_those_of_their_ids():
    ids = [bytes(range(i, i + 16)) for i in range(100)]
    keys = document_keys(ids)
    assert (keys.dtype, len(set(keys.tolist()))) == (np.uint64, 100)
    assert document_keys(ids[7:8])[0] == keys[7]
    halves = [bytes(16), bytes(8) + b"\1" + bytes(7), b"\1" + bytes(15)]
    assert len(set(document_keys(halves).tolist())) == 3, "both halves count"


class Corpus(NamedTuple):
    text: SelectedText
    store_url: str
    unit: Unit
    texts: list[str]


@pytest.fixture(scope="module")
def cleaned(tmp_path_factory, tiny_tokenizer) -> Corpus:
    """Cleaned text of 150 documents, and a folder with a tokenizer for the store of it."""
    folder = tmp_path_factory.mktemp("cleaned")
    texts = [*small.documents(149), "☃" * 30]  # the last one has a single unknown token
    unit = small.clean_unit(small.corpus(folder / "raw", texts), CleanConfig(), f"{folder}/text/00112233445566778899")
    tiny_tokenizer.save(f"{folder}/store")
    return Corpus(SelectedText(f"{folder}/text", None), f"{folder}/store", unit, texts)


def build(
    cleaned: Corpus, split: str, limit: int, *, name: str = "shard-00000", buckets=None, url=None, tails=None, **changes
) -> BuiltShard:
    """Build a shard of some buckets (default: all). limit: key from which on documents are in training."""
    own = buckets_of([cleaned.unit])
    source = cleaned.unit.source
    cuts = Cuts(
        {"train": {source: (limit, 2**64 - 1)}, "validation": {source: (0, limit - 1)} if limit else {}}, tails or {}
    )
    job = ShardJob(split, name, own if buckets is None else [own[number] for number in buckets])
    return build_shard(job, cuts, small.settings(**changes), text=cleaned.text, store_url=url or cleaned.store_url)


def documents_of(cleaned: Corpus, split: str, name: str = "shard-00000") -> list[dict]:
    return pq.read_table(f"{cleaned.store_url}/documents/{split}-{name}.parquet").to_pylist()


def rows_of(cleaned: Corpus, built: BuiltShard) -> format.RowBatch:
    return format.read_rows(pq.read_table(f"{cleaned.store_url}/{built.shard.path}"), np.dtype("<u2"))


def test_a_shard_holds_each_document_whole(cleaned, tiny_tokenizer):
    built = build(cleaned, "train", 0)
    rows = rows_of(cleaned, built)
    segments = {int(i): rows.tokens[a:b] for i, a, b in zip(rows.ids, rows.offsets[:-1], rows.offsets[1:], strict=True)}
    assert len(segments) == built.shard.segments
    table = documents_of(cleaned, "train")
    assert (built.documents, len(table), built.without_tokens) == (150, 150, 0)
    texts = {text.encode(): text for text in cleaned.texts}
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
    built = build(cleaned, "train", 0)
    rows = rows_of(cleaned, built)
    tokens_of_rows = np.add.reduceat(np.diff(rows.offsets), rows.row_offsets[:-1])
    assert tokens_of_rows.max() < 160
    assert 0.7 < built.shard.expected_fill < 1
    assert set(built.shard.groups[:-1]) == {4}


def test_the_limit_on_keys_parts_the_splits(cleaned):
    limit = 1 << 62  # a quarter of the keys
    held_out, trained = build(cleaned, "validation", limit), build(cleaned, "train", limit)
    validation, train = documents_of(cleaned, "validation"), documents_of(cleaned, "train")
    assert held_out.documents + trained.documents == 150
    assert {d["id"] for d in validation} & {d["id"] for d in train} == set()
    assert 15 < held_out.documents < 65
    below = [key for key, _ in documents_by_key(cleaned.text, [cleaned.unit]) if key < limit]
    assert held_out.documents == len(below)


def test_a_shard_without_documents(cleaned):
    built = build(cleaned, "validation", 0, name="empty")
    assert (built.documents, built.shard.groups, built.shard.tokens) == (0, (), 0)
    assert documents_of(cleaned, "validation", "empty") == []


def test_a_shard_is_the_same_when_built_again_and_however_its_text_is_batched(cleaned, monkeypatch):
    first = build(cleaned, "train", 1 << 62)
    assert build(cleaned, "train", 1 << 62) == first
    monkeypatch.setattr(shards, "_BATCH_BYTES", 300)
    assert build(cleaned, "train", 1 << 62).shard.digest == first.shard.digest
    assert build(cleaned, "train", 1 << 62, rows_per_group=1).shard.digest == first.shard.digest
    assert build(cleaned, "train", 1 << 62, sequence_length=30).shard.digest != first.shard.digest


def test_the_record_is_written_last_and_is_what_is_returned(cleaned, tmp_path, monkeypatch):
    url, job = str(tmp_path / "store"), ShardJob("train", "shard-00009", [])
    shutil.copytree(cleaned.store_url, url)
    write = storage.write_json

    def write_last(place: str, value: dict) -> None:
        assert place == storage.join(url, "work", "train-shard-00009.json")
        assert (tmp_path / "store" / job.files.rows).exists()
        assert (tmp_path / "store" / job.files.documents).exists()
        write(place, value)

    monkeypatch.setattr(storage, "write_json", write_last)
    built = build(cleaned, "train", 0, name="shard-00009", url=url, buckets=[0, 1, 2])
    assert read_built(url, [job]) == [built]


def test_the_end_of_a_document_is_held_out(cleaned):
    keys = [key for key, _ in documents_by_key(cleaned.text, [cleaned.unit])]
    whole = build(cleaned, "train", 0)
    segments = {d["id"]: d["pieces"] for d in documents_of(cleaned, "train")}
    tails = {keys[5]: 0.3, keys[77]: 0.5}
    trained, held_out = (build(cleaned, split, 0, tails=tails) for split in ("train", "validation"))
    assert trained.shard.tokens + held_out.shard.tokens == whole.shard.tokens
    assert trained.shard.segments + held_out.shard.segments == whole.shard.segments
    assert (trained.documents, held_out.documents) == (whole.documents, 0), "each is listed once"
    assert {d["id"]: d["pieces"] for d in documents_of(cleaned, "train")} == segments
    ids = {"train": rows_of(cleaned, trained).ids, "validation": rows_of(cleaned, held_out).ids}
    table = pq.read_table(f"{cleaned.text.url}/{cleaned.unit.path}.parquet", columns=["id", "key"])
    for key, share in tails.items():
        (identity,) = [row["id"] for row in table.to_pylist() if row["key"] == key]
        count = segments[identity]
        own = segment_ids(np.repeat(document_keys([identity]), count), np.arange(count))
        tail = min(max(round(share * count), 1), count - 1)
        assert set(own[: count - tail]) <= set(ids["train"])
        assert set(own[count - tail :]) <= set(ids["validation"])
