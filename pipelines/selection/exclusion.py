"""A user's list of documents to leave out: ids, and beginnings of the URLs or paths of their files."""

import bisect
import re
from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa

_ID = re.compile(r"[0-9a-fA-F]{32}")


def excluded(table: pa.Table, exclude: Sequence[str]) -> Iterator[tuple[int, str]]:
    """(row, the id or beginning that names it) of every document that is excluded. Of several beginnings the shortest.

    table: with the columns id, uri and path; exclude: ascending.
    """
    ids = {bytes.fromhex(entry) for entry in exclude if _ID.fullmatch(entry)}
    starts: list[str] = []
    for entry in exclude:
        if not _ID.fullmatch(entry) and not (starts and entry.startswith(starts[-1])):
            starts.append(entry)
    named: dict[tuple[str, str], str] = {}  # many documents share a file
    columns = (table[name].to_pylist() for name in ("id", "uri", "path"))
    for row, (identity, uri, path) in enumerate(zip(*columns, strict=True)):
        if identity in ids:
            yield row, identity.hex()
        elif starts:
            if (uri, path) not in named:
                named[uri, path] = _start_of(uri, starts) or _start_of(path, starts)
            if named[uri, path]:
                yield row, named[uri, path]


def unmatched(exclude: Sequence[str], names: Iterable[str]) -> list[str]:
    """Entries of `exclude` that name no document. names: the ids and beginnings that `excluded` gave."""
    # An entry that begins with a shorter one is never given: whether it names a document of its own is not known.
    matched = tuple(names)
    return [entry for entry in exclude if not (entry.lower() if _ID.fullmatch(entry) else entry).startswith(matched)]


def _start_of(name: str, starts: list[str]) -> str:
    """The one of `starts` that a name begins with, or nothing. starts: ascending, none the beginning of another.

    The last one that is not behind the name in the order of strings is the only candidate:

        starts  books/   news/2019   wiki/        name  news/2019/a.txt
                         ^ bisect_right - 1
    """
    before = starts[max(bisect.bisect_right(starts, name) - 1, 0)]
    return before if name.startswith(before) else ""
