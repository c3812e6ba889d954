"""Documents left out of a store after cleaning: how they are listed, and how the others are read."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from infra import storage
from infra.storage import parquet
from pipelines.corpus.ledger import SCHEMA as LEDGER_SCHEMA
from pipelines.corpus.records import BUCKETS, Bucket, Unit
from pipelines.corpus.units import read_bucket

SCHEMA = pa.schema(
    [*LEDGER_SCHEMA, ("unit", pa.string()), ("row", pa.int64()), ("num_bytes", pa.int64()), ("number", pa.int64())]
)
"""The ledger's columns, and which document it is: its unit, its row in the unit's bucket, its number in all units."""


@dataclass(frozen=True)
class SelectedText:
    """Cleaned text, less what a selection leaves out."""

    url: str
    """Folder of the cleaned text."""
    selection: str | None
    """Folder of the lists of what is left out; None: nothing is."""


@dataclass(frozen=True)
class NumberedBucket:
    """A bucket of a unit, whose documents have consecutive numbers. They count the documents of all units in order."""

    unit: str
    """The unit's path."""
    source: str
    around: tuple[str, str]
    """What stands before and after a file's path in its URL."""
    bucket: Bucket
    first: int
    """Number of its first document."""


@dataclass(frozen=True)
class DropCount:
    """How many documents of one bucket of one unit are dropped for one reason, and the bytes of their texts."""

    unit: str
    bucket: int
    reason: str
    documents: int
    num_bytes: int


def numbered(units: list[Unit]) -> list[NumberedBucket]:
    """All buckets of these units, in the order of their documents' numbers."""
    found, number = [], 0
    for unit in units:
        for bucket in unit.buckets:
            found.append(NumberedBucket(unit.path, unit.source, unit.around, bucket, number))
            number += bucket.documents
    return found


def read_numbered(text_url: str, place: NumberedBucket) -> pa.Table:
    """All documents of a bucket without their text: key, path, the number of the bucket as `bucket`, and the columns of
    SCHEMA that are known before they are judged.
    """
    size = place.bucket.documents
    table = read_bucket(text_url, place.unit, place.bucket, ["id", "key", "path", "offset", "num_bytes"])
    path = table["path"].cast(pa.string())
    before, after = map(pa.scalar, place.around)
    columns = {
        **{name: table[name] for name in ("id", "key", "offset", "num_bytes")},
        "path": path,
        "uri": pc.binary_join_element_wise(before, path, after, ""),  # pyright: ignore[reportAttributeAccessIssue]
        "source": pa.array([place.source] * size, pa.string()),
        "unit": pa.array([place.unit] * size, pa.string()),
        "row": np.arange(size),
        "number": np.arange(size) + place.first,
        "bucket": pa.array([place.bucket.number] * size, pa.int64()),
    }
    return pa.table(columns)


def documents_at(units: list[Unit], text_url: str, numbers: np.ndarray) -> pa.Table:
    """The documents with these ascending numbers, as `read_numbered` gives them. Holds one bucket besides."""
    places = numbered(units)
    edges = np.searchsorted(numbers, [*(place.first for place in places), np.iinfo(np.int64).max])
    parts = []
    for place, first, last in zip(places, edges[:-1], edges[1:], strict=True):
        if last > first:
            parts.append(read_numbered(text_url, place).take(pa.array(numbers[first:last] - place.first)))
    return pa.concat_tables(parts)


def write_drops(table: pa.Table, reasons: list[str | None], details: list[str], url: str) -> int:
    """Write the documents that have a reason; returns their number. table: as `read_numbered` gives them."""
    dropped = [row for row, reason in enumerate(reasons) if reason is not None]
    taken = table.take(pa.array(dropped, pa.int64()))
    columns = {name: taken[name] for name in SCHEMA.names if name in taken.column_names}
    columns["reason"] = pa.array([reasons[row] for row in dropped], pa.string())
    columns["detail"] = pa.array([details[row] for row in dropped], pa.string())
    columns["lost"] = pa.array([0] * len(dropped), pa.int64())  # of its file: nothing
    parquet.write_table(url, pa.table([columns[name] for name in SCHEMA.names], schema=SCHEMA))
    return len(dropped)


def count_drops(selection_url: str) -> list[DropCount]:
    """What a selection drops, in the order of units, buckets and reasons."""
    counts = []
    for url in drop_files(selection_url):
        table = parquet.read_table(url, ["unit", "reason", "num_bytes"])
        sums = table.group_by(["unit", "reason"]).aggregate([("num_bytes", "sum"), ([], "count_all")])
        for row in sums.to_pylist():
            counts.append(
                DropCount(row["unit"], _bucket_of(url), row["reason"], row["count_all"], row["num_bytes_sum"])
            )
    return sorted(counts, key=lambda count: (count.unit, count.bucket, count.reason))


def drop_files(selection_url: str, *kinds: str) -> list[str]:
    """URLs of the files of a selection that list what it drops. kinds: only those whose names begin so."""
    starts = kinds or ("first-", "near-")
    return [info.url for info in storage.list_files(selection_url) if info.path.startswith(starts)]


def read_kept(text: SelectedText, unit: str, bucket: Bucket, columns: list[str]) -> pa.Table:
    """The documents of a unit's bucket that were selected, in their order."""
    table = read_bucket(text.url, unit, bucket, columns)
    dropped = _dropped_rows(text.selection, bucket.number).get(unit) if text.selection else None
    if dropped is None:
        return table
    kept = np.ones(len(table), bool)
    kept[dropped] = False
    return table.filter(pa.array(kept))


def documents_by_key(text: SelectedText, units: list[Unit]) -> Iterator[tuple[int, int]]:
    """(key, bytes) of all selected documents of some units, by ascending key. Holds one bucket of each at a time."""
    for number in range(BUCKETS):
        tables = [
            read_kept(text, unit.path, bucket, ["key", "num_bytes"])
            for unit in units
            for bucket in unit.buckets
            if bucket.number == number
        ]
        if tables:
            for batch in pa.concat_tables(tables).sort_by("key").to_batches(max_chunksize=1000):
                yield from zip(batch["key"].to_pylist(), batch["num_bytes"].to_pylist(), strict=True)


@lru_cache(maxsize=32)
def _dropped_rows(selection_url: str, bucket: int) -> dict[str, np.ndarray]:
    """Unit -> its rows that are dropped, in buckets of this number. Kept in memory: a selection that is read never
    changes, as its name follows from what it holds.
    """
    parts = [parquet.read_table(url, ["unit", "row"]) for url in drop_files(selection_url) if _bucket_of(url) == bucket]
    if not parts:
        return {}
    table = pa.concat_tables(parts).group_by("unit").aggregate([("row", "list")])
    return {
        unit: rows.values.to_numpy() for unit, rows in zip(table["unit"].to_pylist(), table["row_list"], strict=True)
    }


def _bucket_of(url: str) -> int:
    """The bucket whose drops a file lists: first-03.parquet -> 3."""
    return int(url.removesuffix(".parquet")[-2:])
