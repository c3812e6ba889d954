"""Exported rows are what the feed lays out, column by column."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from helpers import small

from pipelines.feed.micro_batches import RowReader
from pipelines.feed.order import RowPlaces
from pipelines.views.export import export


@pytest.mark.parametrize("rows", [None, 3])
def test_exported_rows_are_those_of_training(tiny_store, tiny_tokenizer, tmp_path, rows):
    settings = small.settings_of(tiny_store, tiny_tokenizer)
    place = str(tmp_path / "examples.parquet")
    written = export(tiny_store.train, settings, place, epoch=2, rows=rows)
    assert written == (rows or tiny_store.train.rows)
    table = pq.read_table(place)
    reader = RowReader(tiny_store.train, settings)
    at = 0
    for group, size in enumerate(tiny_store.train.group_rows):
        for row in range(min(size, written - at)):
            places = RowPlaces(np.array([2]), np.array([group]), np.array([row]))
            for name, array in reader.micro_batch(places).example.arrays().items():
                assert table[name][at].as_py() == array[0].tolist(), name
            at += 1
    assert at == written == len(table)
