"""Where the items of a split lie: a file of its own, or a part of one file that is cut by what its rows hold."""

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from infra import storage
from infra.errors import DataError, UserError, nearest
from pipelines.questions.rows import BadRow, Row, kind_of, read_rows

# What files are called by those who publish them.
_STEMS = {
    "train": ("train", "training", "in_domain_train"),
    "dev": ("dev", "val", "valid", "validation", "in_domain_dev"),
    "test": ("test",),
    "dev32": ("dev32",),  # FewGLUE's, which is dev where there is no other
}


@dataclass(frozen=True)
class SplitFile:
    """The rows of a split: all of a file, or those whose content hashes to ranks [first, last) of all rows."""

    url: str
    first: float = 0.0
    last: float = 1.0
    read: Callable[[str], Iterator[Row | BadRow]] | None = None
    """How its task reads it, where it is not a table with named columns."""
    together: tuple[str, ...] = ()
    """Where the file is cut, rows whose fields of these names are equal stay together; (): those that are equal."""

    def rows(self, columns: Sequence[str] = ()) -> Iterator[Row | BadRow]:
        """All rows of the file."""
        return self.read(self.url) if self.read else read_rows(self.url, columns=columns)


def find_splits(data: str, given: Mapping[str, str], shares: Mapping[str, float]) -> dict[str, SplitFile]:
    """Split -> its file. given: split -> URL, as a recipe names them; else `data` is a folder with a file for each
    split, or one file, which is cut by these shares.

    Raises DataError where there is nothing to read.
    """
    if given:
        found = {
            name: SplitFile(url if "://" in url or url.startswith("/") or not data else storage.join(data, url))
            for name, url in given.items()
        }
        if missing := [split.url for split in found.values() if not storage.exists(split.url)]:
            raise DataError(f"{missing[0]} does not exist", try_=storage.spelling(missing[0]))
        return found
    if not storage.exists(data):
        raise DataError(f"{data} does not exist", try_=storage.spelling(data))
    files = sorted(info.path for info in storage.list_files(data))
    if kind_of(data) and files == [storage.base_name(data)]:  # a file lists itself
        return _shared_out(data, shares)
    tables = [path for path in files if "/" not in path and kind_of(path)]
    by_split = {
        name: [path for path in tables if path.lower().split(".")[0] in stems] for name, stems in _STEMS.items()
    }
    if twice := [paths for paths in by_split.values() if len(paths) > 1]:
        raise DataError(f"{data} holds both {twice[0][0]} and {twice[0][1]}", try_="name one as task.splits")
    found = {name: SplitFile(storage.join(data, paths[0])) for name, paths in by_split.items() if paths}
    if "dev32" in found:
        found.setdefault("dev", found["dev32"])
    if found:
        return found
    if len(tables) == 1:
        return _shared_out(storage.join(data, tables[0]), shares)
    raise DataError(
        f"{data} holds no splits",
        why=f"it has {', '.join(files[:5]) or 'no files'}; a split is train, dev (or val) and test, as .csv, .tsv, "
        ".jsonl or .parquet",
        try_="name the files: --task.splits='{train: a.csv, dev: b.csv}'",
    )


def splits_by_words(data: str, is_read: Callable[[str], object]) -> dict[str, str]:
    """Split -> the file that has a word of the split in its name, such as `wiki.valid.tokens`; one file without such a
    word is dev. data: a folder, or a file; is_read: whether a name is that of a file which can be read.

    Raises DataError where there is nothing to read, or two files of a split.
    """
    if not storage.exists(data):
        raise DataError(f"{data} does not exist", try_=storage.spelling(data))
    there = sorted(info.path for info in storage.list_files(data))
    is_file = there == [storage.base_name(data)]
    files = [path for path in there if "/" not in path and is_read(path)]
    found: dict[str, str] = {}
    for path in files:
        words = {*re.split(r"[._-]", path.lower())}
        for split in (split for split, stems in _STEMS.items() if words.intersection(stems)):
            if split in found:
                raise DataError(f"{data} holds both {found[split]} and {path}", try_="name one as task.splits")
            found[split] = path
    if not found and len(files) == 1:
        found = {"dev": files[0]}
    if not found:
        raise DataError(
            f"{data} holds no splits",
            why=f"it has {', '.join(there[:5]) or 'no files'}; the name of a split's file has the word train, dev (or "
            "val) or test",
            try_="name the files: --task.splits='{dev: <file>}'",
        )
    return {split: data if is_file else storage.join(data, path) for split, path in found.items()}


def split_rows(splits: Mapping[str, SplitFile], name: str, *, columns: Sequence[str] = ()) -> Iterator[Row | BadRow]:
    """The rows of a split, in the order of its file. Raises UserError for a split that is not there."""
    if name not in splits:
        raise UserError(f"unknown split {name!r}{nearest(name, splits)}", try_=f"choose one of {', '.join(splits)}")
    split = splits[name]
    rows = split.rows(columns)
    if (split.first, split.last) == (0.0, 1.0):
        return rows
    return _within(split, rows, columns)


def train_or_first(splits: Mapping[str, SplitFile]) -> str:
    """The split in which a task finds its labels."""
    return "train" if "train" in splits else next(iter(splits))


def _shared_out(url: str, shares: Mapping[str, float]) -> dict[str, SplitFile]:
    total, begin, found = sum(shares.values()), 0.0, {}
    for name, share in shares.items():
        found[name] = SplitFile(url, begin / total, (begin + share) / total)
        begin += share
    return found


def _within(split: SplitFile, rows: Iterator[Row | BadRow], columns: Sequence[str]) -> Iterator[Row | BadRow]:
    """Those rows whose hash stands among these ranks: exact counts, but for rows that stay together. Damaged
    rows belong to the first split, so that each is told once.
    """
    names = split.together
    hashes = np.sort([_hash(row, names) for row in split.rows(columns) if isinstance(row, Row)])
    low, high = (round(share * len(hashes)) for share in (split.first, split.last))
    first = hashes[low] if low < len(hashes) else np.uint64(2**64 - 1)
    last = hashes[high] if high < len(hashes) else None
    for row in rows:
        if isinstance(row, BadRow):
            if split.first == 0:
                yield row
        elif (own := _hash(row, names)) >= first and (last is None or own < last):
            yield row


def _hash(row: Row, names: Sequence[str]) -> np.uint64:
    """names: of the fields that decide; all of them, where there are no such names or fields."""
    fields = {name: row.fields[name] for name in names if name in row.fields} or row.fields
    content = "\0".join(value for _, value in sorted(fields.items()))
    return np.uint64(int.from_bytes(hashlib.blake2b(content.encode(), digest_size=8).digest(), "little"))
