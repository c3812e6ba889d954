"""A user's list of documents to leave out: ids, and files, folders and globs as they are given for sources.

An entry that names nothing is refused: whoever writes one relies on it.
"""

import bisect
import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
from fsspec.utils import glob_translate

from infra import storage
from infra.errors import UserError
from infra.storage import local, parquet
from pipelines.corpus.ledger import ledger_url
from pipelines.corpus.records import Unit
from pipelines.corpus.sources import InputFile
from pipelines.document import without_surrogates

_ID = re.compile(r"[0-9a-fA-F]{32}")
_COMPARED = 5_000  # names that a misspelt one is compared with, half a millisecond each
_READERS = 16  # threads


@dataclass(frozen=True)
class Exclusions:
    """Documents to leave out: some by their ids, all of some files."""

    ids: tuple[str, ...] = ()
    """In lower case, ascending."""
    files: dict[tuple[str, str], str] = field(default_factory=dict)
    """(source, path below its root) -> the entry that names it, in the order of the keys."""

    def __bool__(self) -> bool:
        return bool(self.ids or self.files)

    @property
    def names(self) -> list[str]:
        """What is left out, wherever the sources lie: ids, and files as "source: path"."""
        return [*self.ids, *(f"{source}: {path}" for source, path in self.files)]


def find_excluded(exclude: Sequence[str], files: list[InputFile]) -> Exclusions:
    """The documents and files that the entries of data.select.exclude name. files: what the sources hold.

    An entry is an id, or a file, folder or glob: where it lies, relative paths from the working directory, or else
    below the roots of the sources. Raises UserError for those that name no file; ids are checked by `check_ids`.
    """
    by_place = _Names.of((_place(file.url) for file in files), files)
    by_path = _Names.of((file.path for file in files), files)
    found: dict[tuple[str, str], str] = {}
    unknown: list[str] = []
    for entry in dict.fromkeys(exclude):
        if not entry:
            raise UserError("data.select.exclude holds an empty text", why="it could mean everything")
        if _ID.fullmatch(entry):
            continue
        named = by_place.covered(_place(entry)) or by_path.covered(entry.removeprefix("./"))
        if not named:
            unknown.append(entry)
        for file in named:
            found.setdefault((file.source, without_surrogates(file.path)), entry)
    if unknown:
        raise _unknown_places(unknown, files)
    ids = sorted({entry.lower() for entry in exclude if _ID.fullmatch(entry)})
    return Exclusions(tuple(ids), dict(sorted(found.items())))


def check_ids(ids: Sequence[str], units: list[Unit], text_url: str) -> None:
    """Raises UserError for ids of no document that was read, kept or dropped. Reads the ids of all of them."""
    wanted = pa.array([bytes.fromhex(one) for one in ids], pa.binary(16))
    there: set[str] = set()
    for table in _id_tables(units, text_url) if ids else ():
        column = table["id"].cast(pa.binary(16))
        hits = column.filter(pc.is_in(column, value_set=wanted))  # pyright: ignore[reportAttributeAccessIssue]
        there.update(one.hex() for one in hits.to_pylist())
    unknown = [one for one in ids if one not in there]
    if not unknown:
        return
    known = (one.hex() for table in _id_tables(units, text_url) for one in table["id"].to_pylist())
    near = next((one for one in known if one[:8] == unknown[0][:8] or one[-8:] == unknown[0][-8:]), None)
    raise UserError(
        f"data.select.exclude names no document: {_some(unknown)}",
        why=f"none of the {sum(unit.read for unit in units):,} documents of data.sources has this id",
        try_=f"use {near}, which is alike" if near else "take an id that ledger.parquet or documents/ of a store lists",
    )


def excluded(table: pa.Table, exclude: Exclusions) -> Iterator[tuple[int, str]]:
    """(row, the id or entry that names it) of every document that is excluded.

    table: with the columns id, source and path.
    """
    ids = {bytes.fromhex(one) for one in exclude.ids}
    columns = (table[name].to_pylist() for name in ("id", "source", "path"))
    for row, (identity, source, path) in enumerate(zip(*columns, strict=True)):
        if identity in ids:
            yield row, identity.hex()
        elif entry := exclude.files.get((source, path)):
            yield row, entry


class _Names(NamedTuple):
    """Names of files, ascending, and the files that have them."""

    names: list[str]
    files: list[InputFile]

    @staticmethod
    def of(names: Iterable[str], files: list[InputFile]) -> "_Names":
        pairs = sorted(zip(names, files, strict=True), key=lambda pair: pair[0])
        return _Names([name for name, _ in pairs], [file for _, file in pairs])

    def covered(self, name: str) -> list[InputFile]:
        """The files of this name, those in the folder or archive of this name, or else the matches of the glob and what
        lies below them.
        """
        below = name.rstrip("/")
        ranges = [(below, f"{below}\0"), (f"{below}/", f"{below}0"), (f"{below}::", f"{below}:;")]  # "0" follows "/"
        found = [file for first, end in ranges for file in self.files[self._at(first) : self._at(end)]]
        if found or not any(character in below for character in "*?["):
            return found
        root, rest = local.split_glob(below, self._has_below)
        translated = re.escape(root) + glob_translate(rest).removesuffix(r"\Z")
        pattern = re.compile(translated + r"(?s:(/|::).*)?\Z")
        return [file for own, file in zip(self.names, self.files, strict=True) if pattern.match(own)]

    def _has_below(self, folder: str) -> bool:
        return self._at(f"{folder}/") < self._at(f"{folder}0")

    def _at(self, name: str) -> int:
        return bisect.bisect_left(self.names, name)


def _place(url: str) -> str:
    """Where a file lies; of one in an archive, which a URL names last, the archive comes first: /my/a.zip::zip://b."""
    inner, chain, outer = url.partition("::")
    return f"{storage.absolute(outer)}::{inner}" if chain else storage.absolute(url)


def _unknown_places(unknown: list[str], files: list[InputFile]) -> UserError:
    first = unknown[0]
    looked_for = _place(first)
    names = [file.url for file in files[:_COMPARED]]
    near = difflib.get_close_matches(looked_for, names, n=1) or names[:1]
    relative = "" if looked_for == first else f", nor {first} below the root of a source"
    return UserError(
        f"data.select.exclude names no document: {_some(unknown)}",
        why=f"{looked_for} is not among the {len(files):,} files of data.sources{relative}; the nearest is "
        f"{', '.join(near)}",
        try_="name a file, a folder or a glob as for a source, or a document by its id, 32 hexadecimal digits",
    )


def _id_tables(units: list[Unit], text_url: str) -> Iterator[pa.Table]:
    urls = [storage.join(text_url, f"{unit.path}.parquet") for unit in units if unit.kept]
    urls += [ledger_url(text_url, unit) for unit in units if unit.dropped]
    with ThreadPoolExecutor(_READERS) as pool:
        yield from pool.map(lambda url: parquet.read_table(url, ["id"]), urls)


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
