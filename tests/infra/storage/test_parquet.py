"""Parquet files: whole or not at all, and columns of bytes as arrays."""

import numpy as np
import pyarrow as pa
import pytest

from infra import storage
from infra.storage import parquet

TABLE = pa.table({"name": ["a", "b", "c"], "size": [1, 2, 3]})


@pytest.mark.parametrize("place", ["{}", "memory://{}"])
def test_a_table_is_read_back_whole_by_columns_and_by_row_groups(tmp_path, place):
    url = storage.join(place.format(tmp_path), "folder", "table.parquet")
    parquet.write_table(url, TABLE, rows_per_group=2)
    assert parquet.read_table(url) == TABLE
    assert parquet.read_table(url, ["size"]) == TABLE.select(["size"])
    with parquet.open_file(url) as file:
        assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [2, 1]
        assert file.read_row_group(1, columns=["name"]).to_pylist() == [{"name": "c"}]


def test_a_table_without_rows_is_a_file_too(tmp_path):
    parquet.write_table(f"{tmp_path}/empty.parquet", TABLE.slice(3))
    assert parquet.read_table(f"{tmp_path}/empty.parquet") == TABLE.slice(3)


def half_written(url: str) -> None:
    with parquet.writer(url, TABLE.schema, compression="zstd") as out:
        out.write_table(TABLE.slice(2))
        raise ZeroDivisionError


def test_a_file_whose_writing_fails_does_not_exist_and_replaces_none(tmp_path):
    url = f"{tmp_path}/table.parquet"
    with pytest.raises(ZeroDivisionError):
        half_written(url)
    assert list(tmp_path.iterdir()) == []
    parquet.write_table(url, TABLE)
    with pytest.raises(ZeroDivisionError):
        half_written(url)
    assert parquet.read_table(url) == TABLE


def test_decoding_a_slice_of_a_column():
    u2 = np.dtype("<u2")
    column = pa.chunked_array([pa.array([b"\1\0\2\0", b"", b"\3\0"], pa.large_binary())])
    values, offsets = parquet.decode_binary(column, u2)
    assert (values.tolist(), offsets.tolist()) == ([1, 2, 3], [0, 2, 2, 3])
    values, offsets = parquet.decode_binary(column.slice(1), u2)
    assert (values.tolist(), offsets.tolist()) == ([3], [0, 0, 1])
    two = pa.chunked_array([column.chunk(0), pa.array([b"\4\0"], pa.large_binary())])
    values, offsets = parquet.decode_binary(two, u2)
    assert (values.tolist(), offsets.tolist()) == ([1, 2, 3, 4], [0, 2, 2, 3, 4])
