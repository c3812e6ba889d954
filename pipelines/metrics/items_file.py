"""The file items.parquet: its order, and reading a part of it, as all of its texts may be too much for memory."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from infra.storage import parquet
from pipelines.metrics.items import SCHEMA

JUDGED = [name for name in SCHEMA.names if name != "question"]
"""The columns that metrics need."""


def id_order(ids: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Numbers of the rows in the order of their ids: 10 after 9."""
    table = pa.table({"characters": pc.utf8_length(ids), "id": ids})  # pyright: ignore[reportAttributeAccessIssue]
    return sorted_rows(table, "characters", "id")


def sorted_rows(table: pa.Table, *names: str) -> np.ndarray:
    """Numbers of the rows, ascending by these columns."""
    keys = [(name, "ascending") for name in names]
    return pc.sort_indices(table, sort_keys=keys).to_numpy()  # pyright: ignore[reportAttributeAccessIssue]


def read_rows(url: str, rows: np.ndarray) -> pa.Table:
    """Rows of the file by their numbers, in the order given. Reads the row groups that hold them."""
    found = [SCHEMA.empty_table()]
    with parquet.open_file(url) as file:
        sizes = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
        ends = np.cumsum(sizes)
        groups = np.searchsorted(ends, rows, side="right")
        for row, group in zip(rows.tolist(), groups.tolist(), strict=True):
            found.append(file.read_row_group(group).slice(row - (ends[group] - sizes[group]), 1))
    return pa.concat_tables(found)
