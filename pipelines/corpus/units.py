"""Raw files to cleaned text: some input files -> a Parquet file of documents, and a ledger of what was dropped.

Documents of a unit are ordered by a hash of their content and cut into buckets, equal ranges of that hash, one row
group each. The one hash shuffles the documents, decides their split, and puts equal documents of all units into buckets
of the same number. A unit's outputs are named by its inputs and settings, so a second run, or a run after files were
added, redoes only what is new. One file may make several units: a dump of 100 GB is read in one go, in bounded memory.
"""

import hashlib
import operator
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from infra import storage
from infra.storage import parquet
from pipelines.corpus import ledger
from pipelines.corpus.clean import CleanConfig, clean
from pipelines.corpus.decompress import MAX_WINDOW
from pipelines.corpus.marks import find_marks, is_sampled
from pipelines.corpus.reading import read_documents
from pipelines.corpus.records import BUCKETS, Bucket, Unit, bucket_start, unit_of, unit_record
from pipelines.corpus.sources import InputFile
from pipelines.document import NOT_MALFORMED, Document, Rejected, content_key, document_id, without_surrogates

VERSION = 4  # of the cleaned text and of the order in which it goes into shards and samples
_BATCH_BYTES = 1 << 19
_RECORD_BYTES = 300  # what a record takes in memory besides its text, in the ledger too

_MOST_HOLES = 100  # names

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


class _Kept(NamedTuple):
    """A document that was kept; the fields are the columns."""

    id: bytes
    key: int
    path: str
    offset: int
    num_bytes: int
    text: bytes
    """In UTF-8."""


class _Growing:
    """What one unit collects while its files are read."""

    def __init__(self) -> None:
        self.kept: list[_Kept] = []
        self.dropped: list[ledger.Entry] = []
        self.repairs: Counter[str] = Counter()
        self.malformed: Counter[str] = Counter()
        self.lost: Counter[str] = Counter()
        self.marks: Counter[str] = Counter()
        self.holes: Counter[str] = Counter()
        self.sampled = 0
        self.num_bytes = self.stored_bytes = 0
        self.weight = 0  # what bounds memory: text, and what is kept of any record


def clean_files(
    files: list[InputFile],
    config: CleanConfig,
    out_url: str,
    *,
    unit_bytes: int = 1 << 62,
    max_window: int = MAX_WINDOW,
) -> list[Unit]:
    """Read and clean some files of one source; returns the units that they make, one nearly always.

    A unit ends behind the document that fills unit_bytes of text: that bounds memory. Writes `<out_url>.parquet` and
    `<out_url>.ledger.parquet`, for the second unit `<out_url>-1.parquet` and so on, and after them `<out_url>.json`
    with what `read_units` reads, which is what later stages trust.
    """
    source, units, growing = files[0].source, list[Unit](), _Growing()
    around = around_path(files[0])
    for file in files:
        path, uri = without_surrogates(file.path), without_surrogates(file.url)  # names need not be UTF-8
        growing.stored_bytes += (file.size if file.stop is None else file.stop) - file.start
        for item in read_documents(file, max_window=max_window):
            if growing.weight >= unit_bytes:
                units.append(_write_unit(growing, source, around, f"{out_url}-{len(units)}" if units else out_url))
                growing = _Growing()
            growing.weight += _RECORD_BYTES
            if isinstance(item, Document) and is_sampled(len(growing.kept) + len(growing.dropped)):
                growing.sampled += 1
                growing.marks.update(find_marks(item.text, file.reader))
            outcome = _judge(item, config)
            identity = document_id(source, file.path, item.offset)
            if isinstance(outcome, Rejected):
                detail = without_surrogates(outcome.detail[:200])
                if outcome.lost:
                    growing.lost[outcome.reason] += outcome.lost
                place = (identity, source, uri, outcome.offset)
                growing.dropped.append(ledger.Entry(*place, outcome.reason, detail, outcome.lost or 0))
                if isinstance(item, Rejected) and item.reason not in NOT_MALFORMED:
                    growing.malformed[item.reason] += 1
                continue
            text, repaired = outcome
            for repair in repaired:
                growing.repairs[repair] += 1
            if isinstance(item, Document) and item.meta and "holes" in item.meta:
                growing.holes.update(item.meta["holes"])
            data = text.encode()
            growing.num_bytes += len(data)
            growing.weight += len(data)
            growing.kept.append(_Kept(identity, content_key(data), path, item.offset, len(data), data))
    units.append(_write_unit(growing, source, around, f"{out_url}-{len(units)}" if units else out_url))
    storage.write_json(f"{out_url}.json", [unit_record(unit) for unit in units])
    return units


def read_units(urls: list[str]) -> list[list[Unit]]:
    """The units that each call of `clean_files` with these as its `out_url` has written."""
    return [[unit_of(record) for record in records] for records in storage.read_jsons([f"{url}.json" for url in urls])]


def documents_url(text_url: str, unit: str) -> str:
    """Where the documents of a unit lie. text_url: the folder of the cleaned text; unit: the unit's path."""
    return storage.join(text_url, f"{unit}.parquet")


def read_bucket(text_url: str, unit: str, bucket: Bucket, columns: list[str]) -> pa.Table:
    """All documents of a bucket of a unit, in their order."""
    with parquet.open_file(documents_url(text_url, unit)) as file:
        return file.read_row_group(bucket.group, columns=columns)


def read_texts(text_url: str, unit: str) -> Iterator[list[str]]:
    """The texts of all documents of a unit in their order, as lists of about half a MB and at most 1,000 texts."""
    with storage.open_file(documents_url(text_url, unit)) as stream:
        for batch in pq.ParquetFile(stream).iter_batches(batch_size=1000, columns=["num_bytes", "text"]):
            texts: list[str] = []
            filled = 0
            for size, document in zip(batch["num_bytes"].to_pylist(), batch["text"], strict=True):
                texts.append(document.as_py())
                filled += size
                if filled >= _BATCH_BYTES:
                    yield texts
                    texts, filled = [], 0
            if texts:
                yield texts


def around_path(file: InputFile) -> tuple[str, str]:
    """What stands before and after a file's path in its URL; nothing where a reader names its files by itself. Of the
    path a.zip/b.txt, for zip://b.txt::/my/a.zip, what stands before it in the place /my/a.zip/b.txt.
    """
    # zip://<path>::s3://...
    url, chain, archive = (file.url, "", "") if storage.is_local(file.url) else file.url.partition("::")
    before, after = url.removesuffix(file.path), chain + archive
    if before == url:
        member = "/" + url.partition("://")[2].removeprefix("./")
        archive_path = file.path.removesuffix(member)
        if not chain or archive_path == file.path or not archive.endswith(archive_path):
            return "", ""
        before, after = archive.removesuffix(archive_path), ""
    return without_surrogates(before), without_surrogates(after)


def _judge(item: Document | Rejected, config: CleanConfig) -> tuple[str, tuple[str, ...]] | Rejected:
    """(text, names of its repairs) of a document that is kept, or why there is none."""
    if isinstance(item, Rejected):
        return item
    text = without_surrogates(item.text)
    result = clean(text, config)
    if isinstance(result, str):
        return Rejected(item.offset, result, "")
    cleaned, repaired = result
    before = "utf8" if text is not item.text else (item.meta or {}).get("repaired")
    return cleaned, (*repaired, before) if before else repaired


def _write_unit(growing: _Growing, source: str, around: tuple[str, str], url: str) -> Unit:
    kept = sorted(growing.kept, key=operator.attrgetter("key", "id"))
    buckets = _write_documents(f"{url}.parquet", kept)
    ledger.write_ledger(f"{url}.ledger.parquet", growing.dropped)
    return Unit(
        source=source,
        around=around,
        path=storage.base_name(url),
        read=len(kept) + len(growing.dropped),
        kept=len(kept),
        dropped=dict(sorted(Counter(entry.reason for entry in growing.dropped).items())),
        malformed=dict(growing.malformed),
        lost=dict(growing.lost),
        repaired=dict(growing.repairs),
        sampled=growing.sampled,
        marks=dict(growing.marks),
        holes=dict(growing.holes.most_common(_MOST_HOLES)),
        num_bytes=growing.num_bytes,
        stored_bytes=growing.stored_bytes,
        buckets=tuple(buckets),
        digest=_digest(kept, growing.dropped),
    )


def _write_documents(url: str, kept: list[_Kept]) -> list[Bucket]:
    """Write the documents, which are ordered by key: a row group per bucket that has some."""
    keys = np.array([document.key for document in kept], np.uint64)
    edges = np.searchsorted(keys, [np.uint64(bucket_start(number)) for number in range(BUCKETS)])
    edges = np.append(edges, len(kept))
    buckets: list[Bucket] = []
    with parquet.writer(url, _SCHEMA, compression="lz4", use_dictionary=["path"]) as writer:
        for number in range(BUCKETS):
            rows = kept[edges[number] : edges[number + 1]]
            if not rows:
                continue
            columns = zip(zip(*rows, strict=True), _SCHEMA, strict=True)
            table = pa.table([pa.array(values, type=field.type) for values, field in columns], schema=_SCHEMA)
            writer.write_table(table, len(rows))
            buckets.append(Bucket(number, len(buckets), len(rows), sum(document.num_bytes for document in rows)))
    return buckets


def _digest(kept: list[_Kept], dropped: list[ledger.Entry]) -> str:
    """A digest of the documents, by identity and text, and of the drops, by identity and reason.

    By the text itself: content keys are the same for texts that differ in white space.
    """
    digest = hashlib.blake2b(digest_size=16)
    for document in kept:
        place = document.offset.to_bytes(8, "little") + document.num_bytes.to_bytes(8, "little")
        digest.update(document.id + place)
        digest.update(document.text)
    for entry in sorted(dropped):
        digest.update(entry.id + entry.reason.encode())
    return digest.hexdigest()
