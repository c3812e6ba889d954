"""From a segment back to the document that it was cut from, and from a document to its rows; reads the store alone."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from infra import storage
from infra.errors import DataError
from infra.storage import parquet
from pipelines.document import document_keys, segment_ids
from pipelines.store.format import Split, shard_files


class Origin(NamedTuple):
    """Where a segment comes from: hexadecimal document id, its source, path below the source's root, byte offset; and
    which of the document's pieces it is, counted from 0.
    """

    document: str
    source: str
    path: str
    offset: int
    piece: int
    pieces: int


class RowPlace(NamedTuple):
    """A row that holds some pieces of a document."""

    group: int
    row: int
    pieces: tuple[int, ...]


def origins(split: Split, groups: list[int], ids: np.ndarray) -> list[Origin]:
    """The origin of each segment id, uint64 [N]; groups: row groups of the split that the segments lie in."""
    found: dict[int, Origin] = {}
    for shard in sorted({split.group_places[group][0] for group in groups}):
        table = documents_of(split, shard)
        document, piece, own = _segments_of(table)
        order = np.argsort(own)
        at = order[np.minimum(np.searchsorted(own, ids, sorter=order), len(own) - 1)] if len(own) else order
        hits = np.flatnonzero(own[at] == ids) if len(own) else at
        rows = table.take(pa.array(document[at[hits]])).to_pylist()
        for hit, row in zip(hits.tolist(), rows, strict=True):
            number = int(piece[at[hit]])
            found[int(ids[hit])] = Origin(
                row["id"].hex(), row["source"], row["path"], row["offset"], number, row["pieces"]
            )
    return [found[int(one)] for one in ids]


class Sources(NamedTuple):
    """The source of each segment of a split: their names, and by segment id (ascending, uint64 [S]) the index of its
    name.
    """

    names: tuple[str, ...]
    ids: np.ndarray
    index: np.ndarray

    def of(self, ids: np.ndarray) -> np.ndarray:
        """Indices of the names of these segments, int64 [N]."""
        return self.index[np.searchsorted(self.ids, ids)] if len(self.names) > 1 else np.zeros(len(ids), np.int64)


def sources_of(split: Split, groups: Iterable[int]) -> Sources:
    """The sources of the segments that lie in these row groups; names sorted."""
    own, names = [np.zeros(0, np.uint64)], [np.zeros(0, np.str_)]
    for shard in sorted({split.group_places[group][0] for group in groups}):
        table = documents_of(split, shard, columns=["id", "source", "pieces"])
        document, _, ids = _segments_of(table)
        own.append(ids)
        names.append(np.array(table["source"].to_pylist(), np.str_)[document])
    known, index = np.unique(np.concatenate(names), return_inverse=True)
    ids = np.concatenate(own)
    order = np.argsort(ids)
    return Sources(tuple(known.tolist()), ids[order], index.astype(np.int64)[order])


def rows_of(split: Split, document: bytes) -> list[RowPlace]:
    """The rows of a split that hold pieces of a document (its 16-byte id), in order; none when it is not in it."""
    places: list[RowPlace] = []
    for shard in range(len(split.shards)):
        table = documents_of(split, shard)
        mine = table.filter(pc.equal(table["id"], pa.scalar(document, pa.binary(16))))
        if len(mine) == 0:
            continue
        _, piece, own = _segments_of(mine)
        for group in [g for g, (of, _) in enumerate(split.group_places) if of == shard]:
            rows = split.read_group(group)
            hits = np.flatnonzero(np.isin(rows.ids, own))
            at = np.searchsorted(rows.row_offsets, hits, side="right") - 1
            number = {int(one): int(p) for one, p in zip(own, piece, strict=True)}
            for row in np.unique(at).tolist():
                held = tuple(number[int(rows.ids[hit])] for hit in hits[at == row])
                places.append(RowPlace(group, row, held))
    return places


def documents_of(split: Split, shard: int, *, columns: list[str] | None = None) -> pa.Table:
    """The documents of a shard, a row each: id, source, path, offset, pieces and sizes, or those columns.

    Raises DataError when the table is gone.
    """
    folder, _, name = split.shards[shard].path.rpartition("/")
    url = storage.join(split.base(shard), shard_files(folder, name.removesuffix(".parquet")).documents)
    if not storage.exists(url):
        raise DataError(f"{url} is gone", try_="prepare the store again: it makes what is missing")
    return parquet.read_table(url, columns)


def _segments_of(table: pa.Table) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(row of the document, number of the piece, id) of every segment of these documents, each [S]."""
    pieces = table["pieces"].to_numpy().astype(np.int64)
    document = np.repeat(np.arange(len(table)), pieces)
    piece = np.arange(len(document)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    keys = document_keys(table["id"].to_pylist()) if len(table) else np.zeros(0, np.uint64)
    return document, piece, segment_ids(keys[document], piece.astype(np.uint64))
