"""Raw files to cleaned text: one unit of input files -> one Parquet file of documents, one ledger of what was dropped.

Documents of a unit are ordered by a hash of their content and cut into PIECES equal ranges of that hash, one row group
each. The one hash shuffles the documents, decides their split, and puts equal documents of all units into the same
piece. A unit's outputs are named by its inputs and settings, so a second run, or a run after files were added, redoes
only what is new. One file may make several units: a dump of 100 GB is read in one go, in bounded memory.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from infra import storage
from infra.storage import parquet
from pipelines.corpus.clean import CleanConfig, clean
from pipelines.corpus.ledger import write_ledger
from pipelines.corpus.reading import read_documents
from pipelines.corpus.sources import InputFile
from pipelines.document import NOT_MALFORMED, Document, Rejected, content_key, document_id, without_surrogates

VERSION = 4  # of the cleaned text and of the order in which it goes into shards and samples
PIECES = 16
_BATCH_BYTES = 1 << 19

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


_RECORD_BYTES = 300  # what a record takes in memory besides its text, in the ledger too


class _Part:
    """What one unit collects while its files are read."""

    def __init__(self) -> None:
        self.kept: list[tuple[bytes, int, str, int, int, str]] = []
        self.ledger: list[tuple[bytes, str, str, int, str, str]] = []
        self.repairs: Counter[str] = Counter()
        self.malformed: Counter[str] = Counter()
        self.num_bytes = 0
        self.weight = 0  # what bounds memory: text, and what is kept of any record


def clean_files(
    files: list[InputFile], config: CleanConfig, out_url: str, *, unit_bytes: int = 1 << 62
) -> list[dict[str, Any]]:
    """Read and clean some files of one source; returns the records of the units that they make, one nearly always.

    A unit ends behind the document that fills unit_bytes of text: that bounds memory. Writes `<out_url>.parquet` and
    `<out_url>.ledger.parquet`, for the second unit `<out_url>-1.parquet` and so on, and after them `<out_url>.json`
    with the records, which is what later stages trust: counts, pieces, digests.
    """
    source, records, part = files[0].source, [], _Part()
    around = around_path(files[0])
    for file in files:
        path, uri = without_surrogates(file.path), without_surrogates(file.url)  # names need not be UTF-8
        for item in read_documents(file):
            if part.weight >= unit_bytes:
                records.append(_write_unit(part, source, around, f"{out_url}-{len(records)}" if records else out_url))
                part = _Part()
            part.weight += _RECORD_BYTES
            outcome = _judge(item, config)
            identity = document_id(source, file.path, item.offset)
            if isinstance(outcome, Rejected):
                detail = without_surrogates(outcome.detail[:200])
                part.ledger.append((identity, source, uri, outcome.offset, outcome.reason, detail))
                if outcome is item and item.reason not in NOT_MALFORMED:
                    part.malformed[item.reason] += 1
                continue
            text, repaired = outcome
            part.repairs.update(repaired)
            size = len(text.encode())
            part.num_bytes += size
            part.weight += size
            part.kept.append((identity, content_key(text), path, item.offset, size, text))
    records.append(_write_unit(part, source, around, f"{out_url}-{len(records)}" if records else out_url))
    storage.write_json(f"{out_url}.json", records)
    return records


def _write_unit(part: _Part, source: str, around: list[str], url: str) -> dict[str, Any]:
    kept = sorted(part.kept, key=lambda row: (row[1], row[0]))
    pieces = _write_documents(f"{url}.parquet", kept)
    write_ledger(f"{url}.ledger.parquet", part.ledger)
    return {
        "source": source,
        "around": around,
        "path": storage.base_name(url),
        "read": len(kept) + len(part.ledger),
        "kept": len(kept),
        "dropped": dict(sorted(Counter(row[4] for row in part.ledger).items())),
        "malformed": dict(part.malformed),
        "repaired": dict(part.repairs),
        "num_bytes": part.num_bytes,
        "pieces": pieces,
        "digest": _digest(kept, part.ledger),
    }


def read_pieces(url: str, groups: list[int], columns: list[str]) -> pa.Table:
    """Documents of some row groups of a unit, in their order."""
    with parquet.open_file(url) as file:
        return file.read_row_groups(groups, columns=columns)


def read_texts(url: str) -> Iterator[list[str]]:
    """The texts of all documents of a unit in their order, as lists of about half a MB and at most 1,000 texts."""
    with storage.open_file(url) as stream:
        for batch in pq.ParquetFile(stream).iter_batches(batch_size=1000, columns=["num_bytes", "text"]):
            held: list[str] = []
            filled = 0
            for size, document in zip(batch["num_bytes"].to_pylist(), batch["text"], strict=True):
                held.append(document.as_py())
                filled += size
                if filled >= _BATCH_BYTES:
                    yield held
                    held, filled = [], 0
            if held:
                yield held


def pieces(units: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """All pieces of these units, each with what tells where it is and what it holds."""
    return [
        {
            "unit": unit["path"],
            "digest": unit["digest"],
            "source": unit["source"],
            "selection": unit.get("selection"),
            **piece,
        }
        for unit in units
        for piece in unit["pieces"]
    ]


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
    pieces = []
    with parquet.writer(url, _SCHEMA, compression="lz4") as writer:
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
    return pieces


def _digest(kept: list[tuple], ledger: list[tuple]) -> str:
    """Of what the unit holds: documents by identity and text, and drops by identity and reason.

    By the text itself: content keys are the same for texts that differ in white space.
    """
    digest = hashlib.blake2b(digest_size=16)
    for identity, _, _, offset, size, text in kept:
        digest.update(identity + offset.to_bytes(8, "little") + size.to_bytes(8, "little") + text.encode())
    for row in sorted(ledger):
        digest.update(row[0] + row[4].encode())
    return digest.hexdigest()


def around_path(file: InputFile) -> list[str]:
    """What stands before and after a file's path in its URL; nothing where a reader names its files by itself."""
    url, chain, archive = file.url.partition("::")  # zip://<path>::s3://...
    if not url.endswith(file.path):
        return ["", ""]
    return [without_surrogates(url.removesuffix(file.path)), without_surrogates(chain + archive)]
