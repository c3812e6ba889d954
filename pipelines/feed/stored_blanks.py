"""Blanks drawn in advance: plans beside the rows, byte-equal to what training would draw online.

A plan holds, for every row of a shard and for one epoch, the objective and the spans of its segments: about 80 bytes
for a 512-token segment under the token objective. Ray Data draws the first epoch and the validation split in parallel
while the store is prepared; training reads a plan where there is one and draws the same blanks where there is none.
"""

import hashlib
import itertools
import json
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from infra import storage
from infra.storage import parquet
from pipelines.blanks.draw import Blanks, draw_rows
from pipelines.blanks.mixture import BlanksConfig, Mixture
from pipelines.ragged import RowBatch
from pipelines.store import format
from pipelines.token_classes import TokenClasses

VERSION = 2
_REDRAWN = b"redrawn_rows"
_SCHEMA = pa.schema(
    [
        ("objectives", pa.large_binary()),  # uint8 per segment
        ("counts", pa.large_binary()),  # uint16 per segment: its blanks
        (
            "starts",
            pa.large_binary(),
        ),  # uint16 (uint32 in wider rows than 65,536) per blank, in the order of prediction
        ("sizes", pa.large_binary()),
    ]
)


def blanks_key(config: BlanksConfig, mixture: Mixture, *, seed: int, width: int) -> str:
    """Names the folder of the plans that a run with these settings may read."""
    settings = [asdict(c) for c in mixture.configs]
    content = [VERSION, mixture.names, mixture.shares, settings, config.order, seed, width]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def blanks_path(key: str, split: str, epoch: int, shard_path: str) -> str:
    return f"plans/{key}/{split}/epoch-{epoch:05d}/{shard_path.rsplit('/', 1)[-1]}"


def write_blanks(
    store_url: str,
    split: format.Split,
    shard: int,
    mixture: Mixture,
    token_classes: TokenClasses,
    *,
    key: str,
    name: str,
    seed: int,
    epoch: int,
    width: int,
) -> dict[str, int]:
    """Draw and store the blanks of one shard for one epoch; returns counts for the manifest."""
    tables, redrawn, num_blanks, num_segments = [], 0, 0, 0
    first = int(np.searchsorted([place[0] for place in split.group_places], shard))
    for group in range(first, first + len(split.shards[shard].groups)):
        rows = split.read_group(group)
        blanks, redraws = draw_rows(mixture, rows, token_classes, seed=seed, epoch=epoch, width=width)
        tables.append(_encode(rows, blanks, _wide(width)))
        redrawn += int((redraws > 0).sum())
        num_blanks += len(blanks.spans)
        num_segments += len(blanks.objective)
    url = storage.join(store_url, blanks_path(key, name, epoch, split.shards[shard].path))
    table = pa.concat_tables(tables) if tables else _SCHEMA.empty_table()
    table = table.replace_schema_metadata({"dtype": _wide(width).str, _REDRAWN: str(redrawn)})
    _write_groups(url, table, split.shards[shard].groups)
    return {"redrawn_rows": redrawn, "blanks": num_blanks, "segments": num_segments}


def read_blanks(file: pq.ParquetFile, group: int, rows: RowBatch) -> Blanks:
    """The blanks of one row group of the shard that `file` plans for."""
    table = file.read_row_group(group)
    wide = np.dtype(table.schema.metadata[b"dtype"].decode())
    objective, _ = parquet.decode_binary(table["objectives"], np.dtype("u1"))
    count, _ = parquet.decode_binary(table["counts"], np.dtype("<u2"))
    start, _ = parquet.decode_binary(table["starts"], wide)
    size, _ = parquet.decode_binary(table["sizes"], wide)
    start = start.astype(np.int64)
    spans = np.stack((start, start + size), axis=1)
    assert len(objective) == len(rows.ids), "a plan and its rows have the same segments"
    return Blanks(objective, spans, np.concatenate(([0], np.cumsum(count.astype(np.int64)))))


def redrawn_rows(url: str) -> int:
    """Rows of all plans below `url` that were drawn again because their first draw did not fit."""
    total = 0
    for info in storage.list_files(url):
        if info.path.endswith(".parquet"):
            with storage.open_file(info.url) as stream:
                total += int(pq.read_schema(stream).metadata[_REDRAWN])
    return total


def _wide(width: int) -> np.dtype:
    """Type of places in a row; by the width, so that all row groups of a file have one."""
    return np.dtype("<u2") if width <= 1 << 16 else np.dtype("<u4")


def _encode(rows: RowBatch, blanks: Blanks, wide: np.dtype) -> pa.Table:
    count = np.diff(blanks.span_offsets).astype("<u2")
    start, size = blanks.spans[:, 0].astype(wide), (blanks.spans[:, 1] - blanks.spans[:, 0]).astype(wide)
    at_segment, at_span = rows.row_offsets, blanks.span_offsets[rows.row_offsets]
    columns: dict[str, Any] = {
        "objectives": [blanks.objective[a:b].tobytes() for a, b in itertools.pairwise(at_segment)],
        "counts": [count[a:b].tobytes() for a, b in itertools.pairwise(at_segment)],
        "starts": [start[a:b].tobytes() for a, b in itertools.pairwise(at_span)],
        "sizes": [size[a:b].tobytes() for a, b in itertools.pairwise(at_span)],
    }
    return pa.table(columns, schema=_SCHEMA)


def _write_groups(url: str, table: pa.Table, groups: tuple[int, ...]) -> None:
    """A plan has the row groups of its shard, so that both are read by the same index."""
    with parquet.writer(url, table.schema, compression="lz4", use_dictionary=False) as writer:
        first = 0
        for rows in groups:
            writer.write_table(table.slice(first, rows), row_group_size=rows)
            first += rows
