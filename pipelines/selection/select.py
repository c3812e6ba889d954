"""Which cleaned documents go into a store: all but those excluded, contaminated or said before.

Documents are judged by piece: equal texts of all units lie in the same one (`pipelines.corpus.units`), so exact
duplicates are found by independent tasks that hold a sixteenth of the keys each. Of several copies the first is kept,
in the order of the sources, then of their units. What is dropped goes into one file per piece, in the form of the
ledger:

    <text>/near-<version>/<unit>.parquet          signatures, once per unit
    <text>/contaminated-<sets>/<unit>.parquet     matches with evaluation sets, once per unit and sets
    <root>/selections/<key>/first-<piece>.parquet   excluded, contaminated, exact duplicates
                            near-<piece>.parquet    near duplicates
                            contamination.parquet   which documents match which entries
                            record.json             sums, last

so a store without some documents, or with more files, is made without reading the sources again.
"""

import bisect
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa

from infra import storage
from infra.errors import DataError, UserError
from infra.storage import parquet
from pipelines.selection import contamination as decontaminate
from pipelines.selection import dropped as drops
from pipelines.selection import near_duplicates
from pipelines.selection.contamination import Entries, EvaluationSet
from pipelines.stages import Progress, run_stage

VERSION = 1
_ID = re.compile(r"[0-9a-fA-F]{32}")
_REPORT_SCHEMA = pa.schema(
    [("set", pa.string()), ("path", pa.string()), ("offset", pa.int64()), ("document", pa.binary(16))]
)

Units = list[dict[str, Any]]


@dataclass
class SelectConfig:
    """Which documents are left out because of what they are or say."""

    duplicates: Literal["auto", "off", "exact", "near"] = "auto"
    """exact: one of several texts that differ in white space at most; near: one of several similar texts. auto: by
    data.clean.preset, near with strict, exact with light, off with off.
    """
    similarity: float = 0.8
    """Share of common text from which on two documents are near duplicates (Jaccard similarity, estimated with an error
    of some 0.035). At 0.8, of pairs as similar as 0.9 all are found, of 0.8 half, of 0.7 one in 200.
    """
    exclude: list[str] = field(default_factory=list)
    """Ids of documents (32 hexadecimal digits) or beginnings of the URLs or paths of their files, to leave out."""
    decontaminate: list[EvaluationSet] = field(default_factory=list)
    """Evaluation sets, as {reader, url, fields}: documents that share 50 bytes of text with an entry are left out."""
    contaminated: Literal["drop", "flag"] = "drop"
    """flag: keep contaminated documents and report them in the store's contamination.parquet."""


class Plan(NamedTuple):
    """What decides a selection, resolved: its settings as JSON values, and the evaluation sets read."""

    settings: dict[str, Any]
    entries: Entries | None


class Matches(NamedTuple):
    """Which documents [N] share text with which entries [N] of evaluation sets, by their numbers, ascending."""

    numbers: np.ndarray
    entries: np.ndarray


def resolve(config: SelectConfig, *, preset: str) -> Plan:
    """Check the settings and read the evaluation sets. Raises UserError and DataError."""
    kind = config.duplicates
    if kind == "auto":
        kind = {"off": "off", "light": "exact", "strict": "near"}[preset]
    if not 0.5 <= config.similarity <= 1:
        raise UserError(
            f"data.select.similarity={config.similarity:g} is outside [0.5, 1]",
            why="less similar texts are not found by their signatures",
        )
    if not all(config.exclude):
        raise UserError(
            "data.select.exclude holds an empty text", why="every URL begins with it: nothing would be kept"
        )
    entries = decontaminate.read_entries(config.decontaminate) if config.decontaminate else None
    settings: dict[str, Any] = {"duplicates": kind, "exclude": sorted(set(config.exclude))}
    if kind == "near":
        settings |= {"similarity": config.similarity, "signatures": near_duplicates.VERSION}
    if entries:
        settings |= {"evaluation_sets": entries.digest, "contaminated": config.contaminated}
    return Plan(settings, entries)


def select(plan: Plan, units: Units, text_url: str, out_url: str, *, progress: Progress) -> Units:
    """The records of the units less what is dropped, each with "selection", where `dropped` finds it. Raises
    DataError when nothing is left.
    """
    if plan.settings == {"duplicates": "off", "exclude": []}:
        return units
    record_url = storage.join(out_url, "record.json")
    if not storage.exists(record_url):
        matches = _match(plan.entries, units, text_url, progress) if plan.entries else None
        _judge_pieces(plan, matches, units, text_url, out_url, progress)
        if plan.settings["duplicates"] == "near":
            _drop_near_duplicates(plan.settings["similarity"], units, text_url, out_url, progress)
        found = _report(plan.entries, matches, units, text_url, out_url) if plan.entries and matches else []
        storage.write_json(record_url, {"dropped": drops.sums(out_url), "contamination": found})
    by_unit: dict[str, Units] = {}
    for count in storage.read_json(record_url)["dropped"]:
        by_unit.setdefault(count["unit"], []).append(count)
    left = [_without(unit, by_unit.get(unit["path"], []), out_url) for unit in units]
    if not any(unit["kept"] for unit in left):
        dropped = sum((Counter(unit["dropped"]) for unit in left), Counter[str]())
        raise DataError(
            "data.select leaves no document",
            why="dropped: " + ", ".join(f"{reason} {count:,}" for reason, count in dropped.most_common()),
            try_="fewer entries in data.select.exclude, or data.select.contaminated=flag",
        )
    return left


def unmatched(plan: Plan, units: Units) -> list[str]:
    """Entries of `exclude` that name no document: misspelt, or gone from the sources."""
    if not plan.settings["exclude"] or not units:
        return []
    found = tuple(drops.details(units[0]["selection"], "excluded"))
    names = {entry: entry.lower() if _ID.fullmatch(entry) else entry for entry in plan.settings["exclude"]}
    return [entry for entry, name in names.items() if not name.startswith(found)]


# --- exclusion, contamination and exact duplicates: a task per piece --------------------------------------------------


def _judge_pieces(
    plan: Plan, matches: Matches | None, units: Units, text_url: str, out_url: str, progress: Progress
) -> None:
    settings = plan.settings

    def task(item: dict[str, Any]) -> dict[str, Any]:
        table = pa.concat_tables([drops.read_group(text_url, group) for group in item["groups"]])
        reasons, details = _judged(table, settings, dict(item["contaminated"]))
        return {"dropped": drops.write_drops(table, reasons, details, item["out"]), "documents": len(table)}

    by_piece: dict[int, Units] = {}
    for group in drops.groups_of(units):
        by_piece.setdefault(group["piece"], []).append(group)
    dropped = matches if settings.get("contaminated") == "drop" else None
    items = []
    for piece, groups in sorted(by_piece.items()):
        out = storage.join(out_url, f"first-{piece:02d}.parquet")
        if not storage.exists(out):
            named = _contaminated(plan.entries, dropped, groups) if plan.entries and dropped else []
            items.append({"groups": groups, "contaminated": named, "out": out})
    run_stage("select", task, items, progress)


def _judged(
    table: pa.Table, settings: dict[str, Any], contaminated: dict[int, str]
) -> tuple[list[str | None], list[str]]:
    """Reason to drop, or None, and details, of every document of a piece. contaminated: details, by their numbers."""
    reasons: list[str | None] = [None] * len(table)
    details = [""] * len(table)
    if contaminated:
        numbers = table["number"].to_numpy()
        for row in np.flatnonzero(np.isin(numbers, list(contaminated))).tolist():
            reasons[row], details[row] = "contaminated", contaminated[int(numbers[row])]
    if settings["exclude"]:
        for row, named in _excluded(table, settings["exclude"]):
            reasons[row], details[row] = "excluded", named
    if settings["duplicates"] != "off":
        left = np.array([row for row, reason in enumerate(reasons) if reason is None], np.int64)
        again, first = near_duplicates.repeats(table["key"].to_numpy()[left])
        ids = table["id"].take(pa.array(left[first])).to_pylist()
        for row, kept in zip(left[again].tolist(), ids, strict=True):
            reasons[row], details[row] = "duplicate", f"of {kept.hex()}"
    return reasons, details


def _excluded(table: pa.Table, exclude: list[str]) -> Iterator[tuple[int, str]]:
    """(row, what of `exclude` names it) of every document that is excluded. exclude: ascending."""
    ids = {bytes.fromhex(name) for name in exclude if _ID.fullmatch(name)}
    starts: list[str] = []
    for name in exclude:
        if not _ID.fullmatch(name) and not (starts and name.startswith(starts[-1])):
            starts.append(name)
    named: dict[tuple[str, str], str] = {}  # many documents share a file
    for row, (identity, *place) in enumerate(
        zip(*(table[name].to_pylist() for name in ("id", "uri", "path")), strict=True)
    ):
        if identity in ids:
            yield row, identity.hex()
        elif starts:
            uri, path = place
            if (uri, path) not in named:
                named[uri, path] = _start_of(uri, starts) or _start_of(path, starts)
            if named[uri, path]:
                yield row, named[uri, path]


def _start_of(name: str, starts: list[str]) -> str:
    """The one of `starts` that a name begins with, or nothing. starts: ascending, none the beginning of another."""
    before = starts[max(bisect.bisect_right(starts, name) - 1, 0)]
    return before if name.startswith(before) else ""


# --- evaluation sets: a task per unit ---------------------------------------------------------------------------------


def _match(sets: Entries, units: Units, text_url: str, progress: Progress) -> Matches:
    """Which documents of all units match which entries."""
    place = storage.join(text_url, f"contaminated-{sets.digest}")
    index_url = storage.join(place, "index.parquet")
    if not storage.exists(index_url):
        decontaminate.save_index(sets.index, index_url)

    def task(item: dict[str, Any]) -> dict[str, Any]:
        return decontaminate.check_unit(text_url, item["unit"], index_url, item["out"])

    urls = [storage.join(place, f"{unit['path']}.parquet") for unit in units]
    run_stage("decontaminate", task, _missing(units, place), progress)
    parts = [(np.empty(0, np.int64), np.empty(0, np.int64))]
    first = 0
    for unit, url in zip(units, urls, strict=True):
        table = parquet.read_table(url)
        parts.append((table["row"].to_numpy() + first, table["entry"].to_numpy()))
        first += unit["kept"]
    return Matches(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _contaminated(sets: Entries, matches: Matches, groups: Units) -> list[tuple[int, str]]:
    """Number and first matching entry of each contaminated document of these groups."""
    found = []
    for group in groups:
        its = slice(*np.searchsorted(matches.numbers, (group["first"], group["first"] + group["documents"])))
        numbers, places = np.unique(matches.numbers[its], return_index=True)
        for number, entry in zip(numbers.tolist(), matches.entries[its][places].tolist(), strict=True):
            name, path, offset = sets.names[entry]
            found.append((number, f"{name}: {path} at {offset}"))
    return found


def _report(sets: Entries, matches: Matches, units: Units, text_url: str, out_url: str) -> list[dict[str, Any]]:
    """Write which documents match which entries, those that are dropped for another reason too; returns the sums of
    each set.
    """
    numbers, places = np.unique(matches.numbers, return_inverse=True)
    ids = drops.documents_at(units, text_url, numbers)["id"].to_pylist() if len(numbers) else []
    names = [sets.names[entry] for entry in matches.entries.tolist()]
    columns = [*zip(*names, strict=True)] or [[], [], []]
    table = pa.table([*columns, [ids[place] for place in places.tolist()]], schema=_REPORT_SCHEMA)
    parquet.write_table(storage.join(out_url, "contamination.parquet"), table)
    entries = Counter(name for name, _, _ in sets.names)
    found = Counter(sets.names[entry][0] for entry in np.unique(matches.entries).tolist())
    documents = Counter(
        name for name, _ in {(name[0], place) for name, place in zip(names, places.tolist(), strict=True)}
    )
    return [
        {
            "name": name,
            "entries": entries[name],
            "too_short": short,
            "found": found[name],
            "documents": documents[name],
        }
        for name, short in sets.too_short.items()
    ]


# --- near duplicates: a task per unit, then one per band --------------------------------------------------------------


def _drop_near_duplicates(similarity: float, units: Units, text_url: str, out_url: str, progress: Progress) -> None:
    place = storage.join(text_url, f"near-{near_duplicates.VERSION}")
    urls = [storage.join(place, f"{unit['path']}.parquet") for unit in units]
    links_of = [storage.join(out_url, f"links-{band:02d}.parquet") for band in range(near_duplicates.BANDS)]

    def sign(item: dict[str, Any]) -> dict[str, Any]:
        return near_duplicates.sign_unit(text_url, item["unit"], item["out"])

    def link(item: dict[str, Any]) -> dict[str, Any]:
        gone = [parquet.read_table(url, ["number"])["number"].to_numpy() for url in drops.drop_files(out_url, "first-")]
        links = near_duplicates.link_band(urls, np.concatenate(gone), item["band"], similarity)
        parquet.write_table(links_of[item["band"]], pa.table(links._asdict()))
        return {"links": len(links.later)}

    run_stage("sign", sign, _missing(units, place), progress)
    run_stage(
        "compare", link, [{"band": band} for band, url in enumerate(links_of) if not storage.exists(url)], progress
    )
    tables = [parquet.read_table(url) for url in links_of]
    links = near_duplicates.Links(
        *(pa.concat_tables(tables)[name].to_numpy() for name in near_duplicates.Links._fields)
    )
    _write_near(*near_duplicates.first_of_each(links), units, text_url, out_url)


def _write_near(numbers: np.ndarray, kept: np.ndarray, units: Units, text_url: str, out_url: str) -> None:
    if len(numbers) == 0:
        return
    originals = np.unique(kept)
    ids = drops.documents_at(units, text_url, originals)["id"].to_pylist()
    details = [f"of {ids[place].hex()}" for place in np.searchsorted(originals, kept)]
    table = drops.documents_at(units, text_url, numbers)
    pieces = table["piece"].to_numpy()
    for piece in np.unique(pieces).tolist():
        rows = np.flatnonzero(pieces == piece)
        its = [details[row] for row in rows]
        url = storage.join(out_url, f"near-{piece:02d}.parquet")
        drops.write_drops(table.take(pa.array(rows)), ["near_duplicate"] * len(rows), its, url)


def _missing(units: Units, place: str) -> Units:
    """Tasks for the units that have no file in this folder yet."""
    there = {info.path for info in storage.list_files(place)} if storage.exists(place) else set()
    files = [f"{unit['path']}.parquet" for unit in units]
    return [
        {"unit": {"path": unit["path"]}, "out": storage.join(place, file)}
        for unit, file in zip(units, files, strict=True)
        if file not in there
    ]


# --- what is left -----------------------------------------------------------------------------------------------------


def _without(unit: dict[str, Any], counts: Units, out_url: str) -> dict[str, Any]:
    """The record of a unit less what is dropped of it."""
    dropped = Counter(unit["dropped"])
    pieces = {piece["piece"]: dict(piece) for piece in unit["pieces"]}
    for count in counts:
        dropped[count["reason"]] += count["documents"]
        for name in ("documents", "num_bytes"):
            pieces[count["piece"]][name] -= count[name]
    return unit | {
        "kept": unit["kept"] - sum(count["documents"] for count in counts),
        "num_bytes": unit["num_bytes"] - sum(count["num_bytes"] for count in counts),
        "dropped": dict(sorted(dropped.items())),
        "pieces": [piece for piece in pieces.values() if piece["documents"]],
        "selection": out_url,
    }
