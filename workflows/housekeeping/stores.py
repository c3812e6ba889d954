"""The stores below a folder, and who needs them: runs by what they have recorded, and by their notes in the stores."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from infra import storage
from infra.errors import DataError, UserError, nearest
from pipelines.store.format import TokenStore
from pipelines.store.usage import noted_runs
from workflows.runs.record import RunRecord, has_record, read_record

_DAY_S = 86_400.0
_KINDS = ("stores", "mixes")


@dataclass(frozen=True)
class StoreEntry:
    """A store as its folder has it."""

    url: str
    key: str
    """The folder's name."""
    name: str
    """As `TokenStore.name`; of one that is not finished, `unfinished-` and the beginning of its key."""
    num_bytes: int
    age_s: float | None
    """Seconds since the last of its shards and records was written; None where that is not known."""
    digest: str | None
    """None: it is not finished."""
    members: tuple[str, ...] = ()
    """URLs of the stores of a mix."""
    runs: tuple[str, ...] = ()
    """Names of the runs that need it."""
    gone: tuple[str, ...] = ()
    """Folders of runs that read it and are not there: removed, or moved."""


def list_stores(root: str, run_folders: list[str], *, clock: Callable[[], float] = time.time) -> list[StoreEntry]:
    """The stores and mixes below data.root, with the runs that need them; the largest first.

    run_folders: where runs lie, as `run.storage_path` gives it. clock: seconds since the epoch. Raises DataError where
    there is no such root.
    """
    root = storage.absolute(root)
    if not storage.exists(root):
        raise DataError(f"{root} does not exist", try_="--root=<the data.root of your recipes>")
    found = [entry for kind in _KINDS for entry in _entries(storage.join(root, kind), clock())]
    runs = _records(run_folders)
    used = [_with_users(entry, runs) for entry in found]
    needed = [_with_mixes(entry, [mix for mix in used if entry.url in mix.members]) for entry in used]
    return sorted(needed, key=lambda entry: -entry.num_bytes)


def removable(entries: list[StoreEntry], *, days: float, gone: bool) -> list[StoreEntry]:
    """The stores that no run needs and to which nothing was written for so many days.

    gone: those too that only runs have read whose folders are not there any more.
    """
    old = [entry for entry in entries if entry.age_s is not None and entry.age_s >= days * _DAY_S]
    return [entry for entry in old if not entry.runs and (gone or not entry.gone)]


def named(entries: list[StoreEntry], names: list[str], *, gone: bool) -> list[StoreEntry]:
    """The stores of these names, keys, beginnings of keys, or folders, whatever their age.

    Raises UserError for a name that is none's or several's, and for a store that a run needs.
    """
    return [_named(entries, name, gone=gone) for name in names]


def remove(entries: list[StoreEntry]) -> None:
    """Remove these stores. The manifest goes first, so that one that is left half removed is not a store."""
    for entry in entries:
        storage.remove_tree(storage.join(entry.url, "manifest.json"))
        storage.remove_tree(entry.url)


def _named(entries: list[StoreEntry], name: str, *, gone: bool) -> StoreEntry:
    place = storage.absolute(name)
    fitting = [e for e in entries if name == e.name or e.key.startswith(name) or place == e.url]
    if len(fitting) != 1:
        raise UserError(
            f"{len(fitting)} stores are named {name!r}{nearest(name, [entry.name for entry in entries])}",
            try_="give a name as `stores.py list` prints it",
        )
    (entry,) = fitting
    if entry.runs or (entry.gone and not gone):
        who = ", ".join((*entry.runs, *entry.gone))
        raise UserError(
            f"the store {entry.name} is needed by {who}",
            why="a run reads its store when it goes on, and when it is inspected or evaluated",
            try_="remove these runs first" if entry.runs else "--gone=true, if the folders of these runs were removed",
        )
    return entry


def _entries(folder: str, now_s: float) -> list[StoreEntry]:
    """The stores in <data.root>/stores or <data.root>/mixes, without their users."""
    if not storage.exists(folder):
        return []
    sizes: dict[str, int] = {}
    changed: dict[str, float] = {}
    for info in storage.list_files(folder):
        key, _, below = info.path.partition("/")
        sizes[key] = sizes.get(key, 0) + info.size
        if storage.is_local(folder) and not below.startswith("used_by/"):
            changed[key] = max(changed.get(key, 0.0), os.path.getmtime(info.url))
    ages = {key: now_s - at for key, at in changed.items()}
    return [_entry(storage.join(folder, key), size, ages.get(key)) for key, size in sizes.items()]


def _entry(url: str, num_bytes: int, age_s: float | None) -> StoreEntry:
    key = storage.base_name(url)
    try:
        store = TokenStore.open(url)
    except DataError:  # no manifest, or one of another format
        return StoreEntry(url, key, f"unfinished-{key[:8]}", num_bytes, age_s, None)
    members = tuple(member.url for member in store.manifest.members)
    return StoreEntry(url, key, store.name, num_bytes, age_s, store.digest, members)


def _records(run_folders: list[str]) -> dict[str, RunRecord]:
    """URL -> record of every run in these folders."""
    found: dict[str, RunRecord] = {}
    for folder in run_folders:
        place = storage.absolute(folder)
        if not storage.exists(place):
            continue
        try:
            files = storage.list_files(storage.join(place, "*", "run.json"))
        except DataError:  # there is none
            continue
        urls = [info.url.removesuffix("/run.json") for info in files]
        found |= {url: read_record(url) for url in urls}
    return found


def _with_users(entry: StoreEntry, runs: dict[str, RunRecord]) -> StoreEntry:
    """The entry with the runs that have recorded it, or left a note in it."""
    reading = {url for url, record in runs.items() if _reads(record, entry)}
    noted = [url for url in noted_runs(entry.url) if url not in reading]
    there = {url for url in noted if has_record(url) and _reads(read_record(url), entry)}
    gone = tuple(url for url in noted if not has_record(url))
    return replace(entry, runs=tuple(sorted(map(storage.base_name, reading | there))), gone=gone)


def _reads(record: RunRecord, entry: StoreEntry) -> bool:
    by_digest = entry.digest is not None and record.store_digest == entry.digest
    return by_digest or (record.store_url is not None and storage.absolute(record.store_url) == entry.url)


def _with_mixes(entry: StoreEntry, mixes: list[StoreEntry]) -> StoreEntry:
    """A store with the runs of the mixes that it is in."""
    runs = {name for one in (entry, *mixes) for name in one.runs}
    gone = {url for one in (entry, *mixes) for url in one.gone}
    return replace(entry, runs=tuple(sorted(runs)), gone=tuple(sorted(gone)))
