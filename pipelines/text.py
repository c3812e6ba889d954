"""Raw files to cleaned text: one unit of input files -> one Parquet file of documents, one ledger of what was dropped.

Documents of a unit are ordered by a hash of their content and cut into PIECES equal ranges of that hash, one row group
each. The one hash shuffles the documents, decides their split, and puts equal documents of all units into the same
piece. A unit's outputs are named by its inputs and settings, so a second run, or a run after files were added, redoes
only what is new.
"""

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from infra import storage
from pipelines.clean import CleanConfig, clean
from pipelines.document import Document, Rejected, content_key, document_id, without_surrogates
from pipelines.ledger import write_ledger
from pipelines.sources import InputFile, read_documents

VERSION = 2  # of the cleaned text and of the order in which it goes into shards and samples
PIECES = 16

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
        path, uri = without_surrogates(file.path), without_surrogates(file.url)  # names need not be UTF-8
        for item in read_documents(file):
            outcome = _judge(item, config)
            identity = document_id(source, file.path, item.offset)
            if isinstance(outcome, Rejected):
                detail = without_surrogates(outcome.detail[:200])
                ledger.append((identity, source, uri, outcome.offset, outcome.reason, detail))
                continue
            text, repaired = outcome
            for repair in repaired:
                repairs[repair] = repairs.get(repair, 0) + 1
            kept.append((identity, content_key(text), path, item.offset, len(text.encode()), text))
    kept.sort(key=lambda row: (row[1], row[0]))
    pieces = _write_documents(f"{out_url}.parquet", kept)
    write_ledger(f"{out_url}.ledger.parquet", ledger)
    record = {
        "source": source,
        "path": out_url.rsplit("/", 1)[-1],
        "read": len(kept) + len(ledger),
        "kept": len(kept),
        "dropped": _count(row[4] for row in ledger),
        "repaired": repairs,
        "num_bytes": sum(row[4] for row in kept),
        "pieces": pieces,
        "digest": _digest(kept, ledger),
    }
    storage.write_json(f"{out_url}.json", record)
    return record


def read_pieces(url: str, groups: list[int], columns: list[str]) -> pa.Table:
    """Documents of some row groups of a unit, in their order."""
    fs, path = storage.filesystem(url)
    with fs.open(path, "rb") as stream:
        return pq.ParquetFile(stream).read_row_groups(groups, columns=columns)


def documents_by_key(text_url: str, units: list[dict[str, Any]]) -> Iterator[tuple[int, int]]:
    """(key, bytes) of all documents of some units, by ascending key. Reads and holds one piece of each at a time."""
    for number in range(PIECES):
        places = [(u["path"], p["group"]) for u in units for p in u["pieces"] if p["piece"] == number]
        urls = [(storage.join(text_url, f"{path}.parquet"), group) for path, group in places]
        tables = [read_pieces(url, [group], ["key", "num_bytes"]) for url, group in urls]
        if tables:
            for batch in pa.concat_tables(tables).sort_by("key").to_batches(max_chunksize=1000):
                yield from zip(batch["key"].to_pylist(), batch["num_bytes"].to_pylist(), strict=True)


def piece_of(key: int) -> int:
    """The piece that a content key falls into."""
    return key * PIECES >> 64


def _judge(item: Document | Rejected, config: CleanConfig) -> tuple[str, tuple[str, ...]] | Rejected:
    if isinstance(item, Rejected):
        return item
    found = without_surrogates(item.text)
    result = clean(found, config)
    if isinstance(result, str):
        return Rejected(item.offset, result, "")
    text, repaired = result
    before = "utf8" if found is not item.text else (item.meta or {}).get("repaired")
    return text, (*repaired, before) if before else repaired


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
