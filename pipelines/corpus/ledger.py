"""What became of every document: the ledger of those that were dropped, and sums over units that leave none out."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import pyarrow as pa

from infra import storage
from infra.errors import DataError
from infra.storage import parquet
from pipelines.corpus.records import Unit

SCHEMA = pa.schema(
    [
        ("id", pa.binary(16)),
        ("source", pa.string()),
        ("uri", pa.string()),
        ("offset", pa.int64()),
        ("reason", pa.string()),
        ("detail", pa.string()),
    ]
)


class Entry(NamedTuple):
    """A document that was dropped: its id, where it stood, and why it was dropped. The fields are the columns."""

    id: bytes
    source: str
    uri: str
    offset: int
    reason: str
    detail: str


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
    """Raises DataError for a source of which more than this share of the records is malformed, with examples."""
    for name, own in by_source(units).items():
        malformed, read = sum(sum(unit.malformed.values()) for unit in own), sum(unit.read for unit in own)
        if malformed > limit * read:
            examples: list[str] = []
            for unit in own:
                if unit.malformed and len(examples) < 3:
                    examples += _examples(ledger_url(text_url, unit), unit.malformed)
            raise DataError(
                f"the source {name!r} is damaged: {malformed:,} of {read:,} records are malformed, more than "
                f"data.max_malformed={limit:g} allows",
                why="\n".join(examples[:3]),
                try_="mend or remove these files, or accept the loss: --data.max_malformed=1 (what was read is kept)",
            )


def check_kept(units: list[Unit], text_url: str) -> None:
    """Raises DataError for a source of which no document was kept, with the reasons and the first ledger entry."""
    for own in by_source(units).values():
        if not any(unit.kept for unit in own):
            raise _nothing_kept(_balance_of(own), own, text_url)


def _examples(url: str, reasons: Iterable[str]) -> list[str]:
    entries = [entry for entry in _read(url).to_pylist() if entry["reason"] in reasons]
    return [f"{e['uri']} at byte {e['offset']}: {e['reason']}, {e['detail'][:100]}" for e in entries[:3]]


def _balance_of(units: list[Unit]) -> SourceBalance:
    """Sums over the units of one source."""
    dropped, repaired = Counter[str](), Counter[str]()
    for unit in units:
        dropped.update(unit.dropped)
        repaired.update(unit.repaired)
    return SourceBalance(
        name=units[0].source,
        read=sum(unit.read for unit in units),
        kept=sum(unit.kept for unit in units),
        num_bytes=sum(unit.num_bytes for unit in units),
        dropped=dict(sorted(dropped.items())),
        repaired=dict(sorted(repaired.items())),
    )


def _nothing_kept(source: SourceBalance, units: list[Unit], text_url: str) -> DataError:
    reasons = sorted(source.dropped.items(), key=lambda item: -item[1])
    most = reasons[0][0]
    unit = next(unit for unit in units if most in unit.dropped)
    entries = [entry for entry in _read(ledger_url(text_url, unit)).to_pylist() if entry["reason"] == most]
    first = min(entries, key=lambda entry: (entry["uri"], entry["offset"]))
    detail = f": {first['detail']}" if first["detail"] else ""
    remedies = {"missing_field": "name the field that holds the text, as options: {field: ...} of the source"}
    return DataError(
        f"the source {source.name!r} is empty: of {source.read:,} documents none was kept",
        why=f"dropped: {', '.join(f'{reason} {count:,}' for reason, count in reasons)}\n"
        f"the first {most}: {first['uri']} at byte {first['offset']}{detail}",
        try_=remedies.get(most, "choose another reader for these files, or keep every document: data.clean.preset=off"),
    )


def _read(url: str) -> pa.Table:
    return parquet.read_table(url, SCHEMA.names).cast(SCHEMA)
