"""What became of every document: the ledger of those that were dropped, and sums over the records of units (law 11)."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from infra import storage
from infra.errors import DataError
from infra.storage import parquet

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


def write_ledger(url: str, rows: list[tuple[bytes, str, str, int, str, str]]) -> None:
    columns = list(zip(*sorted(rows), strict=True)) if rows else [[] for _ in SCHEMA]
    arrays = [pa.array(column, type=field.type) for column, field in zip(columns, SCHEMA, strict=True)]
    with parquet.writer(url, SCHEMA, compression="zstd") as writer:
        writer.write_table(pa.table(arrays, schema=SCHEMA))


def join_ledgers(urls: list[str], out_url: str) -> int:
    """One ledger out of those of many units, in their order; returns its rows. Holds one unit's at a time."""
    rows = 0
    with parquet.writer(out_url, SCHEMA, compression="zstd") as writer:
        for url in urls:
            table = _read(url)
            writer.write_table(table)
            rows += len(table)
    return rows


def balance(units: list[dict[str, Any]]) -> dict[str, Any]:
    """What the manifest says of the documents of these units: in all, and by source with reasons and repairs."""
    sources = [_of_source(units, name) for name in dict.fromkeys(unit["source"] for unit in units)]
    read, kept = sum(s["read"] for s in sources), sum(s["kept"] for s in sources)
    dropped = sum(sum(s["dropped"].values()) for s in sources)
    assert read == kept + dropped, f"{read} documents read, {kept} kept and {dropped} dropped"
    return {"sources": sources, "documents": {"read": read, "kept": kept, "dropped": dropped}}


def check_malformed(units: list[dict[str, Any]], text_url: str, *, limit: float) -> None:
    """Raises DataError for a source of which more than this share of the records is malformed, with examples."""
    for name in dict.fromkeys(unit["source"] for unit in units):
        mine = [unit for unit in units if unit["source"] == name]
        malformed, read = sum(sum(unit["malformed"].values()) for unit in mine), sum(unit["read"] for unit in mine)
        if malformed > limit * read:
            shown = []
            for unit in mine:
                if unit["malformed"] and len(shown) < 3:
                    shown += _examples(storage.join(text_url, f"{unit['path']}.ledger.parquet"), unit["malformed"])
            raise DataError(
                f"the source {name!r} is damaged: {malformed:,} of {read:,} records are malformed, more than "
                f"data.max_malformed={limit:g}",
                why="\n".join(shown[:3]),
                try_="mend or remove these files, or accept the loss: --data.max_malformed=1 (what was read is kept)",
            )


def check_kept(units: list[dict[str, Any]], text_url: str) -> None:
    """Raises DataError for a source of which no document was kept, with the reasons and the first ledger entry."""
    for source in balance(units)["sources"]:
        if not source["kept"]:
            mine = [unit for unit in units if unit["source"] == source["name"]]
            raise _nothing_kept(source, mine, text_url)


def _examples(url: str, reasons: Iterable[str]) -> list[str]:
    entries = [entry for entry in _read(url).to_pylist() if entry["reason"] in reasons]
    return [f"{e['uri']} at byte {e['offset']}: {e['reason']}, {e['detail'][:100]}" for e in entries[:3]]


def _of_source(units: list[dict[str, Any]], name: str) -> dict[str, Any]:
    mine = [unit for unit in units if unit["source"] == name]
    sums = {count: sum(unit[count] for unit in mine) for count in ("read", "kept", "num_bytes")}
    dropped, repaired = Counter[str](), Counter[str]()
    for unit in mine:
        dropped.update(unit["dropped"])
        repaired.update(unit["repaired"])
    return {"name": name, **sums, "dropped": dict(sorted(dropped.items())), "repaired": dict(sorted(repaired.items()))}


def _nothing_kept(source: dict[str, Any], units: list[dict[str, Any]], text_url: str) -> DataError:
    reasons = sorted(source["dropped"].items(), key=lambda item: -item[1])
    told = ", ".join(f"{reason} {count:,}" for reason, count in reasons)
    most = reasons[0][0]
    unit = next(unit for unit in units if most in unit["dropped"])
    entries = _read(storage.join(text_url, f"{unit['path']}.ledger.parquet")).to_pylist()
    first = min((e for e in entries if e["reason"] == most), key=lambda e: (e["uri"], e["offset"]))
    detail = f": {first['detail']}" if first["detail"] else ""
    remedies = {"missing_field": "name the field that holds the text, as options: {field: ...} of the source"}
    return DataError(
        f"the source {source['name']!r} is empty: of {source['read']:,} documents none was kept",
        why=f"dropped: {told}\nthe first {most}: {first['uri']} at byte {first['offset']}{detail}",
        try_=remedies.get(most, "another reader for these files, or data.clean.preset=off to keep every document"),
    )


def _read(url: str) -> pa.Table:
    return parquet.read_table(url, SCHEMA.names).cast(SCHEMA)
