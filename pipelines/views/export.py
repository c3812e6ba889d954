"""Laid-out examples as Parquet, for trainers that do not lay them out themselves."""

import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from glm_model.layout import Example
from infra import storage
from pipelines.feed.examples import FeedSettings, draw_epoch, lay_out
from pipelines.store.format import Split

_NAMES = tuple(field.name for field in dataclasses.fields(Example))


def export(split: Split, settings: FeedSettings, url: str, *, epoch: int, rows: int | None = None) -> int:
    """Write a split's rows as the model is asked them in an epoch; returns how many. rows: at most so many.

    A column per array of `glm_model.layout.Example`, each a list<int32> of row_width values; a row per packed row, in
    the store's order. Memory: one row group. A remote file is put together on a local disk.
    """
    schema = pa.schema([(name, pa.list_(pa.int32(), settings.width)) for name in _NAMES])
    wanted = left = split.rows if rows is None else min(rows, split.rows)
    with storage.written(url) as path, pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for group in range(len(split.group_rows)):
            if left <= 0:
                break
            batch = split.read_group(group)
            example = lay_out(batch, draw_epoch(batch, settings, epoch), settings).slice_rows(0, left)
            columns = [_column(array) for array in example.arrays().values()]
            writer.write_table(pa.table(columns, schema=schema))
            left -= len(example.tokens)
    return wanted


def _column(array: np.ndarray) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(array.astype(np.int32).ravel()), array.shape[1])
