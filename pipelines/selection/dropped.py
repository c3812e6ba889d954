"""Documents left out of a store after cleaning: how they are written, and how the others are read."""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from infra import storage
from infra.storage import parquet
from pipelines.corpus import units as text
from pipelines.corpus.ledger import SCHEMA as LEDGER_SCHEMA

SCHEMA = pa.schema(
    [*LEDGER_SCHEMA, ("unit", pa.string()), ("row", pa.int64()), ("num_bytes", pa.int64()), ("number", pa.int64())]
)
"""The ledger's columns, and which document it is: its unit, its row in the unit's piece, its number in all units."""


def groups_of(units: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Where the documents are, in the order of their numbers: unit, its source and what stands around the paths in its
    URLs, piece, row group, number of the first document of the group and of the unit, documents.
    """
    groups, number = [], 0
    for unit in units:
        of_unit = {"unit": unit["path"], "source": unit["source"], "around": unit["around"], "unit_first": number}
        for piece in unit["pieces"]:
            groups.append(of_unit | {name: piece[name] for name in ("piece", "group", "documents")} | {"first": number})
            number += piece["documents"]
    return groups


def read_group(text_url: str, group: dict[str, Any]) -> pa.Table:
    """All documents of a unit's piece, without their text: key, path, piece, and the columns of SCHEMA that are known
    before they are judged.
    """
    url, size = storage.join(text_url, f"{group['unit']}.parquet"), group["documents"]
    found = text.read_pieces(url, [group["group"]], ["id", "key", "path", "offset", "num_bytes"])
    path = found["path"].cast(pa.string())
    before, after = map(pa.scalar, group["around"])
    columns = {
        **{name: found[name] for name in ("id", "key", "offset", "num_bytes")},
        "path": path,
        "uri": pc.binary_join_element_wise(before, path, after, ""),
        **{name: pa.array([group[name]] * size, pa.string()) for name in ("source", "unit")},
        "row": np.arange(size),
        "number": np.arange(size) + group["first"],
        "piece": pa.array([group["piece"]] * size, pa.int64()),
    }
    return pa.table(columns)


def documents_at(units: list[dict[str, Any]], text_url: str, numbers: np.ndarray) -> pa.Table:
    """The documents with these ascending numbers, as `read_group` gives them. Holds one group at a time besides."""
    groups = groups_of(units)
    edges = np.searchsorted(numbers, [*(group["first"] for group in groups), np.iinfo(np.int64).max])
    parts = []
    for group, first, last in zip(groups, edges[:-1], edges[1:], strict=True):
        if last > first:
            parts.append(read_group(text_url, group).take(pa.array(numbers[first:last] - group["first"])))
    return pa.concat_tables(parts)


def write_drops(table: pa.Table, reasons: list[str | None], details: list[str], url: str) -> int:
    """Write the documents that have a reason; returns their number."""
    dropped = [row for row, reason in enumerate(reasons) if reason is not None]
    taken = table.take(pa.array(dropped, pa.int64()))
    columns = {name: taken[name] for name in SCHEMA.names if name in taken.column_names}
    columns["reason"] = pa.array([reasons[row] for row in dropped], pa.string())
    columns["detail"] = pa.array([details[row] for row in dropped], pa.string())
    parquet.write_table(url, pa.table([columns[name] for name in SCHEMA.names], schema=SCHEMA))
    return len(dropped)


def sums(selection_url: str) -> list[dict[str, Any]]:
    """{unit, piece, reason, documents, num_bytes} of each sort of documents that a selection drops."""
    found = []
    for url in drop_files(selection_url):
        table = parquet.read_table(url, ["unit", "reason", "num_bytes"])
        counted = table.group_by(["unit", "reason"]).aggregate([("num_bytes", "sum"), ([], "count_all")])
        for row in counted.to_pylist():
            sizes = {"documents": row["count_all"], "num_bytes": row["num_bytes_sum"]}
            found.append({"unit": row["unit"], "piece": _piece_of(url), "reason": row["reason"], **sizes})
    return sorted(found, key=lambda row: (row["unit"], row["piece"], row["reason"]))


def drop_files(selection_url: str, *kinds: str) -> list[str]:
    """URLs of the files of a selection that name what it drops; kinds: of these names only."""
    starts = kinds or ("first-", "near-")
    return [info.url for info in storage.list_files(selection_url) if info.path.startswith(starts)]


def details(selection_url: str, reason: str) -> set[str]:
    """What the documents that were dropped for this reason have for their detail."""
    found: set[str] = set()
    for url in drop_files(selection_url):
        table = parquet.read_table(url, ["reason", "detail"])
        found.update(table.filter(pc.equal(table["reason"], reason))["detail"].to_pylist())
    return found


def dropped_rows(selection_url: str | None, piece: int, unit: str) -> np.ndarray:
    """Rows of a unit's piece that are dropped."""
    nothing = np.empty(0, np.int64)
    return _of_piece(selection_url, piece).get(unit, nothing) if selection_url else nothing


def read_kept(text_url: str, unit: str, piece: dict[str, Any], selection: str | None, columns: list[str]) -> pa.Table:
    """The documents of a unit's piece that were selected, in their order."""
    table = text.read_pieces(storage.join(text_url, f"{unit}.parquet"), [piece["group"]], columns)
    dropped = dropped_rows(selection, piece["piece"], unit)
    if len(dropped) == 0:
        return table
    left = np.ones(len(table), bool)
    left[dropped] = False
    return table.filter(pa.array(left))


def documents_by_key(text_url: str, units: list[dict[str, Any]]) -> Iterator[tuple[int, int]]:
    """(key, bytes) of all selected documents of some units, by ascending key. Holds one piece of each at a time."""
    for number in range(text.PIECES):
        places = [(unit, piece) for unit in units for piece in unit["pieces"] if piece["piece"] == number]
        tables = [
            read_kept(text_url, unit["path"], piece, unit.get("selection"), ["key", "num_bytes"])
            for unit, piece in places
        ]
        if tables:
            for batch in pa.concat_tables(tables).sort_by("key").to_batches(max_chunksize=1000):
                yield from zip(batch["key"].to_pylist(), batch["num_bytes"].to_pylist(), strict=True)


@lru_cache(maxsize=32)
def _of_piece(selection_url: str, piece: int) -> dict[str, np.ndarray]:
    """Dropped rows of a piece by unit. A selection that is read never changes: its name follows from what it holds."""
    parts = [parquet.read_table(url, ["unit", "row"]) for url in drop_files(selection_url) if _piece_of(url) == piece]
    if not parts:
        return {}
    table = pa.concat_tables(parts).group_by("unit").aggregate([("row", "list")])
    return {
        unit: rows.values.to_numpy() for unit, rows in zip(table["unit"].to_pylist(), table["row_list"], strict=True)
    }


def _piece_of(url: str) -> int:
    return int(url.removesuffix(".parquet")[-2:])
