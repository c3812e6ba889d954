"""Raw files to cleaned text: one unit of input files -> one Parquet file of documents, one ledger of what was dropped.

Documents of a unit are ordered by a hash of their content and cut into PIECES equal ranges of that hash, one row group
each. The one hash shuffles the documents, decides their split, and puts equal documents of all units into the same
piece. A unit's outputs are named by its inputs and settings, so a second run, or a run after files were added, redoes
only what is new.
"""

import hashlib
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from infra import storage
from pipelines.clean import CleanConfig, clean
from pipelines.document import Document, Rejected, content_key, document_id
from pipelines.sources import InputFile, read_documents

VERSION = 1
PIECES = 16
SMALLEST = 64  # smallest keys that a unit reports: enough to choose validation documents of a small corpus

_SCHEMA = pa.schema(
    [
        ("id", pa.binary(16)),
        ("key", pa.uint64()),
        ("path", pa.dictionary(pa.int32(), pa.string())),
        ("offset", pa.int64()),
        ("num_bytes", pa.int64()),
        ("text", pa.large_string()),
    ]
)
LEDGER_SCHEMA = pa.schema(
    [
        ("id", pa.binary(16)),
        ("source", pa.string()),
        ("uri", pa.string()),
        ("offset", pa.int64()),
        ("reason", pa.string()),
        ("detail", pa.string()),
    ]
)


def clean_unit(files: list[InputFile], config: CleanConfig, out_url: str) -> dict[str, Any]:
    """Read and clean the files of one unit, write `<out_url>.parquet` and `<out_url>.ledger.parquet`; returns its
    record.

    The record, also written as `<out_url>.json` after the files, is what later stages trust: counts, pieces, digest.
    """
    source = files[0].source
    kept: list[tuple[bytes, int, str, int, int, str]] = []
    ledger: list[tuple[bytes, str, str, int, str, str]] = []
    repairs: dict[str, int] = {}
    for file in files:
        for item in read_documents(file):
            outcome = _judge(item, config)
            identity = document_id(source, file.path, item.offset)
            if isinstance(outcome, Rejected):
                ledger.append((identity, source, file.url, outcome.offset, outcome.reason, outcome.detail[:200]))
                continue
            text, repaired = outcome
            for repair in repaired:
                repairs[repair] = repairs.get(repair, 0) + 1
            kept.append((identity, content_key(text), file.path, item.offset, len(text.encode()), text))
    kept.sort(key=lambda row: (row[1], row[0]))
    pieces = _write_documents(f"{out_url}.parquet", kept)
    store_ledger(f"{out_url}.ledger.parquet", ledger)
    record = {
        "source": source,
        "path": out_url.rsplit("/", 1)[-1],
        "read": len(kept) + len(ledger),
        "kept": len(kept),
        "dropped": _count(row[4] for row in ledger),
        "repaired": repairs,
        "num_bytes": sum(row[4] for row in kept),
        "pieces": pieces,
        "smallest": [[row[1], row[4]] for row in kept[:SMALLEST]],
        "digest": _digest(kept, ledger),
    }
    storage.write_json(f"{out_url}.json", record)
    return record


def read_pieces(url: str, groups: list[int], columns: list[str]) -> pa.Table:
    """Documents of some row groups of a unit, in their order."""
    fs, path = storage.filesystem(url)
    with fs.open(path, "rb") as stream:
        return pq.ParquetFile(stream).read_row_groups(groups, columns=columns)


def store_ledger(url: str, rows: list[tuple[bytes, str, str, int, str, str]]) -> None:
    columns = list(zip(*sorted(rows), strict=True)) if rows else [[] for _ in LEDGER_SCHEMA]
    arrays = [pa.array(column, type=field.type) for column, field in zip(columns, LEDGER_SCHEMA, strict=True)]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(arrays, schema=LEDGER_SCHEMA), sink, compression="zstd")
    storage.write_bytes(url, sink.getvalue())


def join_ledgers(urls: list[str], out_url: str) -> int:
    """One ledger out of those of many units, in their order; returns its rows. Holds one unit's at a time."""
    sink = pa.BufferOutputStream()
    rows = 0
    with pq.ParquetWriter(sink, LEDGER_SCHEMA, compression="zstd") as writer:
        for url in urls:
            fs, path = storage.filesystem(url)
            with fs.open(path, "rb") as stream:
                table = pq.read_table(stream, schema=LEDGER_SCHEMA)
            writer.write_table(table)
            rows += len(table)
    storage.write_bytes(out_url, sink.getvalue())
    return rows


def piece_of(key: int) -> int:
    """The piece that a content key falls into."""
    return key * PIECES >> 64


def _judge(item: Document | Rejected, config: CleanConfig) -> tuple[str, tuple[str, ...]] | Rejected:
    if isinstance(item, Rejected):
        return item
    result = clean(item.text, config)
    if isinstance(result, str):
        return Rejected(item.offset, result, "")
    text, repaired = result
    if item.meta and "repaired" in item.meta:
        repaired = (*repaired, item.meta["repaired"])
    return text, repaired


def _write_documents(url: str, kept: list[tuple[bytes, int, str, int, int, str]]) -> list[dict[str, int]]:
    """Write the documents, a row group per non-empty piece; returns [{piece, group, documents, num_bytes}]."""
    keys = np.array([row[1] for row in kept], np.uint64)
    edges = np.searchsorted(keys, [np.uint64((piece << 64) // PIECES) for piece in range(PIECES)])
    edges = np.append(edges, len(kept))
    sink = pa.BufferOutputStream()
    pieces = []
    with pq.ParquetWriter(sink, _SCHEMA, compression="lz4") as writer:
        for piece in range(PIECES):
            rows = kept[edges[piece] : edges[piece + 1]]
            if not rows:
                continue
            columns = zip(zip(*rows, strict=True), _SCHEMA, strict=True)
            writer.write_table(
                pa.table([pa.array(values, type=field.type) for values, field in columns], schema=_SCHEMA), len(rows)
            )
            pieces.append(
                {"piece": piece, "group": len(pieces), "documents": len(rows), "num_bytes": sum(row[4] for row in rows)}
            )
    storage.write_bytes(url, sink.getvalue())
    return pieces


def _digest(kept: list[tuple], ledger: list[tuple]) -> str:
    """Of what the unit holds: documents by identity and content, and drops by identity and reason."""
    digest = hashlib.blake2b(digest_size=16)
    for row in kept:
        digest.update(
            row[0] + row[1].to_bytes(8, "little") + row[3].to_bytes(8, "little") + row[4].to_bytes(8, "little")
        )
    for row in sorted(ledger):
        digest.update(row[0] + row[4].encode())
    return digest.hexdigest()


def _count(values) -> dict[str, int]:
    counts: dict[str, int] = {}
    for value in values:
        counts[value] = counts.get(value, 0) + 1
    return dict(sorted(counts.items()))
