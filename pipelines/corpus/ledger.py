"""What became of every document: the ledger of those that were dropped, and sums over units that leave none out."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import pyarrow as pa

from infra import storage
from infra.errors import DataError
from infra.storage import parquet
from pipelines.corpus.records import Unit
from pipelines.corpus.remedies import remedy

_EXAMPLES = 3

SCHEMA = pa.schema(
    [
        ("id", pa.binary(16)),
        ("source", pa.string()),
        ("uri", pa.string()),
        ("offset", pa.int64()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("lost", pa.int64()),
    ]
)


class Entry(NamedTuple):
    """A document that was dropped: its id, where it stood, why it was dropped, and the bytes of its file that are lost
    with it. The fields are the columns.
    """

    id: bytes
    source: str
    uri: str
    offset: int
    reason: str
    detail: str
    lost: int = 0


@dataclass(frozen=True)
class SourceBalance:
    """What became of the documents of one source; num_bytes: of the kept texts, in UTF-8."""

    name: str
    read: int
    kept: int
    num_bytes: int
    dropped: dict[str, int]
    """Reason -> documents, by name."""
    repaired: dict[str, int]
    """Repair -> kept documents, by name."""
    lost: dict[str, int] = field(default_factory=dict)
    """Reason -> bytes of the files, as stored, that gave no document because of it, by name."""
    stored_bytes: int = 0
    """Bytes of the files, as stored: what could be read, and what is lost. Before these were counted, 0."""
    unknown_bytes: int | None = None
    """Those of num_bytes that the tokenizer does not know: behind its unknown token, or dropped by it. None: they are
    not counted, as for the stores of earlier versions.
    """

    @property
    def lost_bytes(self) -> int:
        return sum(self.lost.values())

    @property
    def unknown_share(self) -> float:
        """Share of num_bytes; 0 where they are not counted."""
        return (self.unknown_bytes or 0) / max(self.num_bytes, 1)


@dataclass(frozen=True)
class DocumentCounts:
    """read = kept + dropped."""

    read: int
    kept: int
    dropped: int


@dataclass(frozen=True)
class Balance:
    """What the manifest says of documents: by source, and in all."""

    sources: tuple[SourceBalance, ...]
    documents: DocumentCounts


def write_ledger(url: str, entries: list[Entry]) -> None:
    """Write the ledger of one unit, in the order of ids."""
    columns = list(zip(*sorted(entries), strict=True)) if entries else [[] for _ in SCHEMA]
    arrays = [pa.array(column, type=field.type) for column, field in zip(columns, SCHEMA, strict=True)]
    with parquet.writer(url, SCHEMA, compression="zstd") as writer:
        writer.write_table(pa.table(arrays, schema=SCHEMA))


def ledger_url(text_url: str, unit: Unit) -> str:
    """Where the ledger of a unit lies; text_url: the folder of the cleaned text."""
    return storage.join(text_url, f"{unit.path}.ledger.parquet")


def join_ledgers(urls: list[str], out_url: str) -> int:
    """Write one ledger out of those of many units, in their order; returns its rows. Holds one unit's at a time."""
    rows = 0
    with parquet.writer(out_url, SCHEMA, compression="zstd") as writer:
        for url in urls:
            table = _read(url)
            writer.write_table(table)
            rows += len(table)
    return rows


def balance(units: list[Unit]) -> Balance:
    """Sums over units, by source in their order. Asserts that every document was either kept or dropped."""
    sources = tuple(_balance_of(own) for own in by_source(units).values())
    read, kept = sum(source.read for source in sources), sum(source.kept for source in sources)
    dropped = sum(sum(source.dropped.values()) for source in sources)
    assert read == kept + dropped, f"{read} documents read, {kept} kept and {dropped} dropped"
    return Balance(sources, DocumentCounts(read, kept, dropped))


def by_source(units: list[Unit]) -> dict[str, list[Unit]]:
    """The units of each source, sources in the order in which they first appear."""
    found: dict[str, list[Unit]] = {}
    for unit in units:
        found.setdefault(unit.source, []).append(unit)
    return found


def check_malformed(units: list[Unit], text_url: str, *, limit: float) -> None:
    """Raises DataError for a source of which more than this share is lost, of its records or of its files' bytes, with
    examples. A file that breaks off may be one record and nearly all bytes.
    """
    for name, own in by_source(units).items():
        malformed, read = sum(sum(unit.malformed.values()) for unit in own), sum(unit.read for unit in own)
        lost, stored = _lost_bytes(own)
        if malformed > limit * read:
            what, examples = f"{malformed:,} of {read:,} records are malformed", _examples(own, text_url, "malformed")
        elif lost > limit * stored:
            what, examples = f"{lost:,} of {stored:,} bytes of its files are lost", _examples(own, text_url, "lost")
        else:
            continue
        raise DataError(
            f"the source {name!r} is damaged: {what}, more than data.max_malformed={limit:g} allows",
            why="\n".join(examples),
            try_="mend or remove these files, or accept the loss: --data.max_malformed=1 (what was read is kept)",
        )


def describe_losses(units: list[Unit], text_url: str) -> list[str]:
    """A sentence for each source of whose files some bytes are lost: how many, and the first places."""
    sentences = []
    for name, own in by_source(units).items():
        lost, stored = _lost_bytes(own)
        if lost:
            places = "; ".join(_examples(own, text_url, "lost"))
            sentences.append(f"{lost:,} of {stored:,} bytes of the files of {name!r} are lost: {places}")
    return sentences


def check_kept(units: list[Unit], text_url: str) -> None:
    """Raises DataError for a source of which no document was kept, with the reasons and the first ledger entry."""
    for own in by_source(units).values():
        if not any(unit.kept for unit in own):
            raise _nothing_kept(_balance_of(own), own, text_url)


def _lost_bytes(units: list[Unit]) -> tuple[int, int]:
    """(bytes that are lost, bytes of all files) of some units; of some files the size was not known before."""
    lost = sum(sum(unit.lost.values()) for unit in units)
    return lost, max(sum(unit.stored_bytes for unit in units), lost)


def _examples(units: list[Unit], text_url: str, kind: Literal["malformed", "lost"]) -> list[str]:
    """The first places with a reason for which records are malformed, or bytes lost."""
    examples: list[str] = []
    for unit in units:
        reasons: dict[str, int] = getattr(unit, kind)
        if reasons and len(examples) < _EXAMPLES:
            entries = [entry for entry in _read(ledger_url(text_url, unit)).to_pylist() if entry["reason"] in reasons]
            entries.sort(key=lambda entry: -entry["lost"])
            examples += [_example(entry) for entry in entries[:_EXAMPLES]]
    return examples[:_EXAMPLES]


def _example(entry: dict[str, Any]) -> str:
    lost = f" ({entry['lost']:,} bytes are lost)" if entry["lost"] else ""
    return f"{entry['uri']} at byte {entry['offset']}: {entry['reason']}, {entry['detail']}{lost}"


def _balance_of(units: list[Unit]) -> SourceBalance:
    """Sums over the units of one source."""
    dropped, lost, repaired = Counter[str](), Counter[str](), Counter[str]()
    for unit in units:
        dropped.update(unit.dropped)
        lost.update(unit.lost)
        repaired.update(unit.repaired)
    return SourceBalance(
        name=units[0].source,
        read=sum(unit.read for unit in units),
        kept=sum(unit.kept for unit in units),
        num_bytes=sum(unit.num_bytes for unit in units),
        dropped=dict(sorted(dropped.items())),
        lost=dict(sorted(lost.items())),
        stored_bytes=sum(unit.stored_bytes for unit in units),
        repaired=dict(sorted(repaired.items())),
    )


def _nothing_kept(source: SourceBalance, units: list[Unit], text_url: str) -> DataError:
    reasons = sorted(source.dropped.items(), key=lambda item: -item[1])
    most = reasons[0][0]
    unit = next(unit for unit in units if most in unit.dropped)
    entries = [entry for entry in _read(ledger_url(text_url, unit)).to_pylist() if entry["reason"] == most]
    first = min(entries, key=lambda entry: (entry["uri"], entry["offset"]))
    detail = f": {first['detail']}" if first["detail"] else ""
    return DataError(
        f"the source {source.name!r} is empty: of {source.read:,} documents none was kept",
        why=f"dropped: {', '.join(f'{reason} {count:,}' for reason, count in reasons)}\n"
        f"the first {most}: {first['uri']} at byte {first['offset']}{detail}",
        try_=remedy(most),
    )


def _read(url: str) -> pa.Table:
    table = parquet.read_table(url)
    if "lost" not in table.column_names:  # written before bytes were counted
        table = table.append_column("lost", pa.array([0] * len(table), pa.int64()))
    return table.select(SCHEMA.names).cast(SCHEMA)
