"""items.parquet is ordered as numbers are, and read by the rows that are wanted."""

import numpy as np
import pyarrow as pa

from infra.storage import parquet
from pipelines.metrics.items import SCHEMA
from pipelines.metrics.items_file import id_order, read_rows


def test_ids_are_ordered_as_numbers_are():
    assert id_order(pa.array(["10", "9", "é", "b", "a-1"])).tolist() == [1, 3, 2, 0, 4]


def test_rows_are_read_by_their_numbers(tmp_path):
    url = str(tmp_path / "items.parquet")
    parquet.write_table(url, pa.Table.from_pylist([{"item": one} for one in "abcde"], schema=SCHEMA), rows_per_group=2)
    assert read_rows(url, np.array([3, 0, 4]))["item"].to_pylist() == ["d", "a", "e"]
    assert len(read_rows(url, np.array([], np.int64))) == 0
