"""From a segment back to the document that it was cut from, and from a document to its rows; reads the store alone.

The table of documents says how many segments each was cut into, in a column that the format calls `pieces`.
"""

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
    """Where a segment comes from."""

    document: str
    """The document's id in hexadecimal digits."""
    source: str
    path: str
    """The file's, below the source's root."""
    offset: int
    """Byte at which the document begins."""
    segment: int
    """Which of the document's segments it is, from 0."""
    segments: int
    """How many the document has."""


class RowPlace(NamedTuple):
    """A row that holds some segments of a document."""

    group: int
    """Row group of the split."""
    row: int
    """Within the group."""
    segments: tuple[int, ...]
    """Which of the document's segments, from 0."""


def origins(split: Split, groups: list[int], ids: np.ndarray) -> list[Origin]:
    """The origin of each segment id, uint64 [N]; groups: row groups of the split that the segments lie in."""
    found: dict[int, Origin] = {}
    for shard in sorted({split.group_places[group][0] for group in groups}):
        table = documents_of(split, shard)
        document, number, own = _segments_of(table)
        order = np.argsort(own)
        at = order[np.minimum(np.searchsorted(own, ids, sorter=order), len(own) - 1)] if len(own) else order
        hits = np.flatnonzero(own[at] == ids) if len(own) else at
        rows = table.take(pa.array(document[at[hits]])).to_pylist()
        for hit, row in zip(hits.tolist(), rows, strict=True):
            segment = int(number[at[hit]])
            found[int(ids[hit])] = Origin(
                row["id"].hex(), row["source"], row["path"], row["offset"], segment, row["pieces"]
            )
    return [found[int(one)] for one in ids]


class Sources(NamedTuple):
    """The source of each segment of a split."""

    names: tuple[str, ...]
    """Sorted."""
    ids: np.ndarray
    """The segments' ids, uint64 [S], ascending."""
    index: np.ndarray
    """Which of the names is each segment's, int64 [S]."""

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
    """The rows of a split that hold segments of a document, in order. document: its 16-byte id."""
    places: list[RowPlace] = []
    for shard in range(len(split.shards)):
        table = documents_of(split, shard)
        table = table.filter(pc.equal(table["id"], pa.scalar(document, pa.binary(16))))  # pyright: ignore[reportAttributeAccessIssue]
        if len(table) == 0:
            continue
        _, numbers, own = _segments_of(table)
        for group in [g for g, (of, _) in enumerate(split.group_places) if of == shard]:
            rows = split.read_group(group)
            hits = np.flatnonzero(np.isin(rows.ids, own))
            at = np.searchsorted(rows.row_offsets, hits, side="right") - 1
            number_of = {int(one): int(number) for one, number in zip(own, numbers, strict=True)}
            for row in np.unique(at).tolist():
                places.append(RowPlace(group, row, tuple(number_of[int(rows.ids[hit])] for hit in hits[at == row])))
    return places


def documents_of(split: Split, shard: int, *, columns: list[str] | None = None) -> pa.Table:
    """The documents of a shard, a row each: id, source, path, offset, pieces and sizes, or those columns.

    Raises DataError when the table is gone.
    """
    folder, _, name = split.shards[shard].path.rpartition("/")
    url = storage.join(split.base(shard), shard_files(folder, name.removesuffix(".parquet")).documents)
    if not storage.exists(url):
        raise DataError(
            f"{url} is gone",
            try_="run workflows/prepare.py again with the recipe of this store: it makes what is missing",
        )
    return parquet.read_table(url, columns)


def _segments_of(table: pa.Table) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(row of the document, number in the document, id) of every segment of these documents, each [S]."""
    counts = table["pieces"].to_numpy().astype(np.int64)
    document = np.repeat(np.arange(len(table)), counts)
    number = np.arange(len(document)) - np.repeat(np.cumsum(counts) - counts, counts)
    keys = document_keys(table["id"].to_pylist()) if len(table) else np.zeros(0, np.uint64)
    return document, number, segment_ids(keys[document], number.astype(np.uint64))
