"""Stored blanks: drawn in advance, kept beside the rows, byte-equal to what training would draw online.

A file holds, for every row of a shard and for one epoch, the objective and the spans of its segments: about 80 bytes
for a 512-token segment under the token objective. Ray Data draws the first epoch and the validation split in parallel
while the store is prepared; training reads the file where there is one and draws the same blanks where there is none.
(The store's folder for them is called `plans`.)
"""

import hashlib
import itertools
import json
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from infra import storage
from infra.storage import parquet
from pipelines.blanks.draw import draw_rows
from pipelines.blanks.mixture import Mixture
from pipelines.feed.examples import FeedSettings
from pipelines.ragged import Blanks, RowBatch, offsets_of
from pipelines.store.format import Split

VERSION = 2
_REDRAWN = b"redrawn_rows"
_SCHEMA = pa.schema(
    [
        ("objectives", pa.large_binary()),  # uint8 per segment
        ("counts", pa.large_binary()),  # uint16 per segment: its blanks
        # uint16 (uint32 in wider rows than 65,536) per blank, in the order of prediction
        ("starts", pa.large_binary()),
        ("sizes", pa.large_binary()),
    ]
)


@dataclass(frozen=True)
class StoredBlanks:
    """What was stored of one shard and epoch. redrawn_rows: rows whose first draw did not fit."""

    redrawn_rows: int
    blanks: int
    segments: int


def blanks_key(mixture: Mixture, *, seed: int, width: int) -> str:
    """Names the folder of the stored blanks that a run with these settings may read."""
    settings = [asdict(config) for config in mixture.configs]
    order = "left_to_right" if mixture.left_to_right else "random"
    content = [VERSION, mixture.names, mixture.shares, settings, order, seed, width]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def blanks_path(key: str, split: str, epoch: int, shard_path: str) -> str:
    """The file of a shard's blanks in an epoch, below the store."""
    return f"plans/{key}/{split}/epoch-{epoch:05d}/{shard_path.rsplit('/', 1)[-1]}"


def write_blanks(store_url: str, split: Split, shard: int, settings: FeedSettings, *, epoch: int) -> StoredBlanks:
    """Draw and store the blanks of one shard of a split for one epoch, where `settings.blanks_key` says."""
    assert settings.blanks_key, "stored blanks have a name"
    url = storage.join(
        store_url, blanks_path(settings.blanks_key, settings.split_name, epoch, split.shards[shard].path)
    )
    tables, redrawn, num_blanks, num_segments = [], 0, 0, 0
    first = int(np.searchsorted([place[0] for place in split.group_places], shard))
    for group in range(first, first + len(split.shards[shard].groups)):
        rows = split.read_group(group)
        blanks, redraws = draw_rows(
            settings.mixture, rows, settings.token_classes, seed=settings.seed, epoch=epoch, width=settings.width
        )
        tables.append(_encode(rows, blanks, _wide(settings.width)))
        redrawn += int((redraws > 0).sum())
        num_blanks += len(blanks.spans)
        num_segments += len(rows)
    table = pa.concat_tables(tables) if tables else _SCHEMA.empty_table()
    table = table.replace_schema_metadata({"dtype": _wide(settings.width).str, _REDRAWN: str(redrawn)})
    _write_groups(url, table, split.shards[shard].groups)
    return StoredBlanks(redrawn, num_blanks, num_segments)


def open_blanks(split: Split, shard: int, settings: FeedSettings, *, epoch: int) -> pq.ParquetFile | None:
    """The stored blanks of one shard of a split in an epoch, or None where they are to be drawn."""
    if not settings.blanks_key:
        return None
    path = blanks_path(settings.blanks_key, settings.split_name, epoch, split.shards[shard].path)
    url = storage.join(split.base(shard), path)
    return parquet.open_file(url, split.cache) if storage.exists(url) else None


def read_blanks(file: pq.ParquetFile, group: int, rows: RowBatch) -> Blanks:
    """The blanks of one row group of the shard that `file` belongs to. rows: those of the group."""
    table = file.read_row_group(group)
    wide = np.dtype(table.schema.metadata[b"dtype"].decode())
    objective, _ = parquet.decode_binary(table["objectives"], np.dtype("u1"))
    count, _ = parquet.decode_binary(table["counts"], np.dtype("<u2"))
    start, _ = parquet.decode_binary(table["starts"], wide)
    size, _ = parquet.decode_binary(table["sizes"], wide)
    start = start.astype(np.int64)
    spans = np.stack((start, start + size), axis=1)
    assert len(objective) == len(rows.ids), "stored blanks and rows have the same segments"
    return Blanks(objective, spans, offsets_of(count.astype(np.int64)))


def redrawn_rows(url: str) -> int:
    """Rows of all stored blanks below `url` that were drawn again because their first draw did not fit."""
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
    count = blanks.counts.astype("<u2")
    start, size = blanks.spans[:, 0].astype(wide), blanks.sizes.astype(wide)
    at_segment, at_span = rows.row_offsets, blanks.span_offsets[rows.row_offsets]
    columns: dict[str, Any] = {
        "objectives": [blanks.objective[a:b].tobytes() for a, b in itertools.pairwise(at_segment)],
        "counts": [count[a:b].tobytes() for a, b in itertools.pairwise(at_segment)],
        "starts": [start[a:b].tobytes() for a, b in itertools.pairwise(at_span)],
        "sizes": [size[a:b].tobytes() for a, b in itertools.pairwise(at_span)],
    }
    return pa.table(columns, schema=_SCHEMA)


def _write_groups(url: str, table: pa.Table, groups: tuple[int, ...]) -> None:
    """Blanks have the row groups of their shard, so that both are read by the same index."""
    with parquet.writer(url, table.schema, compression="lz4", use_dictionary=False) as writer:
        first = 0
        for rows in groups:
            writer.write_table(table.slice(first, rows), row_group_size=rows)
            first += rows
