"""Cleaned text to a shard of the token store: tokenise, segment, pack, write. One task, one shard, about 64 MB of text.

A shard is made of buckets of many units (`assign_buckets`), so documents are shuffled across the corpus at linear cost,
without an all-to-all exchange.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from glm_model.tokenizer import Tokenizer
from infra import storage
from infra.storage import parquet
from pipelines import keyed
from pipelines.blanks.draw import moments
from pipelines.blanks.mixture import BlanksConfig, Mixture, resolve
from pipelines.corpus.records import UnitBucket
from pipelines.document import document_keys
from pipelines.ragged import Segments, concatenate_segments, take_segments
from pipelines.selection.dropped import SelectedText, read_kept
from pipelines.store.format import Shard, ShardFiles, shard_files, shard_of, token_dtype, write_shard
from pipelines.store.held_out import Cuts
from pipelines.store.packing import pack
from pipelines.store.segments import DocumentSegments, encode_documents, segment_documents
from pipelines.store.single_sentences import OBJECTIVE, sample_single_sentences
from pipelines.token_classes import TokenClasses

_BATCH_BYTES = 8 << 20  # text tokenised at a time: bounds the memory of a task
_SMALL_SHARD_BYTES = 4_000_000
_SHARD_ORDER, _ROW_ORDER = 301, 302
DOCUMENT_SCHEMA = pa.schema(
    [
        ("id", pa.binary(16)),
        ("source", pa.string()),
        ("path", pa.string()),
        ("offset", pa.int64()),
        ("characters", pa.int64()),
        ("num_bytes", pa.int64()),
        ("tokens", pa.int64()),
        # The number of the document's segments, whose ids are segment_ids(document_key(id), 0 .. pieces - 1). The
        # format has this other word for them.
        ("pieces", pa.int32()),
    ]
)


@dataclass(frozen=True)
class ShardSettings:
    """What decides a shard's content besides its text. The fields are those of the manifest's settings."""

    sequence_length: int
    row_width: int
    rows_per_group: int
    blanks: dict[str, Any]
    """Fields of BlanksConfig: rows are packed with room for the blanks of this mixture."""


@dataclass(frozen=True)
class ShardJob:
    """A shard to build."""

    split: str
    name: str
    """Its files in the store are named by it: shard-00000."""
    buckets: list[UnitBucket]
    """Where its documents are, those of other splits among them."""

    @property
    def files(self) -> ShardFiles:
        return shard_files(self.split, self.name)


@dataclass(frozen=True)
class BuiltShard:
    """A shard that was built. The fields are those of its record in the store's folder `work`."""

    split: str
    shard: Shard
    documents: int
    without_tokens: int
    """Documents of which the tokenizer leaves nothing: no row holds them."""
    unknown_bytes: dict[str, int] = field(default_factory=dict)
    """Bytes of text that the tokenizer does not know, by source; sources without any are left out."""
    sentences: dict[str, dict[str, int]] = field(default_factory=dict)
    """By source, what `sample_single_sentences` counts; empty where no sentences are blanked."""


def keyed_order(buckets: list[UnitBucket], *, seed: int) -> list[UnitBucket]:
    """The buckets in a random order that follows from what they hold. Units' paths would not do: they change with the
    times of files.
    """
    digests = np.array([int(place.digest[:16], 16) for place in buckets], np.uint64)
    numbers = np.array([place.bucket.number for place in buckets], np.uint64)
    order = np.argsort(keyed.fold(seed, _SHARD_ORDER, digests, numbers), kind="stable")
    return [buckets[index] for index in order]


def assign_buckets(buckets: list[UnitBucket], *, shard_bytes: int, seed: int) -> list[list[UnitBucket]]:
    """Spread buckets over shards of about equal bytes, in their keyed order."""
    total = sum(place.bucket.num_bytes for place in buckets)
    # A small corpus is still cut into a few shards, so that tasks run side by side and row groups can be shuffled.
    shards = max(1, round(total / shard_bytes), min(8, total // _SMALL_SHARD_BYTES))
    assigned: list[list[UnitBucket]] = [[] for _ in range(shards)]
    done = 0
    for place in keyed_order(buckets, seed=seed):
        assigned[min(done * shards // max(total, 1), shards - 1)].append(place)
        done += place.bucket.num_bytes
    return [shard for shard in assigned if shard]


def build_shard(
    job: ShardJob, cuts: Cuts, settings: ShardSettings, *, text: SelectedText, store_url: str
) -> BuiltShard:
    """Build one shard. Writes the files `job.files` in the store's folder, its record being the last."""
    tokenizer, classes = tokenizer_of(store_url)
    mixture = resolve(BlanksConfig(**settings.blanks))
    in_sentences = classes if OBJECTIVE in mixture.names else None
    found = _read_segments(job, cuts, settings.sequence_length, tokenizer, text, in_sentences)
    segments, documents = found.segments, found.documents
    rows, fill = _pack(segments, classes, mixture, settings.row_width)
    shard = write_shard(
        storage.join(store_url, job.files.rows),
        segments,
        rows,
        dtype=token_dtype(tokenizer.vocab_size),
        rows_per_group=settings.rows_per_group,
        expected_fill=fill,
        path=job.files.rows,
    )
    parquet.write_table(storage.join(store_url, job.files.documents), documents)
    empty = int((np.asarray(documents["tokens"]) == 0).sum()) if len(documents) else 0
    built = BuiltShard(job.split, shard, len(documents), empty, found.unknown, found.sentences)
    storage.write_json(storage.join(store_url, job.files.record), asdict(built))
    return built


def read_built(store_url: str, jobs: list[ShardJob]) -> list[BuiltShard]:
    """The shards that tasks built from these jobs, by their records."""
    records = storage.read_jsons([storage.join(store_url, job.files.record) for job in jobs])
    return [BuiltShard(**{**record, "shard": shard_of(record["shard"])}) for record in records]


@lru_cache(maxsize=1)  # it remembers words, tens of MB
def tokenizer_of(store_url: str) -> tuple[Tokenizer, TokenClasses]:
    """A store's tokenizer and the classes of its tokens, loaded once per worker process."""
    tokenizer = Tokenizer.load(store_url)
    return tokenizer, TokenClasses.of(tokenizer)


class _Read(NamedTuple):
    """The segments of a shard, the table of its documents, and what BuiltShard holds by source."""

    segments: Segments
    documents: pa.Table
    unknown: dict[str, int]
    sentences: dict[str, dict[str, int]]


def _read_segments(
    job: ShardJob,
    cuts: Cuts,
    length: int,
    tokenizer: Tokenizer,
    text: SelectedText,
    in_sentences: TokenClasses | None,
) -> _Read:
    """in_sentences: with which sentences are counted; None: they are not."""
    ranges = cuts.ranges[job.split]
    unknown, sentences = Counter[str](), dict[str, Counter[str]]()
    parts: list[Segments] = []
    documents = [DOCUMENT_SCHEMA.empty_table()]
    for batch in _batches(job.buckets, ranges, cuts.tails if job.split == "validation" else {}, text):
        segments, table, unknown_bytes = _tokenise(batch, tokenizer, length)
        keys = batch.table["key"].to_pylist()
        if cuts.tails and job.split != "test":
            segments = _cut_tails(segments, np.array([cuts.tails.get(key, 0.0) for key in keys]), job.split)
        parts.append(segments)
        first, last = ranges.get(batch.source, (1, 0))
        own = [first <= key <= last for key in keys]  # a document that is cut is listed once, with training
        documents.append(table.filter(pa.array(own)))
        unknown[batch.source] += int(unknown_bytes[own].sum())
        if in_sentences is not None:
            sentences.setdefault(batch.source, Counter()).update(sample_single_sentences(segments, in_sentences))
    counts = {source: dict(count) for source, count in sentences.items()}
    return _Read(concatenate_segments(parts), pa.concat_tables(documents), dict(+unknown), counts)


class _Batch(NamedTuple):
    """Documents of one source: id, key, path, offset, num_bytes, text."""

    source: str
    table: pa.Table


def _batches(
    buckets: list[UnitBucket], ranges: dict[str, tuple[int, int]], tails: dict[int, float], text: SelectedText
) -> Iterator[_Batch]:
    """Documents of these key ranges and those of `tails`, a few MB of one source at a time.

    A bucket alone is often small, and the tokenizer looks up the distinct words of a batch.
    """
    columns = ["id", "key", "path", "offset", "num_bytes", "text"]
    also = np.array(sorted(tails), np.uint64)
    for source, places in groupby(buckets, lambda place: place.source):
        first, last = ranges.get(source, (1, 0))
        tables, size = list[pa.Table](), 0
        for place in places:
            table = read_kept(text, place.unit, place.bucket, columns)
            keys = table["key"].to_numpy()
            own = (keys >= np.uint64(first)) & (keys <= np.uint64(last)) | np.isin(keys, also)
            tables.append(table.filter(pa.array(own)))
            size += int(np.asarray(tables[-1]["num_bytes"]).sum())
            if size >= _BATCH_BYTES:
                yield from _cut(source, tables)
                tables, size = [], 0
        yield from _cut(source, tables)


def _cut(source: str, tables: list[pa.Table]) -> Iterator[_Batch]:
    """The documents of some tables, about _BATCH_BYTES at a time."""
    if not any(map(len, tables)):
        return
    table = pa.concat_tables(tables)
    batch = np.cumsum(np.asarray(table["num_bytes"])) // _BATCH_BYTES
    for begin, end in zip(*_runs(batch), strict=True):
        yield _Batch(source, table.slice(begin, end - begin))


def _tokenise(batch: _Batch, tokenizer: Tokenizer, length: int) -> tuple[DocumentSegments, pa.Table, np.ndarray]:
    """The segments of some documents, the table of the documents, and the unknown bytes of each, int64 [N]."""
    texts = batch.table["text"].to_pylist()
    ids = batch.table["id"].to_pylist()
    chunks, flat, token_offsets, unknown = encode_documents(texts, tokenizer)
    flat = flat.astype(token_dtype(tokenizer.vocab_size), copy=False)
    segments = segment_documents(
        flat,
        token_offsets,
        chunks,
        document_keys(ids),
        length=length,
        cls=tokenizer.special.cls,
        eos=tokenizer.special.pad,
    )
    tokens = np.bincount(segments.document, weights=np.diff(segments.offsets), minlength=len(texts)).astype(np.int64)
    table = pa.table(
        {
            "id": batch.table["id"],
            "source": pa.array([batch.source] * len(texts), pa.string()),
            "path": batch.table["path"].cast(pa.string()),
            "offset": batch.table["offset"],
            "characters": pa.array([len(t) for t in texts], pa.int64()),
            "num_bytes": batch.table["num_bytes"],
            "tokens": pa.array(tokens),
            "pieces": pa.array(np.bincount(segments.document, minlength=len(texts)).astype(np.int32)),
        },
        schema=DOCUMENT_SCHEMA,
    )
    return segments, table, unknown


def _cut_tails(segments: DocumentSegments, shares: np.ndarray, split: str) -> Segments:
    """The segments of this split where the last ones of some documents are held out: a share [N] of each one's.

    At least one segment is held out of a document with a share, and one is left.
    """
    counts = np.bincount(segments.document, minlength=len(shares))
    cut = np.where(shares > 0, np.minimum(np.maximum(np.rint(shares * counts), 1), counts - 1), 0).astype(np.int64)
    number = np.arange(len(segments.document)) - (np.cumsum(counts) - counts)[segments.document]
    at_end = number >= (counts - cut)[segments.document]
    members = np.flatnonzero((at_end | (shares == 0)[segments.document]) if split == "validation" else ~at_end)
    return take_segments(segments, members)


def _pack(segments: Segments, classes: TokenClasses, mixture: Mixture, width: int) -> tuple[list[np.ndarray], float]:
    """Rows of segment indices in a random order, and the expected share of their positions that is used."""
    mean, variance = moments(mixture, segments, classes)
    rows = pack(mean, variance, segments.ids, width=width)
    if not rows:
        return [], 0.0
    first = np.array([segments.ids[row[0]] for row in rows], np.uint64)
    order = np.argsort(keyed.fold(_ROW_ORDER, first), kind="stable")
    return [rows[i] for i in order], float(mean.sum() / (len(rows) * width))


def _runs(values: np.ndarray) -> tuple[list[int], list[int]]:
    """(first, one past the last) index of each run of equal values."""
    edges = np.flatnonzero(np.diff(values)) + 1
    return [0, *edges.tolist()], [*edges.tolist(), len(values)]
