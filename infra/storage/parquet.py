"""Parquet files, each written whole or not at all, and read by columns and row groups.

A file is put together in memory, or with `large_writer` on disk, and published by one atomic write, so a reader never
sees half a file. pyarrow is imported with this module, so `infra.storage` does not hand it on.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from infra import storage
from infra.storage import remote
from infra.storage.disk_cache import DiskCache


def open_file(url: str, cache: DiskCache | None = None) -> pq.ParquetFile:
    """A Parquet file; each row group of a remote one is fetched by one request for exactly its bytes, or taken from
    `cache`. Raises as `storage.open_file`.
    """
    if storage.is_local(url):
        return pq.ParquetFile(storage.absolute(url))
    source = cache.open_file(url) if cache else remote.open_ranges(*storage.filesystem(url), url)
    return pq.ParquetFile(source, pre_buffer=True)


def read_table(url: str, columns: list[str] | None = None) -> pa.Table:
    """The whole file, or these columns of it. Raises as `storage.open_file`, and pa.ArrowException if it is damaged."""
    with storage.open_file(url) as stream:
        return pq.read_table(stream, columns=columns)


def write_table(url: str, table: pa.Table, *, rows_per_group: int | None = None, compression: str = "zstd") -> None:
    """Write a table as one file; without `rows_per_group` as one row group. Dictionaries are off: they do not help
    columns of bytes and numbers.
    """
    with writer(url, table.schema, compression=compression, use_dictionary=False) as out:
        out.write_table(table, row_group_size=rows_per_group or max(len(table), 1))


@contextlib.contextmanager
def writer(
    url: str, schema: pa.Schema, *, compression: str, use_dictionary: bool | list[str] = True
) -> Iterator[pq.ParquetWriter]:
    """A writer for one file, which is published at the end of the `with`, or not at all if its body raises.

    use_dictionary: for which columns; False: none.
    """
    sink = pa.BufferOutputStream()
    dictionaries: Any = use_dictionary  # the stubs know no lists of columns
    with pq.ParquetWriter(sink, schema, compression=compression, use_dictionary=dictionaries) as out:
        yield out
    storage.write_bytes(url, sink.getvalue())


@contextlib.contextmanager
def large_writer(url: str, schema: pa.Schema, *, compression: str = "zstd") -> Iterator[pq.ParquetWriter]:
    """As `writer`, for a file that memory need not hold: it is put together on disk. Dictionaries are off."""
    with (
        storage.written(url) as path,
        pq.ParquetWriter(path, schema, compression=compression, use_dictionary=False) as out,
    ):
        yield out


def decode_binary(column: pa.ChunkedArray, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """The arrays of `dtype` in the rows of a large_binary column: their values one after another, without a copy, and
    the offsets [R+1] of the rows in these.
    """
    array = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    _, offsets_buffer, data = array.buffers()
    ends = np.frombuffer(offsets_buffer, np.int64)[array.offset : array.offset + len(array) + 1]
    count = int(ends[-1] - ends[0]) // dtype.itemsize
    values = np.frombuffer(data, dtype, count=count, offset=int(ends[0])) if data else np.empty(0, dtype)
    return values, (ends - ends[0]) // dtype.itemsize
