"""Cleaned text to a shard of the token store: tokenise, segment, pack, write. One task, one shard, about 64 MB of text.

A shard is made of pieces of many units (`assign_pieces`), so documents are shuffled across the corpus at linear cost,
without an all-to-all exchange.
"""

from collections.abc import Iterator
from dataclasses import asdict
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from glm_model.tokenizer import Tokenizer
from infra import storage
from infra.storage import parquet
from pipelines import keyed
from pipelines.blanks.draw import moments
from pipelines.blanks.mixture import BlanksConfig, resolve
from pipelines.document import document_keys
from pipelines.ragged import Segments, concatenate_segments, take_segments
from pipelines.selection import dropped
from pipelines.store import format, packing
from pipelines.store.segments import DocumentSegments, chunk_documents, segment_documents
from pipelines.token_classes import TokenClasses

_BATCH_BYTES = 4 << 20  # text tokenised at a time: bounds the memory of a task
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
        ("pieces", pa.int32()),  # segments: their ids are segment_ids(document_key(id), 0 .. pieces - 1)
    ]
)


class ShardSettings(NamedTuple):
    """What decides a shard's content besides its text."""

    sequence_length: int
    row_width: int
    rows_per_group: int
    blanks: dict[str, Any]


def keyed_order(pieces: list[dict[str, Any]], *, seed: int) -> list[dict[str, Any]]:
    """Pieces in a random order that follows from what they hold. A unit's name would not do: it changes with times."""
    digests = np.array([int(piece["digest"][:16], 16) for piece in pieces], np.uint64)
    numbers = np.array([piece["piece"] for piece in pieces], np.uint64)
    order = np.argsort(keyed.fold(seed, _SHARD_ORDER, digests, numbers), kind="stable")
    return [pieces[index] for index in order]


def assign_pieces(pieces: list[dict[str, Any]], *, shard_bytes: int, seed: int) -> list[list[dict[str, Any]]]:
    """Spread pieces {digest, piece, num_bytes, ...} over shards of about equal bytes, in their keyed order."""
    total = sum(p["num_bytes"] for p in pieces)
    # A small corpus is still cut into a few shards, so that tasks run side by side and row groups can be shuffled.
    shards = max(1, round(total / shard_bytes), min(8, total // _SMALL_SHARD_BYTES))
    assigned: list[list[dict[str, Any]]] = [[] for _ in range(shards)]
    done = 0
    for piece in keyed_order(pieces, seed=seed):
        assigned[min(done * shards // max(total, 1), shards - 1)].append(piece)
        done += piece["num_bytes"]
    return [shard for shard in assigned if shard]


def build_shard(
    name: str,
    split: str,
    pieces: list[dict[str, Any]],
    ranges: dict[str, tuple[int, int]],
    *,
    tails: dict[int, float],
    text_url: str,
    store_url: str,
    settings: ShardSettings,
) -> dict[str, Any]:
    """Build one shard of one split. ranges: per source, the content keys (first, last) of the split's documents; tails:
    per key, the share at the end of that document that goes from training to validation.

    Writes the files that `store.shard_files` names, the record that it returns being the last.
    """
    tokenizer, vocabulary = tokenizer_of(store_url)
    parts: list[Segments] = []
    documents: list[pa.Table] = []
    for batch in _batches(pieces, ranges, tails if split == "validation" else {}, text_url):
        segments, table = _tokenise(batch, tokenizer, settings.sequence_length)
        keys = batch.table["key"].to_pylist()
        if tails and split != "test":
            segments = _cut(segments, np.array([tails.get(key, 0.0) for key in keys]), split)
        parts.append(segments)
        first, last = ranges.get(batch.source, (1, 0))
        mine = [first <= key <= last for key in keys]  # a document that is cut is listed once, with training
        documents.append(table.filter(pa.array(mine)))
    segments = concatenate_segments(parts)
    rows, fill = _pack(segments, vocabulary, settings)
    files = format.shard_files(split, name)
    shard = format.write_shard(
        storage.join(store_url, files.rows),
        segments,
        rows,
        dtype=format.token_dtype(tokenizer.vocab_size),
        rows_per_group=settings.rows_per_group,
        expected_fill=fill,
        path=files.rows,
    )
    table = pa.concat_tables(documents) if documents else DOCUMENT_SCHEMA.empty_table()
    parquet.write_table(storage.join(store_url, files.documents), table)
    empty = int((np.asarray(table["tokens"]) == 0).sum()) if len(table) else 0
    record = {"split": split, "shard": asdict(shard), "documents": len(table), "without_tokens": empty}
    storage.write_json(storage.join(store_url, files.record), record)
    return record


@lru_cache(maxsize=1)  # it remembers words, tens of MB
def tokenizer_of(store_url: str) -> tuple[Tokenizer, TokenClasses]:
    """A store's tokenizer and vocabulary, loaded once per worker process."""
    tokenizer = Tokenizer.load(store_url)
    return tokenizer, TokenClasses.of(tokenizer)


class _Batch(NamedTuple):
    source: str
    table: pa.Table


def _batches(
    pieces: list[dict[str, Any]], ranges: dict[str, tuple[int, int]], tails: dict[int, float], text_url: str
) -> Iterator[_Batch]:
    """Documents of the split, a few MB at a time, from the row groups of the shard's pieces."""
    columns = ["id", "key", "path", "offset", "num_bytes", "text"]
    also = np.array(sorted(tails), np.uint64)
    for piece in pieces:
        table = dropped.read_kept(text_url, piece["unit"], piece, piece.get("selection"), columns)
        first, last = ranges.get(piece["source"], (1, 0))
        keys = table["key"].to_numpy()
        mine = (keys >= np.uint64(first)) & (keys <= np.uint64(last)) | np.isin(keys, also)
        table = table.filter(pa.array(mine))
        if len(table) == 0:
            continue
        batch = np.cumsum(np.asarray(table["num_bytes"])) // _BATCH_BYTES
        for first, last in zip(*_runs(batch), strict=True):
            yield _Batch(piece["source"], table.slice(first, last - first))


def _tokenise(batch: _Batch, tokenizer: Tokenizer, length: int) -> tuple[DocumentSegments, pa.Table]:
    texts = batch.table["text"].to_pylist()
    ids = batch.table["id"].to_pylist()
    chunks = chunk_documents(texts)
    flat, token_offsets = tokenizer.encode_batch(chunks.texts)
    flat = flat.astype(format.token_dtype(tokenizer.vocab_size), copy=False)
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
    return segments, table


def _cut(segments: DocumentSegments, shares: np.ndarray, split: str) -> Segments:
    """The segments of this split where the last ones of some documents, by shares [N], are held out."""
    counts = np.bincount(segments.document, minlength=len(shares))
    held = np.where(shares > 0, np.minimum(np.maximum(np.rint(shares * counts), 1), counts - 1), 0).astype(np.int64)
    number = np.arange(len(segments.document)) - (np.cumsum(counts) - counts)[segments.document]
    at_end = number >= (counts - held)[segments.document]
    members = np.flatnonzero((at_end | (shares == 0)[segments.document]) if split == "validation" else ~at_end)
    return take_segments(segments, members)


def _pack(segments: Segments, vocabulary: TokenClasses, settings: ShardSettings) -> tuple[list[np.ndarray], float]:
    """Rows of segment indices in a random order, and the expected share of their positions that is used."""
    mixture = resolve(BlanksConfig(**settings.blanks))
    mean, variance = moments(mixture, segments, vocabulary)
    rows = packing.pack(mean, variance, segments.ids, width=settings.row_width)
    if not rows:
        return [], 0.0
    first = np.array([segments.ids[row[0]] for row in rows], np.uint64)
    order = np.argsort(keyed.fold(_ROW_ORDER, first), kind="stable")
    return [rows[i] for i in order], float(mean.sum() / (len(rows) * settings.row_width))


def _runs(values: np.ndarray) -> tuple[list[int], list[int]]:
    """(first, one past the last) index of each run of equal values."""
    edges = np.flatnonzero(np.diff(values)) + 1
    return [0, *edges.tolist()], [*edges.tolist(), len(values)]
